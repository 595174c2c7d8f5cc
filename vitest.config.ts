/**
 * Four projects: `main` is `npm test` and needs nothing but Node, `interop` needs foreign mail
 * clients (.ci/run installs them), `tidy` checks the house rules, `bench` measures by an npm script
 * of its own (the rest of bench/ is no test).
 */
import { defineConfig } from 'vitest/config'

const postgres = ['test/support/postgres-setup.ts']

export default defineConfig({
  test: {
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Most tests wait for processes and sockets: two files at once take half the time on two cores.
    maxWorkers: 2,
    projects: [
      {
        extends: true,
        test: {
          name: 'main',
          include: [
            'test/{unit,dialogs,conformance,fuzz,integration,cluster,plans,guard,tidy,torture}/**/*.test.ts',
          ],
          globalSetup: postgres,
        },
      },
      {
        extends: true,
        test: {
          name: 'interop',
          include: ['test/interop/**/*.test.ts'],
          globalSetup: postgres,
          testTimeout: 120_000,
        },
      },
      { extends: true, test: { name: 'bench', include: ['bench/login-flood.ts'] } },
      {
        extends: true,
        test: {
          name: 'torture',
          include: ['test/torture/torture.ts'],
          disableConsoleIntercept: true,
        },
      },
      { extends: true, test: { name: 'tidy', include: ['test/tidy/**/*.test.ts'] } },
      { extends: true, test: { name: 'compose', include: ['test/compose/**/*.test.ts'] } },
    ],
  },
})
