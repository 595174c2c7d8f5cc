/**
 * A progress bar on standard error, if that is a terminal; otherwise nothing, so that logs of cron
 * jobs stay readable.
 */
import { SingleBar } from 'cli-progress'

export interface Progress {
  update: (done: number) => void
  stop: () => void
}

/** @param noun what is counted, in the plural */
export function startProgress(total: number, noun: string): Progress {
  if (process.stderr.isTTY !== true) return { update: () => {}, stop: () => {} }
  const bar = new SingleBar({
    format: `{bar} {percentage}% | {value}/{total} ${noun} | {eta_formatted} left`,
    stream: process.stderr,
    hideCursor: true,
    clearOnComplete: true,
  })
  bar.start(total, 0)
  return { update: (done) => bar.update(done), stop: () => bar.stop() }
}
