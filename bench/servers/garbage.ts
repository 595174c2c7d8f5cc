/** How a Node server is started so that it can be told to collect its garbage, and told. */
export const COLLECTING = [
  '--expose-gc',
  `--import=${new URL('collect-on-signal.js', import.meta.url)}`,
]

/** @param pids all of processes that were started so */
export function collectGarbage(pids: readonly number[]): void {
  for (const pid of pids) process.kill(pid, 'SIGUSR2')
}
