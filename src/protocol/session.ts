/**
 * The seam of every protocol room: a dialogue with one peer, without I/O. The owner pushes bytes
 * in, pulls actions until `undefined`, and answers the action that asked for an outcome.
 *
 * While an outcome is owed `next()` is undefined. That alone gives correct pipelining (the next
 * command is not looked at before the answer to this one is complete) and back-pressure on input
 * (the owner stops reading while nothing is pulled).
 */
export interface Session<Action, Outcome> {
  /** Bytes from the peer, cut anywhere. */
  receive(chunk: Buffer): void
  /** What to do now; undefined: give me bytes, or the outcome that is owed. */
  next(): Action | undefined
  /** The answer to the last action that asked for one. */
  resume(outcome: Outcome): void
  /**
   * The peer went away, was idle too long, or the node drains; pull `next()` once more after it.
   */
  end(reason: EndReason): void
}

/** `gone`: the peer closed; `idle`: autologout; `drain`: this node stops; `lease-lost`: kicked. */
export type EndReason = 'gone' | 'idle' | 'drain' | 'lease-lost'
