/**
 * Writes replies to a socket. They are gathered in one place, so that a hundred pipelined commands
 * cost one write, and a message as the reply of RETR or TOP is there what it is on the wire: a
 * header line, its octets dot-stuffed, and the terminator. Large messages go out stretch by
 * stretch, the next one being read while this one is on its way, waiting for the peer in between.
 */
import type { Socket } from 'node:net'
import { Failure } from '../base/failure.ts'
import { METRICS } from '../base/metrics.ts'
import type { BodyReader } from '../mail/maildrop/body-reader.ts'
import type { Maildrop } from '../mail/maildrop/maildrop.ts'
import type { Pop3Outcome } from '../protocol/pop3/actions.ts'
import { DotStuffer, stuffedMax } from '../protocol/wire/dot-stuffing.ts'
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
/** The same for a peer that is slow, where the place would be gone for sure. */
const COPY_FOR_SLOW_MAX_OCTETS = 65_536
/** Of a piece, so much is gathered at once: it fits even if every line is stuffed. */
const PART_MAX_OCTETS = 65_536

/** The last one belongs to a socket that has not taken all of it. */
const NO_PLACE = Buffer.alloc(0)
/** Where the replies of one pump are gathered, from its begin to its end: nothing waits between. */
let gathered = NO_PLACE
let gatheredOctets = 0

const octetsSent = METRICS.pop3OctetsSent.of()
const messagesRetrieved = METRICS.pop3Retrieved.of()

export class ReplyWriter {
  /** Totals of this connection, for the log: messages, and octets of all replies. */
  messageCount = 0
  octets = 0
  /** What was written last was a message from its first octet to its last. */
  wasWhole = false
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
    for (const piece of pieces) {
      for (const part of partsOf(piece)) {
        this.#makeRoom(part.length)
        gatheredOctets += part.copy(gathered, gatheredOctets)
      }
    }
  }

  /** Writes what was gathered. To be called before anything else is done to the socket. */
  flush(): void {
    if (gatheredOctets === 0) return
    const octets = gathered.subarray(0, gatheredOctets)
    gatheredOctets = 0
    if (this.#socket.destroyed) return
    this.octets += octets.length
    octetsSent.add(octets.length)
    const isCopied = octets.length <= (this.#isFast ? COPY_MAX_OCTETS : COPY_FOR_SLOW_MAX_OCTETS)
    this.#socket.write(isCopied ? Buffer.from(octets) : octets)
    this.#isFast = this.#socket.writableLength === 0
    if (!isCopied && !this.#isFast) gathered = NO_PLACE
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
    this.wasWhole = false
    checkOctets(message, retrieval)
    const { prefix, content } = message
    if (content === undefined) return undefined
    const parts = [prefix, ...content]
    if (retrieval.isAsciiOnly && !isHeaderAscii(parts)) return NEEDS_UTF8
    const way = wayOf(retrieval)
    this.gather([retrieval.header])
    for (const part of parts) this.#gatherOnWay(part, way)
    this.gather([way.stuffer.finish()])
    this.#countMessage(way)
    return RETRIEVED
  }

  /**
   * @throws {Failure} before anything was written if the first octets cannot be had; after it (see
   *   isInMessage) on any fault
   */
  async write(maildrop: Maildrop, message: StoredMessage, retrieval: Retrieval): Promise<Written> {
    try {
      const written = this.gatherMessage(message, retrieval)
      if (written !== undefined) return written
    } finally {
      this.flush()
    }
    const body = maildrop.openBody(message)
    try {
      return await this.#stream(message.prefix, body, retrieval)
    } finally {
      gatheredOctets = 0 // Of a message that broke off, nothing may reach who comes next.
      body.close()
    }
  }

  async #stream(prefix: Buffer, body: BodyReader, retrieval: Retrieval): Promise<Written> {
    let parts: readonly Buffer[] = [prefix, ...(await body.read())]
    if (retrieval.isAsciiOnly && !isHeaderAscii(parts)) return NEEDS_UTF8
    const way = wayOf(retrieval)
    this.isInMessage = true
    this.gather([retrieval.header])
    for (;;) {
      for (const part of parts) this.#gatherOnWay(part, way)
      const isLast = body.isDone || way.cutter?.isDone === true
      if (isLast) this.gather([way.stuffer.finish()])
      this.flush()
      if (!isLast) body.readAhead()
      await this.#untilTaken()
      if (isLast) break
      parts = await body.read()
    }
    this.isInMessage = false
    this.#countMessage(way)
    return RETRIEVED
  }

  #countMessage({ cutter }: Way): void {
    this.wasWhole = cutter?.isDone !== true
    this.messageCount++
    messagesRetrieved.add()
  }

  #gatherOnWay(octets: Buffer, { cutter, stuffer }: Way): void {
    for (const piece of cutter?.push(octets) ?? [octets]) {
      for (const part of partsOf(piece)) {
        this.#makeRoom(stuffedMax(part.length))
        gatheredOctets = stuffer.stuff(part, gathered, gatheredOctets)
      }
    }
  }

  #makeRoom(octets: number): void {
    if (gatheredOctets + octets > GATHERED_MAX_OCTETS) this.flush()
    if (gathered === NO_PLACE) gathered = Buffer.allocUnsafeSlow(GATHERED_MAX_OCTETS)
  }

  async #untilTaken(): Promise<void> {
    while (this.#socket.writableNeedDrain && !this.#socket.destroyed)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    this.#wake = undefined
    if (this.#socket.destroyed) throw new Failure('LEASE_LOST', 'the peer has gone away')
  }
}

/** What the octets of a message pass on their way out. */
interface Way {
  cutter: TopCutter | undefined
  stuffer: DotStuffer
}

function wayOf({ bodyLines }: Retrieval): Way {
  const cutter = bodyLines === undefined ? undefined : new TopCutter(bodyLines)
  return { cutter, stuffer: new DotStuffer() }
}

function* longPartsOf(piece: Buffer): Generator<Buffer> {
  for (let from = 0; from < piece.length; from += PART_MAX_OCTETS)
    yield piece.subarray(from, from + PART_MAX_OCTETS)
}

const partsOf = (piece: Buffer): Iterable<Buffer> =>
  piece.length <= PART_MAX_OCTETS ? [piece] : longPartsOf(piece)

/** LIST, RETR's header line and what is sent must agree to the octet. */
function checkOctets({ prefix, bodyOctets, bodyId }: StoredMessage, { octets }: Retrieval): void {
  if (prefix.length + bodyOctets === octets) return
  throw new Failure('MESSAGE_DAMAGED', `body ${bodyId}: wrong length`)
}

/**
 * Whether the header section is ASCII, as far as it lies in the prefix and the first stretch: of a
 * longer one (256 KiB) the rest is not looked at.
 */
function isHeaderAscii(parts: readonly Buffer[]): boolean {
  const cutter = new TopCutter(0)
  return parts
    .flatMap((part) => cutter.push(part))
    .every((piece) => piece.every((octet) => octet < 0x80))
}
