/**
 * The first SIGTERM, SIGINT or SIGHUP asks the node to end in order, the second to hurry. Caught
 * from the very start, so that an interrupted start also leaves no PostgreSQL behind.
 */
import type { Log } from '../base/log.ts'

/** CLIENT: Ctrl-C reaches the process group, and npm then passes it on once more. */
const SAME_SIGNAL_MS = 1_000

export interface StopSignals {
  /** Aborted by the first. */
  requested: AbortSignal
  /** Aborted by the second. */
  hurried: AbortSignal
  /** As if the first had come; for what ends the node from within. */
  request(): void
}

export function catchStopSignals(log: Log): StopSignals {
  const requested = new AbortController()
  const hurried = new AbortController()
  let firstAt: number | undefined
  const receive = (signal: string): void => {
    const now = performance.now()
    const isSecond = firstAt !== undefined
    if (firstAt !== undefined && now - firstAt < SAME_SIGNAL_MS) return
    firstAt ??= now
    log.info({ signal }, isSecond ? 'ending at once' : 'ending: open sessions are told')
    if (isSecond) hurried.abort()
    requested.abort()
  }
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, receive)
  return {
    requested: requested.signal,
    hurried: hurried.signal,
    request: () => requested.abort(),
  }
}
