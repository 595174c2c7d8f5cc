/** What runs on this machine, for tests that nothing is left behind. */
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'

/** Command lines of all processes that mention the text; Linux only, which tests may assume. */
export function processesWith(text: string): { pid: number; command: string }[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => ({ pid: Number(name), command: commandOf(name) }))
    .filter(({ pid, command }) => pid !== process.pid && command.includes(text))
}

/** Empty for a process that has ended, even while nobody has waited for it. */
function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ')
  } catch {
    return ''
  }
}

/** Polled, as the end of a process that is not our child is no event. */
export async function untilGone(isThere: () => boolean, deadlineMs = 10_000): Promise<void> {
  const deadline = performance.now() + deadlineMs
  while (isThere()) {
    if (performance.now() > deadline) throw new Error('it is still there')
    await wait(20)
  }
}

export const isRunning = (pid: number): boolean => commandOf(String(pid)) !== ''
