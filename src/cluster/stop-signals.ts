/**
 * The signals of a node. The first SIGTERM or SIGINT asks it to end in order, the second to hurry;
 * both are caught from the very start, so that an interrupted start also leaves no PostgreSQL
 * behind. SIGHUP means two things: an operator's "read the settings anew", and "your terminal is
 * gone" from the kernel or a shell. It is the latter where the process had a terminal at its start
 * and has none now; then it ends the node as Ctrl-C does.
 */
import { closeSync, openSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import type { Log } from '../base/log.ts'

/** CLIENT: Ctrl-C reaches the process group, and npm then passes it on once more. */
const SAME_SIGNAL_MS = 1_000
/** The kernel may signal a moment before it takes the terminal away. */
const TERMINAL_GONE_MS = 50

export interface StopSignals {
  /** Aborted by the first; its reason is the signal's name. */
  requested: AbortSignal
  /** Aborted by the second. */
  hurried: AbortSignal
  /** As if the first had come; for what ends the node from within. */
  request(): void
  /** What a SIGHUP calls from now on, if it is not the end. */
  onReload(listener: () => void): void
}

export function catchStopSignals(log: Log): StopSignals {
  const requested = new AbortController()
  const hurried = new AbortController()
  const hadTerminal = hasTerminal()
  let reload = (): void => log.info('not reloading: this node does not serve yet')
  let firstAt: number | undefined
  const receive = (signal: string): void => {
    const now = performance.now()
    const isSecond = firstAt !== undefined
    if (firstAt !== undefined && now - firstAt < SAME_SIGNAL_MS) return
    firstAt ??= now
    log.info({ signal }, isSecond ? 'ending at once' : 'ending: open sessions are told')
    if (isSecond) hurried.abort()
    requested.abort(signal)
  }
  const hangUp = async (): Promise<void> => {
    if (hadTerminal) await delay(TERMINAL_GONE_MS)
    if (hadTerminal && !hasTerminal()) receive('SIGHUP')
    else if (!requested.signal.aborted) reload()
  }
  process.on('SIGTERM', receive)
  process.on('SIGINT', receive)
  process.on('SIGHUP', () => void hangUp())
  return {
    requested: requested.signal,
    hurried: hurried.signal,
    request: () => requested.abort('from within'),
    onReload: (listener) => {
      reload = listener
    },
  }
}

/** A controlling terminal that was not hung up. */
function hasTerminal(): boolean {
  try {
    closeSync(openSync('/dev/tty', 'r'))
    return true
  } catch {
    return false
  }
}
