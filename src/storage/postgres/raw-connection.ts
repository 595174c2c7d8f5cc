/**
 * Rows as bytes. pg's own parser decodes every field as UTF-8, in binary format too, which destroys
 * octets above 0x7F and costs a copy as text. This connection cuts the server's stream into
 * messages itself: a DataRow leaves as Buffers, all other messages go to pg's own parser untouched.
 *
 * Pinned to pg 8: it relies on Connection's `attachListeners(stream)` (called with the TLS stream
 * after an upgrade) and on Client's `connection` being replaceable before connect. If a later pg
 * breaks that, the fallback is a plain Client whose bytea columns come as text (`\x…`): the same
 * statements, three times slower; only this file and decode.ts would change.
 */
import { EventEmitter } from 'node:events'
import { Client, type ClientConfig, Connection } from 'pg'
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
 * Cuts a stream of backend messages at any cut of its pieces. Every octet is joined at most twice,
 * however many pieces a message comes in.
 */
export class RowSplitter {
  readonly #onRow: (row: DataRow) => void
  readonly #onOther: (messages: Buffer) => void
  #pieces: Buffer[] = []
  #octets = 0
  #wantedOctets = HEADER_OCTETS

  /** @param onOther gets whole messages that are no rows, one or several at once, in their order */
  constructor(onRow: (row: DataRow) => void, onOther: (messages: Buffer) => void) {
    this.#onRow = onRow
    this.#onOther = onOther
  }

  /** @throws if the octets cannot be PostgreSQL's protocol */
  write(piece: Buffer): void {
    this.#pieces.push(piece)
    this.#octets += piece.length
    if (this.#octets < this.#wantedOctets) return
    const joined = this.#pieces.length === 1 ? piece : Buffer.concat(this.#pieces)
    const rest = joined.subarray(this.#split(joined))
    this.#pieces = rest.length === 0 ? [] : [rest]
    this.#octets = rest.length
    this.#wantedOctets = rest.length < HEADER_OCTETS ? HEADER_OCTETS : messageOctets(rest, 0)
  }

  /** @returns how many octets of whole messages were handed on */
  #split(octets: Buffer): number {
    let othersFrom = 0
    let at = 0
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

/** Copies the row once: its fields must not keep the socket's buffers alive, nor be overwritten. */
function parseDataRow(octets: Buffer, from: number, end: number): DataRow {
  const row = Buffer.from(octets.subarray(from + HEADER_OCTETS, end))
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
  ssl: ClientConfig['ssl'] | false
  sslNegotiation: string
}

const { attachListeners } = Connection.prototype as unknown as ConnectionInternals

class RawConnection extends Connection {
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

const identity = <T>(value: T): T => value

/** A pg Client whose rows are arrays of Buffers; named statements only, all in binary format. */
export class RawClient extends Client {
  constructor(config: ClientConfig) {
    // Both are read by pg for every query: results in binary, no decoding.
    const raw = { binary: true, types: { getTypeParser: () => identity } }
    super({ ...config, ...raw } as ClientConfig)
    const made = this.connection as Connection & ConnectionInternals
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
  async selectRows(name: string, text: string, values: readonly unknown[]): Promise<RawRow[]> {
    const result = await this.query<(Buffer | null)[]>({
      name,
      text,
      values: [...values],
      rowMode: 'array',
    })
    return result.rows
  }
}
