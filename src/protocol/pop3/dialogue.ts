/**
 * What one POP3 dialogue remembers, and the six things a command can do to it: accept, stream a
 * long reply, refuse, ask the owner for something, challenge the peer, close. Commands
 * (authorization.ts, authentication.ts, transaction.ts, any-state.ts) work on this; session.ts
 * decides when the next one may run.
 *
 * Replies are gathered as text and leave together, so a hundred pipelined commands cost one write.
 */
import { assert } from '../../base/assert.ts'
import type { MaildropPolicy, Pop3Action, Pop3Outcome, Pop3Parameters } from './actions.ts'
import type { Listing } from './listing.ts'
import {
  type Refusal,
  serializeRefusal,
  TOO_MANY_BAD_COMMANDS,
  TOO_MANY_COMMANDS,
} from './replies.ts'
import { ENGLISH } from './words/english.ts'
import type { Words } from './words/words.ts'

/** RFC 1939 §3; `securing` while TLS begins (RFC 2595 §4); `closed` follows the last action. */
export type Pop3State = 'authorization' | 'securing' | 'transaction' | 'update' | 'closed'

/** Takes the outcome that the action was asked for; answers the peer. */
export type Answer = (dialogue: Dialogue, outcome: Pop3Outcome) => void

/** The octets that a peer answered a challenge with, or why there are none. */
export type Response = Buffer | Refusal

type CloseReason = Extract<Pop3Action, { kind: 'close' }>['reason']

/** LIMIT: unknown, malformed, overlong or ill-timed commands before the connection is closed. */
const BAD_COMMANDS_MAX = 10
/**
 * LIMIT: commands before the login, good ones too: who guesses, probes or stalls gets no further.
 * CLIENT: Thunderbird needs about 15 to fail with every mechanism it knows.
 */
const COMMANDS_BEFORE_LOGIN_MAX = 50
/** LIMIT: replies gathered before they must leave; a piece of a listing may come on top. */
const GATHERED_MAX_CHARACTERS = 32_768

export class Dialogue {
  state: Pop3State = 'authorization'
  /** The language of every text from the next reply on. */
  words: Words = ENGLISH
  /** RFC 6856 §2: whether the peer said that it reads UTF-8 in messages. */
  isUtf8 = false
  /** Named by USER, forgotten when a login failed. */
  userName: string | undefined
  loginFailureCount = 0
  #parameters: Pop3Parameters
  #badCommandCount = 0
  #commandCount = 0
  #opened: { listing: Listing; policy: MaildropPolicy } | undefined
  #gathered = ''
  #pieces: Iterator<string> | undefined
  #proceed: (() => void) | undefined
  #action: Pop3Action | undefined
  #answer: Answer | undefined
  #respond: ((response: Response) => void) | undefined

  constructor(parameters: Pop3Parameters) {
    this.#parameters = parameters
  }

  get parameters(): Pop3Parameters {
    return this.#parameters
  }

  /** The maildrop's messages; there is one from a successful login on. */
  get listing(): Listing {
    assert(this.#opened !== undefined, 'only a command of TRANSACTION looks at the listing')
    return this.#opened.listing
  }

  /** Of who has logged in; undefined before the login. */
  get ownPolicy(): MaildropPolicy | undefined {
    return this.#opened?.policy
  }

  /** Whether the peer's next line may be looked at: no reply is unfinished, no outcome owed. */
  get isBetweenCommands(): boolean {
    return (
      this.#pieces === undefined &&
      this.#action === undefined &&
      this.#answer === undefined &&
      this.state !== 'closed'
    )
  }

  /** Whether the next line is no command but the answer to a challenge. */
  get isChallenging(): boolean {
    return this.#respond !== undefined
  }

  enterTransaction(listing: Listing, policy: MaildropPolicy): void {
    this.#opened = { listing, policy }
    this.state = 'transaction'
  }

  /**
   * RFC 2595 §4: from here on the peer is another, whom nobody could speak for. Nothing that was
   * said in the clear is known any more; what was done wrong is still counted.
   */
  enterSecured(parameters: Pop3Parameters): void {
    this.#parameters = parameters
    this.state = 'authorization'
    this.words = ENGLISH
    this.isUtf8 = false
    this.userName = undefined
  }

  /** @returns false: there were too many before a login, and the connection ends */
  countCommand(): boolean {
    if (this.state !== 'authorization') return true
    this.#commandCount += 1
    if (this.#commandCount <= COMMANDS_BEFORE_LOGIN_MAX) return true
    this.#say(TOO_MANY_COMMANDS)
    this.close('too-many-errors')
    return false
  }

  /** @param text what follows +OK, if anything */
  accept(text: string): void {
    this.reply(text === '' ? '+OK\r\n' : `+OK ${text}\r\n`)
  }

  /** @param text whole lines, each with its CRLF */
  reply(text: string): void {
    this.#gathered += text
  }

  /**
   * The rest of a multi-line reply, made piece by piece as the owner pulls.
   * @param proceed goes on with the reply after the last piece: asks for what the next ones need
   */
  stream(pieces: Iterator<string>, proceed?: () => void): void {
    this.#pieces = pieces
    this.#proceed = proceed
  }

  refuse(refusal: Refusal): void {
    if (refusal.isBadCommand) this.#badCommandCount += 1
    if (this.#badCommandCount < BAD_COMMANDS_MAX) {
      this.#say(refusal)
      return
    }
    this.#say(TOO_MANY_BAD_COMMANDS)
    this.close('too-many-errors')
  }

  /** Everything waits until the owner has brought the outcome to `resume()`. */
  ask(action: Pop3Action, answer: Answer): void {
    assert(this.isBetweenCommands && !this.isChallenging, 'one thing is asked at a time')
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

  /**
   * RFC 5034 §4: asks the peer, whose next line is the answer. An empty challenge is "+", a space,
   * and nothing: clients want the space.
   */
  challenge(octets: Buffer, respond: (response: Response) => void): void {
    this.reply(`+ ${octets.toString('base64')}\r\n`)
    this.#respond = respond
  }

  /** What the peer answered to the challenge. */
  respond(response: Response): void {
    const respond = this.#respond
    assert(respond !== undefined, 'a response answers a challenge')
    this.#respond = undefined
    respond(response)
  }

  close(reason: CloseReason): void {
    this.#action = { kind: 'close', reason }
    this.state = 'closed'
  }

  /** The peer is gone: nothing is said or asked any more. */
  abandon(): void {
    this.#gathered = ''
    this.#pieces = undefined
    this.#proceed = undefined
    this.#action = undefined
    this.#answer = undefined
    this.state = 'closed'
  }

  /** Adds the next piece of a long reply; false: there is none, or enough is gathered already. */
  gatherPiece(): boolean {
    if (this.#pieces === undefined || this.isGatheredFull) return false
    const piece = this.#pieces.next()
    if (piece.done !== true) {
      this.#gathered += piece.value
      return true
    }
    const proceed = this.#proceed
    this.#pieces = undefined
    this.#proceed = undefined
    proceed?.()
    return true
  }

  get isGatheredFull(): boolean {
    return this.#gathered.length >= GATHERED_MAX_CHARACTERS
  }

  /** What the owner has to do next: first send what was gathered, then what was asked. */
  takeAction(): Pop3Action | undefined {
    if (this.#gathered !== '') {
      const bytes = Buffer.from(this.#gathered, 'utf8')
      this.#gathered = ''
      return { kind: 'send', bytes }
    }
    const action = this.#action
    this.#action = undefined
    return action
  }

  #say(refusal: Refusal): void {
    this.reply(serializeRefusal(refusal, this.words))
  }
}
