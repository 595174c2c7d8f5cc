/**
 * What one POP3 dialogue remembers, and the five things a command can do to it: reply, stream a
 * long reply, refuse, ask the owner for something, close. Commands (authorization.ts,
 * transaction.ts, any-state.ts) work on this; session.ts decides when the next one may run.
 *
 * Replies are gathered as text and leave together, so a hundred pipelined commands cost one write.
 */
import { assert } from '../../base/assert.ts'
import type { Pop3Action, Pop3Outcome, Pop3Parameters } from './actions.ts'
import type { Listing } from './listing.ts'
import { type Refusal, TOO_MANY_BAD_COMMANDS } from './replies.ts'

/** RFC 1939 §3; `closed` follows the last action. */
export type Pop3State = 'authorization' | 'transaction' | 'update' | 'closed'

/** Takes the outcome that the action was asked for; answers the peer. */
export type Answer = (dialogue: Dialogue, outcome: Pop3Outcome) => void

type CloseReason = Extract<Pop3Action, { kind: 'close' }>['reason']

/** LIMIT: unknown, malformed, overlong or ill-timed commands before the connection is closed. */
const BAD_COMMANDS_MAX = 10
/** LIMIT: replies gathered before they must leave; a piece of a listing may come on top. */
const GATHERED_MAX_OCTETS = 32_768

export class Dialogue {
  readonly parameters: Pop3Parameters
  state: Pop3State = 'authorization'
  /** Named by USER, forgotten when a login failed. */
  userName: string | undefined
  loginFailureCount = 0
  #badCommandCount = 0
  #listing: Listing | undefined
  #gathered = ''
  #pieces: Iterator<string> | undefined
  #action: Pop3Action | undefined
  #answer: Answer | undefined

  constructor(parameters: Pop3Parameters) {
    this.parameters = parameters
  }

  /** The maildrop's messages; there is one from a successful login on. */
  get listing(): Listing {
    assert(this.#listing !== undefined, 'only a command of TRANSACTION looks at the listing')
    return this.#listing
  }

  /** Whether the peer's next command may run: no reply is unfinished, no outcome owed. */
  get isBetweenCommands(): boolean {
    return (
      this.#pieces === undefined &&
      this.#action === undefined &&
      this.#answer === undefined &&
      this.state !== 'closed'
    )
  }

  enterTransaction(listing: Listing): void {
    this.#listing = listing
    this.state = 'transaction'
  }

  /** @param text whole lines, ASCII, each with its CRLF */
  reply(text: string): void {
    this.#gathered += text
  }

  /** The rest of a multi-line reply, made piece by piece as the owner pulls. */
  stream(pieces: Iterator<string>): void {
    this.#pieces = pieces
  }

  refuse(refusal: Refusal): void {
    if (refusal.isBadCommand) this.#badCommandCount += 1
    if (this.#badCommandCount < BAD_COMMANDS_MAX) {
      this.reply(refusal.reply)
      return
    }
    this.reply(TOO_MANY_BAD_COMMANDS)
    this.close('too-many-errors')
  }

  /** Everything waits until the owner has brought the outcome to `resume()`. */
  ask(action: Pop3Action, answer: Answer): void {
    assert(this.isBetweenCommands, 'one thing is asked at a time')
    this.#action = action
    this.#answer = answer
  }

  /** @throws {AssertionError} if no outcome is owed */
  resume(outcome: Pop3Outcome): void {
    const answer = this.#answer
    assert(answer !== undefined && this.#action === undefined, 'an outcome answers a pulled action')
    this.#answer = undefined
    answer(this, outcome)
  }

  close(reason: CloseReason): void {
    this.#action = { kind: 'close', reason }
    this.state = 'closed'
  }

  /** The peer is gone: nothing is said or asked any more. */
  abandon(): void {
    this.#gathered = ''
    this.#pieces = undefined
    this.#action = undefined
    this.#answer = undefined
    this.state = 'closed'
  }

  /** Adds the next piece of a long reply; false: there is none, or enough is gathered already. */
  gatherPiece(): boolean {
    if (this.#pieces === undefined || this.isGatheredFull) return false
    const piece = this.#pieces.next()
    if (piece.done === true) this.#pieces = undefined
    else this.#gathered += piece.value
    return true
  }

  get isGatheredFull(): boolean {
    return this.#gathered.length >= GATHERED_MAX_OCTETS
  }

  /** What the owner has to do next: first send what was gathered, then what was asked. */
  takeAction(): Pop3Action | undefined {
    if (this.#gathered !== '') {
      const bytes = Buffer.from(this.#gathered, 'latin1')
      this.#gathered = ''
      return { kind: 'send', bytes }
    }
    const action = this.#action
    this.#action = undefined
    return action
  }
}
