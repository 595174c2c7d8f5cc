/**
 * What whoever waits at a terminal is told on standard error: a progress bar, and a word if the
 * database says nothing. Without a terminal nothing, so that logs of cron jobs stay readable.
 */
import { SingleBar } from 'cli-progress'
import { silentMs } from '../storage/postgres/statement-meter.ts'

export interface Progress {
  update: (done: number) => void
  /** Idempotent. */
  stop: () => void
}

const PATIENCE_MS = 5_000
const LOOK_MS = 500
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

/**
 * The command goes on: some statements do take long, and only the operator knows for how long it is
 * worth waiting.
 * @returns stops telling
 */
export function tellOfSilence(): () => void {
  if (process.stderr.isTTY !== true) return () => {}
  const timer = setInterval(() => {
    if (silentMs() < PATIENCE_MS) return
    clearInterval(timer)
    process.stderr.write('popgres: still waiting for the database (Ctrl-C gives up)\n')
  }, LOOK_MS)
  return () => clearInterval(timer)
}
