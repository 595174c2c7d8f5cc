/**
 * Writes replies to a socket. Short ones and small messages are gathered, so that a hundred
 * pipelined commands cost one write; large messages go out chunk by chunk, the next chunks being
 * read while this one is on its way, waiting for the peer in between. A message as the reply of
 * RETR or TOP is a header line, its octets dot-stuffed, and the terminator.
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

/** LIMIT: what is gathered before it must leave, for the process; as much as a socket buffers. */
const GATHERED_MAX_OCTETS = 131_072
/** Fewer octets are copied for the socket: the copy costs less than a place to gather anew. */
const COPY_MAX_OCTETS = 2_048

/** Where the replies of one pump are gathered, from its begin to its end: nothing waits between. */
let gathered = Buffer.allocUnsafeSlow(GATHERED_MAX_OCTETS)
let gatheredOctets = 0

export class ReplyWriter {
  /** Totals of this connection, for the log. */
  messageCount = 0
  octets = 0
  /** True between the header line and the terminator: a fault now must destroy the connection. */
  isInMessage = false
  readonly #socket: Socket
  /** Whether the kernel takes over at once what is written, so that its place is free again. */
  #isFast = true
  #wake: (() => void) | undefined

  constructor(socket: Socket) {
    this.#socket = socket
  }

  /** Keeps a reply until `flush`, which comes in the same turn. */
  gather(pieces: readonly Buffer[]): void {
    let octets = 0
    for (const piece of pieces) octets += piece.length
    if (gatheredOctets + octets > GATHERED_MAX_OCTETS) this.flush()
    if (octets > GATHERED_MAX_OCTETS) {
      this.#write(pieces)
      return
    }
    for (const piece of pieces) {
      gathered.set(piece, gatheredOctets)
      gatheredOctets += piece.length
    }
  }

  /** Writes what was gathered. To be called before anything else is done to the socket. */
  flush(): void {
    if (gatheredOctets === 0) return
    const octets = gathered.subarray(0, gatheredOctets)
    gatheredOctets = 0
    if (this.#socket.destroyed) return
    const isCopied = !this.#isFast || octets.length <= COPY_MAX_OCTETS
    this.#socket.write(isCopied ? Buffer.from(octets) : octets)
    this.#isFast = this.#socket.writableLength === 0
    if (!isCopied && !this.#isFast) gathered = Buffer.allocUnsafeSlow(GATHERED_MAX_OCTETS)
  }

  /** The peer has taken what it was owed, or is gone: whoever waits for that looks again. */
  wake(): void {
    this.#wake?.()
  }

  /**
   * Until `flush`, see `gather`.
   * @returns undefined, with nothing gathered, if the message is not whole in memory
   * @throws {Failure} MESSAGE_DAMAGED, nothing gathered
   */
  gatherMessage(message: StoredMessage, retrieval: Retrieval): Written | undefined {
    checkOctets(message, retrieval)
    const { prefix, firstChunk: body } = message
    if (body === undefined) return undefined
    if (retrieval.isAsciiOnly && !isHeaderAscii([prefix, body])) return NEEDS_UTF8
    const pieces = [retrieval.header]
    const stuffer = new DotStuffer()
    for (const part of cut(retrieval.bodyLines, [prefix, body])) pieces.push(...stuffer.push(part))
    pieces.push(stuffer.finish())
    this.gather(pieces)
    for (const piece of pieces) this.octets += piece.length
    this.messageCount++
    return RETRIEVED
  }

  /**
   * @throws {Failure} before anything was written if the first octets cannot be had; after it (see
   *   isInMessage) on any fault
   */
  async write(maildrop: Maildrop, message: StoredMessage, retrieval: Retrieval): Promise<Written> {
    const written = this.gatherMessage(message, retrieval)
    if (written !== undefined) {
      this.flush()
      return written
    }
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

  async #send(pieces: readonly Buffer[]): Promise<void> {
    this.#write(pieces)
    for (const piece of pieces) this.octets += piece.length
    while (this.#socket.writableNeedDrain && !this.#socket.destroyed)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    this.#wake = undefined
    if (this.#socket.destroyed) throw new Failure('LEASE_LOST', 'the peer has gone away')
  }

  #write(pieces: readonly Buffer[]): void {
    this.#socket.cork()
    for (const piece of pieces) this.#socket.write(piece)
    this.#socket.uncork()
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
