/**
 * A progress bar on standard error, if that is a terminal; otherwise nothing, so that logs of cron
 * jobs stay readable.
 */
import { SingleBar } from 'cli-progress'

export interface Progress {
  update: (done: number) => void
  /** Idempotent. */
  stop: () => void
}

const STOP_SIGNALS = ['SIGINT', 'SIGTERM'] as const

/** @param noun what is counted, in the plural */
export function startProgress(total: number, noun: string): Progress {
  if (process.stderr.isTTY !== true) return { update: () => {}, stop: () => {} }
  const bar = new SingleBar({
    format: `{bar} {percentage}% | {value}/{total} ${noun} | {eta_formatted} left`,
    stream: process.stderr,
    hideCursor: true,
    clearOnComplete: true,
    gracefulExit: false, // it would swallow the first Ctrl-C and let the work go on
  })
  const stop = (): void => {
    for (const signal of STOP_SIGNALS) process.removeListener(signal, die)
    bar.stop()
  }
  /** Gives the cursor back, then dies of the signal as if nobody had listened. */
  const die = (signal: NodeJS.Signals): void => {
    stop()
    process.kill(process.pid, signal)
  }
  for (const signal of STOP_SIGNALS) process.on(signal, die)
  bar.start(total, 0)
  return { update: (done) => bar.update(done), stop }
}
