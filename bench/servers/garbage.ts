/** How a Node server is started so that it can be told to collect its garbage, and told. */
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

const ASK_MS = 5
const PATIENCE_MS = 10_000

/** @param place where its processes write down what they hold */
export function collecting(place: string): string[] {
  const program = new URL('collect-on-signal.js', import.meta.url)
  program.searchParams.set('to', place)
  return ['--expose-gc', `--import=${program}`]
}

/**
 * @param pids all of processes that were started so
 * @returns PSS of all, in KiB, each just after its collection
 */
export async function collectGarbage(place: string, pids: readonly number[]): Promise<number> {
  const files = pids.map((pid) => join(place, String(pid)))
  for (const file of files) rmSync(file, { force: true })
  for (const pid of pids) process.kill(pid, 'SIGUSR2')
  const until = performance.now() + PATIENCE_MS
  while (!files.every((file) => existsSync(file))) {
    if (performance.now() > until) throw new Error('a server does not collect its garbage')
    await delay(ASK_MS)
  }
  return files.reduce((sum, file) => sum + Number(readFileSync(file, 'utf8')), 0)
}
