/**
 * Asserts state what cannot be otherwise unless we made a mistake. A broken one is a *bug*: it ends
 * the connection or command that met it, never the worker. What a peer or the world may do wrong is
 * no bug: that is a refusal (a value) or a failure (see failure.ts).
 */
import { AssertionError } from 'node:assert'

/** @throws {AssertionError} if `condition` is false; `message` says what should have held */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new AssertionError({ message, stackStartFn: assert })
}
