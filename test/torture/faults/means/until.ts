/** For what nobody tells of: it is looked for, with a limit. */
import { setTimeout as delay } from 'node:timers/promises'

const POLL_MS = 50

export async function until(
  what: string,
  isSo: () => Promise<boolean> | boolean,
  limitMs = 30_000,
): Promise<void> {
  for (const deadline = performance.now() + limitMs; !(await isSo()); await delay(POLL_MS))
    if (performance.now() > deadline) throw new Error(`${what}: not within ${limitMs} ms`)
}
