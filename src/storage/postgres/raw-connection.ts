/**
 * Rows as bytes. pg's own parser decodes every field as UTF-8, in binary format too, which destroys
 * octets above 0x7F and costs a copy as text. This connection cuts the server's stream into
 * messages itself: a DataRow leaves as Buffers, all other messages go to pg's own parser untouched.
 * Statements of one turn of the event loop leave in one write, and none asks for a description of
 * its rows: who wrote the statement knows them.
 *
 * Pinned to pg 8: it relies on Connection's `attachListeners(stream)` (called with the TLS stream
 * after an upgrade), `describe` and `stream`, on Client's `connection` being replaceable before
 * connect, and on the calls that a Query gets. If a later pg breaks that, the fallback is a plain
 * Client whose bytea columns come as text (`\x…`): the same statements, three times slower; only
 * this file and decode.ts would change.
 */
import { EventEmitter } from 'node:events'
import { Client, type ClientConfig, Connection, Query } from 'pg'
import { assert } from '../../base/assert.ts'

/** The fields of one row as the server sent them in binary format; null is SQL's null. */
export type RawRow = readonly (Buffer | null)[]

interface DataRow {
  name: 'dataRow'
  length: number
  fields: RawRow
}

// PostgreSQL, Frontend/Backend Protocol, Message Formats: one octet of kind, then a length that
// counts itself but not the kind.
const HEADER_OCTETS = 5
const KIND_DATA_ROW = 0x44 // 'D'
// LIMIT: PostgreSQL cannot send a larger message (MaxAllocSize); a larger length is a broken
// stream.
const MESSAGE_MAX_OCTETS = 0x3fff_ffff

/**
 * A row of so many octets stays a view of what came from the socket, which is never written to
 * again: it keeps 64 KiB alive at most, and its neighbours are there. A smaller one is copied.
 */
const VIEW_MIN_OCTETS = 4_096

/**
 * Cuts a stream of backend messages at any cut of its pieces. Only a message that came in several
 * pieces is joined, once, however many they are.
 */
export class RowSplitter {
  readonly #onRow: (row: DataRow) => void
  readonly #onOther: (messages: Buffer) => void
  /** Of a message that is not whole yet. */
  #pieces: Buffer[] = []
  #octets = 0
  #wantedOctets = HEADER_OCTETS

  /** @param onOther gets whole messages that are no rows, one or several at once, in their order */
  constructor(onRow: (row: DataRow) => void, onOther: (messages: Buffer) => void) {
    this.#onRow = onRow
    this.#onOther = onOther
  }

