/**
 * The POP3 session, RFC 1939 and its extensions, without I/O: octets in, actions out, outcomes back
 * in. This file turns input into lines one at a time, commands and answers to challenges, and knows
 * nothing of what they do; that is in the rooms that transitions.ts names.
 *
 * The owner's side of the bargain: pull `next()` until undefined after each `receive` and
 * `resume`, and only while the socket has room (a long listing is made as it is pulled). Stop
 * reading from the socket when the session `isHolding` input while an outcome is owed, or `isFull`.
 * When the peer has closed its half, let the commands already received run dry before
 * `end('gone')`; nothing runs after it.
 */
import { assert } from '../../base/assert.ts'
import type { EndReason, Session } from '../session.ts'
import { ASTERISK } from '../wire/ascii.ts'
import { LineBuffer } from '../wire/line-buffer.ts'
import type { Pop3Action, Pop3Outcome, Pop3Parameters } from './actions.ts'
import { Dialogue, type Response } from './dialogue.ts'
import { isHttpRequest } from './http-request.ts'
import {
  type Arguments,
  hasControlCharacters,
  MALFORMED,
  parseArguments,
  parseBase64,
  type Shape,
  verbKey,
} from './parser.ts'
import {
  CONTROL_CHARACTERS,
  greeting,
  LINE_TOO_LONG,
  LOGIN_CANCELLED,
  MAILDROP_UNAVAILABLE,
  RESPONSE_NOT_BASE64,
  type Refusal,
  SESSION_ENDED,
  SHUTTING_DOWN,
} from './replies.ts'
import { type Command, findTransition } from './transitions.ts'

/** LIMIT: RFC 2449 §4, a command line with its CRLF. */
const COMMAND_LINE_MAX_OCTETS = 255
/**
 * LIMIT: a line of AUTH or a response with its CRLF. The tokens of OAUTHBEARER are of some thousand
 * octets. LENIENT: RFC 5034 §4 has 255 for AUTH too; clients put long tokens there.
 */
const AUTH_LINE_MAX_OCTETS = 16_384
const AUTH = verbKey(Buffer.from('AUTH', 'latin1'))

export class Pop3Session implements Session<Pop3Action, Pop3Outcome> {
  readonly #dialogue: Dialogue
  #lines = new LineBuffer()
  #isFirstLine = true
  #endReason: EndReason | undefined

  constructor(parameters: Pop3Parameters) {
    this.#dialogue = new Dialogue(parameters)
    this.#dialogue.accept(greeting(parameters.apopTimestamp))
  }

  /**
   * More input is held than a client needs to send ahead: stop reading until `next()` has used it.
   */
  get isFull(): boolean {
    return this.#lines.isFull
  }

  /** Input that no command has used is held: more is for later. */
  get isHolding(): boolean {
    return this.#lines.heldOctets > 0
  }

  /** Between `start-tls` and `secured` nothing is heard: it would have come in the clear. */
  receive(chunk: Buffer): void {
    const { state } = this.#dialogue
    if (state !== 'closed' && state !== 'securing') this.#lines.push(chunk)
  }

