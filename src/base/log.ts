/**
 * The log: one JSON line an event on standard output (pino), fields named alike everywhere:
 * `domain`, `user`, `session`, `node`, `client`, `error`. Secrets are of type Secret and print as
 * `[secret]`; raw input of a peer is never a field.
 *
 * A worker's lines leave together, a tenth of a second after the first at the latest: a write for
 * each was a tenth of what a poll cost. Warnings leave at once, with what came before them, and at
 * the end of the process nothing is kept; only who is killed loses the last moment's lines.
 */
import { type DestinationStream, type Logger, pino, stdSerializers } from 'pino'
import { Failure } from './failure.ts'

export type Log = Logger

/** LIMIT: a pipe takes over so much at once (PIPE_BUF): lines of two workers do not mix. */
const TOGETHER_MAX_OCTETS = 4_096
const TOGETHER_MS = 100
/** LIMIT: lines that a full disk does not take. */
const UNWRITTEN_MAX_OCTETS = 1_048_576
/** How a line begins that may wait for others. */
const MAY_WAIT = /^\{"level":"(info|debug|trace)"/

/** Standard output, for who logs with every session. */
export class GatheredOutput implements DestinationStream {
  readonly #out = standardOutput()
  #lines = ''
  #octets = 0
  #timer: NodeJS.Timeout | undefined

  constructor() {
    process.on('exit', () => this.#flush())
  }

  write(line: string): void {
    const octets = Buffer.byteLength(line)
    if (this.#octets + octets > TOGETHER_MAX_OCTETS) this.#flush()
    this.#lines += line
    this.#octets += octets
    if (MAY_WAIT.test(line)) this.#timer ??= setTimeout(() => this.#flush(), TOGETHER_MS).unref()
    else this.#flush()
  }

  #flush(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#lines === '') return
    this.#out.write(this.#lines)
    this.#lines = ''
    this.#octets = 0
  }
}

/**
 * @param level one of pino's levels, or `silent`
 * @param destination where the lines go; standard output if it is not given
 */
export function openLog(
  level: string,
  bindings: Record<string, unknown> = {},
  destination: DestinationStream = standardOutput(),
): Log {
  const options = {
    level,
    base: { pid: process.pid, ...bindings },
    timestamp,
    formatters: { level: (label: string) => ({ level: label }) },
    serializers: { error: serializeError, seconds: toMilliseconds },
  }
  return pino(options, destination)
}

/** Lines of one millisecond share the text of their time. */
let timeMs = 0
let timeText = ''

function timestamp(): string {
  const nowMs = Date.now()
  if (nowMs !== timeMs) {
    timeMs = nowMs
    timeText = `,"time":"${new Date(nowMs).toISOString()}"`
  }
  return timeText
}

/**
 * A log that cannot be written (its terminal was closed, its disk is full) must not end the node:
 * lines wait, up to a limit, and those beyond it are lost.
 */
function standardOutput(): DestinationStream {
  const out = pino.destination({ dest: 1, sync: true, maxLength: UNWRITTEN_MAX_OCTETS })
  return out.on('error', () => {})
}

/** Nobody reads more of a duration, and a difference of two clocks has sixteen digits. */
function toMilliseconds(seconds: unknown): unknown {
  return typeof seconds === 'number' ? Math.round(seconds * 1_000) / 1_000 : seconds
}

/**
 * A failure of the world in a few words: a stack would only hide what the operator has to do.
 * Anything else is a bug and needs its stack.
 */
function serializeError(error: unknown): unknown {
  if (error instanceof Failure) return { code: error.code, message: error.message }
  return error instanceof Error ? stdSerializers.errWithCause(error) : error
}
