/**
 * `main` is `npm test` and needs nothing but Node; `interop` needs foreign mail clients (.ci/run
 * installs them); `long` is what both leave out so that .ci/run ends within 15 minutes; `torture`
 * and `compose` are runs of their own, `tidy` checks the house rules, `bench` measures by an npm
 * script of its own (the rest of bench/ is no test).
 */
import { defineConfig } from 'vitest/config'

const postgres = ['test/support/postgres-setup.ts']

/** Each waits for leases or other limits to end, starts many processes, or builds accounts. */
const LONG_MAIN = [
  'test/cluster/faults/**/*.test.ts',
  'test/cluster/{accounts,background-leader,move-killed,own-database,reload-broken}.test.ts',
  'test/integration/admin/{import-popgres,restore-diverged,round-trip}.test.ts',
]
const LONG_INTEROP = ['test/interop/{mta,moving-in}/**/*.test.ts', 'test/interop/moving.test.ts']

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
          exclude: LONG_MAIN,
          globalSetup: postgres,
        },
      },
      {
        extends: true,
        test: {
          name: 'interop',
          include: ['test/interop/**/*.test.ts'],
          exclude: LONG_INTEROP,
          globalSetup: postgres,
          testTimeout: 120_000,
        },
      },
      {
        extends: true,
        test: {
          name: 'long',
          include: [...LONG_MAIN, ...LONG_INTEROP],
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