  next(): Pop3Action | undefined {
    const dialogue = this.#dialogue
    while (dialogue.gatherPiece() || this.#runCommand());
    return dialogue.takeAction()
  }

  /** @throws {AssertionError} if no outcome is owed, or one of another kind */
  resume(outcome: Pop3Outcome): void {
    if (this.#endReason === 'gone') return
    this.#dialogue.resume(outcome)
  }

  /**
   * Takes effect between commands: what has begun is finished, what waits in the input is not run.
   */
  end(reason: EndReason): void {
    if (this.#endReason !== 'gone') this.#endReason = reason
    if (reason === 'gone') this.#dialogue.abandon()
  }

  /** Runs one thing that waits: the end, or a command; false: nothing can run now. */
  #runCommand(): boolean {
    const dialogue = this.#dialogue
    if (!dialogue.isBetweenCommands || dialogue.isGatheredFull) return false
    if (this.#endReason !== undefined) {
      this.#takeLeave(this.#endReason)
      return false
    }
    const lineMaxOctets = this.#isLongLineExpected()
      ? AUTH_LINE_MAX_OCTETS
      : COMMAND_LINE_MAX_OCTETS
    const line = this.#lines.take(lineMaxOctets)
    if (line === undefined) return false
    const isTooLong = line.length >= lineMaxOctets
    if (dialogue.isChallenging) dialogue.respond(isTooLong ? LINE_TOO_LONG : parseResponse(line))
    else this.#obey(line, isTooLong)
    return true
  }

  #isLongLineExpected(): boolean {
    const { isChallenging, state } = this.#dialogue
    return isChallenging || (state === 'authorization' && verbKey(this.#lines.peek()) === AUTH)
  }

  #takeLeave(reason: EndReason): void {
    const dialogue = this.#dialogue
    assert(reason !== 'gone', 'a session whose peer is gone is closed')
    if (reason === 'drain') dialogue.refuse(SHUTTING_DOWN)
    if (reason === 'lease-lost') dialogue.refuse(SESSION_ENDED)
    // RFC 1939 §3: the autologout timer closes without a response.
    dialogue.close(reason)
  }

  #obey(line: Buffer, isTooLong: boolean): void {
    const dialogue = this.#dialogue
    if (this.#isFirstLine && isHttpRequest(line)) {
      dialogue.close('http')
      return
    }
    this.#isFirstLine = false
    if (!dialogue.countCommand()) return
    const refusal = isTooLong ? LINE_TOO_LONG : this.#start(line)
    if (refusal !== undefined) dialogue.refuse(refusal)
    if (dialogue.state === 'securing') this.#forgetInput()
  }

  /**
   * RFC 2595 §4: what came in the clear behind STLS is not from whom TLS will tell us it is, and
   * obeying it would be command injection. After TLS the connection is as if it were new.
   */
  #forgetInput(): void {
    this.#lines = new LineBuffer()
    this.#isFirstLine = true
  }

  /** Runs the command in `line`, once the listing that it needs is there. */
  #start(line: Buffer): Refusal | undefined {
    const dialogue = this.#dialogue
    const { state } = dialogue
    assert(state === 'authorization' || state === 'transaction', 'commands run in two states')
    const found = findTransition(state, verbKey(line))
    if (!('command' in found)) return found
    const { command } = found
    // A password may hold any octet that ends no line; its parser refuses those.
    if (command.args !== 'password' && hasControlCharacters(line)) return CONTROL_CHARACTERS
    const args = parseArguments(command.args, line, command.verb.length)
    if (args === MALFORMED) return found.malformed
    if (!found.needsListing || dialogue.listing.isLoaded) return run(dialogue, command, args)
    dialogue.ask({ kind: 'list' }, (_, outcome) => {
      const refusal = loadListing(dialogue, outcome) ?? run(dialogue, command, args)
      if (refusal !== undefined) dialogue.refuse(refusal)
    })
    return undefined
  }
}

/** A line that answers a challenge, RFC 5034 §4. */
function parseResponse(line: Buffer): Response {
  if (line.length === 1 && line[0] === ASTERISK) return LOGIN_CANCELLED
  const octets = parseBase64(line)
  return octets === MALFORMED ? RESPONSE_NOT_BASE64 : octets
}

/** Freezes the listing for the first command that needs it. */
function loadListing(dialogue: Dialogue, outcome: Pop3Outcome): Refusal | undefined {
  // Never an empty maildrop for a fault of ours: clients forget what they have downloaded.
  if (outcome.kind === 'unavailable') return MAILDROP_UNAVAILABLE
  assert(outcome.kind === 'listed', 'list is answered by listed or unavailable')
  dialogue.listing.load(outcome.uids, outcome.octets)
  return undefined
}

function run(dialogue: Dialogue, command: Command, args: Arguments[Shape]): Refusal | undefined {
  const refusal = command.check?.(dialogue, args)
  if (refusal === undefined) command.proceed(dialogue, args)
  return refusal
}
