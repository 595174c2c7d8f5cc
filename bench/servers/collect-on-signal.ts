/**
 * Loaded into a Node server before its own code (`--import`, with `--expose-gc`): on SIGUSR2 it
 * collects its garbage and writes its PSS down in the same moment, so that memory is what sessions
 * hold and not what they leave. The space for new objects is empty then, but has 1 to 32 MB, as V8
 * sees fit: it does not count. `?to=` names the directory; the file's name is the process's id.
 */
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { getHeapSpaceStatistics } from 'node:v8'

/** V8's other threads give pages back after a collection. */
const SETTLE_MS = 10

const file = `${new URL(import.meta.url).searchParams.get('to')}/${process.pid}`
const sleeper = new Int32Array(new SharedArrayBuffer(4))

function kibForNewObjects(): number {
  const space = getHeapSpaceStatistics().find(({ space_name }) => space_name === 'new_space')
  return (space?.physical_space_size ?? 0) / 1_024
}

process.on('SIGUSR2', () => {
  globalThis.gc?.()
  globalThis.gc?.()
  Atomics.wait(sleeper, 0, 0, SETTLE_MS)
  const [, kib] = /^Pss:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/smaps_rollup', 'utf8')) ?? []
  writeFileSync(`${file}.new`, String(Number(kib) - kibForNewObjects()))
  renameSync(`${file}.new`, file)
})
