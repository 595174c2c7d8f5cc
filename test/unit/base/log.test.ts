import { spawnSync } from 'node:child_process'
import { expect, test } from 'vitest'
import { openLog } from '../../../src/base/log.ts'

const LOG = new URL('../../../src/base/log.ts', import.meta.url).href

/** What a process prints that logs as `script` says. */
function linesOf(script: string): string[] {
  const program = `
    const { GatheredOutput, openLog } = await import(${JSON.stringify(LOG.replace('/src/', '/dist/').replace('.ts', '.js'))})
    const log = openLog('info', {}, new GatheredOutput())
    ${script}
  `
  const { stdout } = spawnSync(process.execPath, ['--input-type=module', '-e', program])
  return stdout
    .toString()
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line).msg)
}

test.each([
  ['that runs to its end', ''],
  ['that calls exit', 'process.exit(1)'],
  ['that a bug ends', "throw new Error('a bug')"],
])('a process %s keeps no line back', (_, end) => {
  const log = "for (let i = 0; i < 100; i++) log.info('line ' + i)"
  const lines = linesOf(`${log}; ${end}`)
  expect(lines).toEqual(Array.from({ length: 100 }, (_line, i) => `line ${i}`))
})

test('a duration in seconds is told to the millisecond', () => {
  const lines: string[] = []
  const log = openLog('info', {}, { write: (line) => void lines.push(line) })
  log.info({ seconds: 0.20234756499994547 }, 'took')
  expect(JSON.parse(lines[0] ?? '')).toMatchObject({ seconds: 0.202 })
})

test('a warning leaves at once, behind what came before it', () => {
  const lines = linesOf(
    "log.info('first'); log.warn('second'); process.kill(process.pid, 'SIGKILL')",
  )
  expect(lines).toEqual(['first', 'second'])
})
