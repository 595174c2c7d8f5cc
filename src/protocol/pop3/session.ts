/**
 * The POP3 session, RFC 1939 and RFC 2449, without I/O: octets in, actions out, outcomes back in.
 * This file turns input into commands one at a time and knows nothing of what they do; that is in
 * the rooms that transitions.ts names.
 *
 * The owner's side of the bargain: pull `next()` until undefined after each `receive` and
 * `resume`, and only while the socket has room (a long listing is made as it is pulled). Stop
 * reading from the socket while an outcome is owed or `isFull`. When the peer has closed its half,
 * let the commands already received run dry before `end('gone')`; nothing runs after it.
 */
import { assert } from '../../base/assert.ts'
import type { EndReason, Session } from '../session.ts'
import { LineBuffer } from '../wire/line-buffer.ts'
import type { Pop3Action, Pop3Outcome, Pop3Parameters } from './actions.ts'
import { Dialogue } from './dialogue.ts'
import { isHttpRequest } from './http-request.ts'
import {
  type Arguments,
  hasControlCharacters,
  MALFORMED,
  parseArguments,
  type Shape,
  verbKey,
} from './parser.ts'
import {
  CONTROL_CHARACTERS,
  greeting,
  LINE_TOO_LONG,
  MAILDROP_UNAVAILABLE,
  type Refusal,
  SESSION_ENDED,
  SHUTTING_DOWN,
} from './replies.ts'
import { type Command, findTransition } from './transitions.ts'

/** LIMIT: RFC 2449 §4, a command line with its CRLF. */
const COMMAND_LINE_MAX_OCTETS = 255

export class Pop3Session implements Session<Pop3Action, Pop3Outcome> {
  readonly #dialogue: Dialogue
  readonly #lines = new LineBuffer(COMMAND_LINE_MAX_OCTETS)
  #isFirstLine = true
  #endReason: EndReason | undefined

  constructor(parameters: Pop3Parameters) {
    this.#dialogue = new Dialogue(parameters)
    this.#dialogue.reply(greeting(parameters))
  }

  /**
   * More input is held than a client needs to send ahead: stop reading until `next()` has used it.
   */
  get isFull(): boolean {
    return this.#lines.isFull
  }

  receive(chunk: Buffer): void {
    if (this.#dialogue.state !== 'closed') this.#lines.push(chunk)
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
    const line = this.#lines.take()
    if (line === undefined) return false
    this.#obey(line)
    return true
  }

  #takeLeave(reason: EndReason): void {
    const dialogue = this.#dialogue
    assert(reason !== 'gone', 'a session whose peer is gone is closed')
    if (reason === 'drain') dialogue.reply(SHUTTING_DOWN)
    if (reason === 'lease-lost') dialogue.reply(SESSION_ENDED)
    // RFC 1939 §3: the autologout timer closes without a response.
    dialogue.close(reason)
  }

  #obey(line: Buffer): void {
    if (this.#isFirstLine) {
      this.#isFirstLine = false
      if (isHttpRequest(line)) {
        this.#dialogue.close('http')
        return
      }
    }
    const refusal = this.#start(line)
    if (refusal !== undefined) this.#dialogue.refuse(refusal)
  }

  /** Runs the command in `line`, once the listing that it needs is there. */
  #start(line: Buffer): Refusal | undefined {
    if (line.length >= COMMAND_LINE_MAX_OCTETS) return LINE_TOO_LONG
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