  /**
   * @param piece is not written to any more
   * @throws if the octets cannot be PostgreSQL's protocol
   */
  write(piece: Buffer): void {
    let at = 0
    while (this.#octets > 0 && at < piece.length) at += this.#join(piece.subarray(at))
    at = this.#split(piece, at)
    while (at < piece.length) at += this.#join(piece.subarray(at))
  }

  /** @returns how many octets of `rest` belong to the message that began before it, or with it */
  #join(rest: Buffer): number {
    const taken = rest.subarray(0, this.#wantedOctets - this.#octets)
    this.#pieces.push(taken)
    this.#octets += taken.length
    if (this.#octets < this.#wantedOctets) return taken.length
    const joined = Buffer.concat(this.#pieces, this.#octets)
    const messageEnd = messageOctets(joined, 0)
    if (this.#wantedOctets < messageEnd) {
      this.#pieces = [joined]
      this.#wantedOctets = messageEnd
      return taken.length
    }
    this.#pieces = []
    this.#octets = 0
    this.#wantedOctets = HEADER_OCTETS
    this.#split(joined, 0)
    return taken.length
  }

  /** @returns where the first message begins that is not whole */
  #split(octets: Buffer, from: number): number {
    let othersFrom = from
    let at = from
    while (at + HEADER_OCTETS <= octets.length) {
      const end = at + messageOctets(octets, at)
      if (end > octets.length) break
      if (octets[at] === KIND_DATA_ROW) {
        if (at > othersFrom) this.#onOther(octets.subarray(othersFrom, at))
        othersFrom = end
        this.#onRow(parseDataRow(octets, at, end))
      }
      at = end
    }
    if (at > othersFrom) this.#onOther(octets.subarray(othersFrom, at))
    return at
  }
}

function messageOctets(octets: Buffer, at: number): number {
  const length = octets.readUInt32BE(at + 1)
  if (length < 4 || length > MESSAGE_MAX_OCTETS) throw new Error('not a PostgreSQL message')
  return length + 1
}

function parseDataRow(octets: Buffer, from: number, end: number): DataRow {
  const view = octets.subarray(from + HEADER_OCTETS, end)
  const row = view.length < VIEW_MIN_OCTETS ? Buffer.from(view) : view
  const fields: (Buffer | null)[] = new Array(row.readUInt16BE(0))
  let at = 2
  for (let index = 0; index < fields.length; index++) {
    const length = row.readInt32BE(at)
    at += 4
    if (length === -1) {
      fields[index] = null
      continue
    }
    if (length < 0 || at + length > row.length) throw new Error('a row is longer than its message')
    fields[index] = row.subarray(at, at + length)
    at += length
  }
  return { name: 'dataRow', length: end - from - 1, fields }
}

/** What pg 8 has and its type declarations do not name. */
interface ConnectionInternals {
  attachListeners(stream: EventEmitter): void
  describe(): void
  ssl: ClientConfig['ssl'] | false
  sslNegotiation: string
}

const { attachListeners } = Connection.prototype as unknown as ConnectionInternals

class RawConnection extends Connection {
  #isGathering = false

  /** What is written until the end of this turn of the event loop leaves together. */
  gather(): void {
    if (this.#isGathering) return
    this.#isGathering = true
    const { stream } = this
    stream.cork()
    setImmediate(() => {
      this.#isGathering = false
      stream.uncork()
    })
  }

  /** Called by pg for every statement: not asked. */
  override describe(): void {}

  /** Called by pg with the stream that carries the protocol: the socket, or TLS on top of it. */
  attachListeners(stream: EventEmitter & { destroy(error: Error): void }): void {
    const others = new EventEmitter()
    attachListeners.call(this as unknown as ConnectionInternals, others)
    const splitter = new RowSplitter(
      (row) => this.emit('dataRow', row),
      (messages) => others.emit('data', messages),
    )
    stream.on('data', (piece: Buffer) => {
      try {
        splitter.write(piece)
      } catch (error) {
        stream.destroy(error as Error)
      }
    })
  }
}

type Answer = (error: Error | null, rows: RawRow[]) => void

/** One execution of a prepared statement: what pg calls while its answer comes in. */
class RowQuery extends Query {
  declare callback: Answer
  readonly #rows: RawRow[] = []

  constructor(name: string, text: string, values: readonly unknown[], callback: Answer) {
    super(text)
    Object.assign(this, { name, values, callback })
  }

  handleDataRow({ fields }: DataRow): void {
    this.#rows.push(fields)
  }

  handleCommandComplete(): void {}

  handleReadyForQuery(): void {
    this.callback(null, this.#rows)
  }
}

/** A pg Client whose rows are arrays of Buffers; named statements only, all in binary format. */
export class RawClient extends Client {
  declare readonly connection: RawConnection

  constructor(config: ClientConfig) {
    // Read by pg for every query: its results are wanted in binary format.
    super({ ...config, binary: true } as ClientConfig)
    const made = this.connection as unknown as Connection & ConnectionInternals
    // The Client has read the URL, the environment and the TLS settings; its connection has made a
    // socket that is not connected yet. Ours takes both over.
    const own = new RawConnection({
      stream: made.stream,
      ssl: made.ssl,
      sslNegotiation: made.sslNegotiation,
      keepAlive: config.keepAlive,
      keepAliveInitialDelayMillis: config.keepAliveInitialDelayMillis,
    } as unknown as ClientConfig)
    assert('attachListeners' in made, 'pg.Connection has attachListeners: is this pg 8?')
    Object.defineProperty(this, 'connection', { value: own, writable: true, enumerable: true })
  }

  /** @param name of the prepared statement: always the same for the same text */
  selectRows(name: string, text: string, values: readonly unknown[]): Promise<RawRow[]> {
    this.connection.gather()
    return new Promise((resolve, reject) => {
      this.query(
        new RowQuery(name, text, values, (error, rows) => (error ? reject(error) : resolve(rows))),
      )
    })
  }
}
