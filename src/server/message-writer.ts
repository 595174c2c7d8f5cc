/**
 * Writes one message to a socket as the reply of RETR or TOP: header line, octets dot-stuffed, the
 * terminator. Small messages go out in one write; large ones chunk by chunk, the next chunk being
 * read while this one is on its way, waiting for the peer in between.
 */
import type { Socket } from 'node:net'
import { Failure } from '../base/failure.ts'
import type { Maildrop } from '../mail/maildrop/maildrop.ts'
import type { Pop3Outcome } from '../protocol/pop3/actions.ts'
import { DotStuffer } from '../protocol/wire/dot-stuffing.ts'
import { TopCutter } from '../protocol/wire/top-cutter.ts'
import type { StoredMessage } from '../storage/messages.ts'

interface Retrieval {
  octets: number
  header: Buffer
  /** TOP: lines of the body; undefined: RETR, the whole message. */
  bodyLines: number | undefined
  /** Header fields beyond ASCII are refused. */
  isAsciiOnly: boolean
}

type Written = Extract<Pop3Outcome, { kind: 'retrieved' | 'unavailable' }>

const RETRIEVED: Written = { kind: 'retrieved' }
const NEEDS_UTF8: Written = { kind: 'unavailable', reason: 'needs-utf8' }

export class MessageWriter {
  /** Totals of this connection, for the log. */
  messageCount = 0
  octets = 0
  /** True between the header line and the terminator: a fault now must destroy the connection. */
  isInMessage = false
  readonly #socket: Socket
  #wake: (() => void) | undefined

  constructor(socket: Socket) {
    this.#socket = socket
    socket.on('drain', () => this.#wake?.())
  }

  /** The connection is gone: whoever waits for the peer to read is woken and fails. */
  abandon(): void {
    this.#wake?.()
  }

  /**
   * @returns undefined, with nothing written, if the message is not whole in memory
   * @throws {Failure} MESSAGE_DAMAGED, nothing written
   */
  writeAtOnce(message: StoredMessage, retrieval: Retrieval): Written | undefined {
    checkOctets(message, retrieval)
    const { prefix, firstChunk: body } = message
    if (body === undefined) return undefined
    if (retrieval.isAsciiOnly && !isHeaderAscii([prefix, body])) return NEEDS_UTF8
    const parts = [retrieval.header]
    const stuffer = new DotStuffer()
    for (const piece of cut(retrieval.bodyLines, [prefix, body])) parts.push(...stuffer.push(piece))
    parts.push(stuffer.finish())
    const reply = Buffer.concat(parts)
    this.#socket.write(reply)
    this.messageCount++
    this.octets += reply.length
    return RETRIEVED
  }

  /**
   * @throws {Failure} before anything was written if the first octets cannot be had; after it (see
   *   isInMessage) on any fault
   */
  async write(maildrop: Maildrop, message: StoredMessage, retrieval: Retrieval): Promise<Written> {
    const written = this.writeAtOnce(message, retrieval)
    if (written !== undefined) return written
    let next = maildrop.readChunk(message, 0)
    let chunk = await next
    if (retrieval.isAsciiOnly && !isHeaderAscii([message.prefix, chunk])) return NEEDS_UTF8
    const cutter =
      retrieval.bodyLines === undefined ? undefined : new TopCutter(retrieval.bodyLines)
    const isCutOff = () => cutter?.isDone === true
    const stuffer = new DotStuffer()
    this.isInMessage = true
    await this.#send([retrieval.header, ...push(stuffer, cutter, message.prefix)])
    let bodyOctets = 0
    for (let seq = 0; ; seq++) {
      bodyOctets += chunk.length
      const isLast = bodyOctets >= message.bodyOctets || isCutOff()
      if (!isLast) {
        next = maildrop.readChunk(message, seq + 1)
        next.catch(() => undefined) // Awaited below; the peer may go away before.
      }
      await this.#send(push(stuffer, cutter, chunk))
      if (isLast || isCutOff()) break
      chunk = await next
    }
    if (!isCutOff() && bodyOctets !== message.bodyOctets)
      throw new Failure('MESSAGE_DAMAGED', `body ${message.bodyId} has ${bodyOctets} octets`)
    await this.#send([stuffer.finish()])
    this.isInMessage = false
    this.messageCount++
    return RETRIEVED
  }

  async #send(parts: readonly Buffer[]): Promise<void> {
    this.#socket.cork()
    for (const part of parts) {
      this.#socket.write(part)
      this.octets += part.length
    }
    this.#socket.uncork()
    if (this.#socket.writableNeedDrain)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    this.#wake = undefined
    if (this.#socket.destroyed) throw new Failure('LEASE_LOST', 'the peer has gone away')
  }
}

/** LIST, RETR's header line and what is sent must agree to the octet. */
function checkOctets(message: StoredMessage, retrieval: Retrieval): void {
  const { prefix, bodyOctets, firstChunk } = message
  const isRight =
    prefix.length + bodyOctets === retrieval.octets &&
    (firstChunk === undefined || firstChunk.length === bodyOctets)
  if (!isRight) throw new Failure('MESSAGE_DAMAGED', `body ${message.bodyId}: wrong length`)
}

function cut(bodyLines: number | undefined, parts: Buffer[]): Buffer[] {
  if (bodyLines === undefined) return parts
  const cutter = new TopCutter(bodyLines)
  return parts.flatMap((part) => cutter.push(part))
}

/**
 * Whether the header section is ASCII, as far as it lies in the prefix and the first chunk: of a
 * longer one (256 KiB) the rest is not looked at.
 */
function isHeaderAscii(parts: Buffer[]): boolean {
  return cut(0, parts).every((piece) => piece.every((octet) => octet < 0x80))
}

function push(stuffer: DotStuffer, cutter: TopCutter | undefined, chunk: Buffer): Buffer[] {
  if (cutter === undefined) return stuffer.push(chunk)
  return cutter.push(chunk).flatMap((piece) => stuffer.push(piece))
}
