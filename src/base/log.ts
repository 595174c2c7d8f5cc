/**
 * The log: one JSON line an event on standard output (pino), fields named alike everywhere:
 * `domain`, `user`, `session`, `node`, `client`, `error`. Secrets are of type Secret and print as
 * `[secret]`; raw input of a peer is never a field.
 */
import { type DestinationStream, type Logger, pino, stdSerializers } from 'pino'
import { Failure } from './failure.ts'

export type Log = Logger

/**
 * @param level one of pino's levels, or `silent`
 * @param destination where the lines go; standard output if it is not given
 */
export function openLog(
  level: string,
  bindings: Record<string, unknown> = {},
  destination?: DestinationStream,
): Log {
  const options = {
    level,
    base: { pid: process.pid, ...bindings },
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
    formatters: { level: (label: string) => ({ level: label }) },
    serializers: { error: serializeError },
  }
  return destination === undefined ? pino(options) : pino(options, destination)
}

/**
 * A failure of the world in a few words: a stack would only hide what the operator has to do.
 * Anything else is a bug and needs its stack.
 */
function serializeError(error: unknown): unknown {
  if (error instanceof Failure) return { code: error.code, message: error.message }
  return error instanceof Error ? stdSerializers.errWithCause(error) : error
}
