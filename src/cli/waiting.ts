/**
 * A word to whoever waits at a terminal for a command whose database says nothing. The command goes
 * on: some statements do take long, and only the operator knows for how long it is worth waiting.
 */
import { silentMs } from '../storage/postgres/statement-meter.ts'

const PATIENCE_MS = 5_000
const LOOK_MS = 500

/** @returns stops it */
export function tellOfSilence(): () => void {
  if (process.stderr.isTTY !== true) return () => {}
  const timer = setInterval(() => {
    if (silentMs() < PATIENCE_MS) return
    clearInterval(timer)
    process.stderr.write('popgres: still waiting for the database (Ctrl-C gives up)\n')
  }, LOOK_MS)
  return () => clearInterval(timer)
}
