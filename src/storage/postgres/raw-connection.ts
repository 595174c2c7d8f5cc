/**
 * Rows as bytes. pg's own parser decodes every field as UTF-8, in binary format too, which destroys
 * octets above 0x7F and costs a copy as text. This connection cuts the server's stream into
 * messages itself: a DataRow leaves as Buffers, all other messages go to pg's own parser untouched.
 * What all its sockets read arrives in one buffer (over TLS, in what node:tls gives), and rows are
 * copied out of it once. Statements of one turn of the event loop leave in one write, and none asks
 * for a description of its rows: who wrote the statement knows them.
 *
 * Pinned to pg 8: it relies on Connection's `attachListeners(stream)` (called with the TLS stream
 * after an upgrade), `describe` and `stream`, on Client's `connection` being replaceable before
 * connect, and on the calls that a Query gets. If a later pg breaks that, the fallback is a plain
 * Client whose bytea columns come as text (`\x…`): the same statements, three times slower; only
 * this file and decode.ts would change.
 */
import { EventEmitter } from 'node:events'
import { Socket, type SocketConstructorOpts } from 'node:net'
import { type ClientConfig, Connection, Query } from 'pg'
import { assert } from '../../base/assert.ts'
import { PLAN_EACH_TIME } from './connection-settings.ts'
import { HostedClient, type HostedConfig } from './hosted-client.ts'
import { WHY_NOT_WRITABLE } from './hosts.ts'
import type { RowMemory } from './row-memory.ts'

/** The fields of one row as the server sent them in binary format; null is SQL's null. */
export type RawRow = readonly (Buffer | null)[]

// PostgreSQL, Frontend/Backend Protocol, Message Formats: one octet of kind, then a length that
// counts itself but not the kind.
const HEADER_OCTETS = 5
const KIND_DATA_ROW = 0x44 // 'D'
// LIMIT: PostgreSQL cannot send a larger message (MaxAllocSize); a larger length is a broken
// stream.
const MESSAGE_MAX_OCTETS = 0x3fff_ffff

/** LIMIT: one read from a socket. */
const READ_OCTETS = 65_536
/**
 * Where the reads from all sockets of this process arrive: what one brought has been cut up when
 * the next begins. Memory made for each read lies outside of V8's heap, and V8 collects all garbage
 * whenever 64 MiB of that have gathered.
 */
const readBuffer = Buffer.allocUnsafeSlow(READ_OCTETS)

/**
 * Cuts a stream of backend messages at any cut of its pieces. Rows that follow each other are
 * copied together, once, to where they stay: they keep each other in memory, at most a read.
 */
export class RowSplitter {
  /** Where rows that come from now on are put; undefined: each in memory of its own. */
  memory: RowMemory | undefined
  readonly #onRows: (rows: RawRow[]) => void
  readonly #onOther: (messages: Buffer) => void
  /** Of a message that is not whole yet: its header as far as it has come, then all of it. */
  readonly #header = Buffer.alloc(HEADER_OCTETS)
  #headerOctets = 0
  #message: Buffer | undefined
  #messageOctets = 0

  /**
   * @param onRows gets rows that followed each other, and may keep them
   * @param onOther gets whole messages that are no rows, one or several at once, in their order,
   *   and may keep them: pg does, of the salt of an MD5 login
   */
  constructor(onRows: (rows: RawRow[]) => void, onOther: (messages: Buffer) => void) {
    this.#onRows = onRows
    this.#onOther = onOther
  }

  /**
   * @param piece may be overwritten afterwards
   * @throws if the octets cannot be PostgreSQL's protocol
   */
  write(piece: Buffer): void {
    let at = 0
    while (at < piece.length) {
      if (this.#headerOctets === 0 && this.#message === undefined) at = this.#split(piece, at)
      if (at < piece.length) at = this.#collect(piece, at)
    }
  }

  /** @returns where the first message begins that is not whole */
  #split(piece: Buffer, from: number): number {
    let at = from
    for (;;) {
      const end = endOfAlike(piece, at)
      if (end === at) return at
      if (piece[at] !== KIND_DATA_ROW) this.#onOther(Buffer.from(piece.subarray(at, end)))
      else {
        const rows = this.#allocate(end - at)
        piece.copy(rows, 0, at, end)
        this.#onRows(parseRows(rows))
      }
      at = end
    }
  }

  /** @returns where the message that is not whole ends, or the piece does */
  #collect(piece: Buffer, from: number): number {
    let at = from
    if (this.#message === undefined) {
      const taken = piece.copy(this.#header, this.#headerOctets, at)
      this.#headerOctets += taken
      at += taken
      if (this.#headerOctets < HEADER_OCTETS) return at
      this.#message = this.#allocate(messageOctets(this.#header, 0))
      this.#messageOctets = this.#header.copy(this.#message)
      this.#headerOctets = 0
    }
    const message = this.#message
    const taken = piece.copy(message, this.#messageOctets, at)
    this.#messageOctets += taken
    if (this.#messageOctets === message.length) {
      this.#message = undefined
      if (message[0] === KIND_DATA_ROW) this.#onRows(parseRows(message))
      else this.#onOther(message)
    }
    return at + taken
  }

  #allocate(octets: number): Buffer {
    return this.memory?.allocate(octets) ?? Buffer.allocUnsafe(octets)
  }
}

/** @returns where the whole messages end that are all rows, or all none, from `from` on */
function endOfAlike(octets: Buffer, from: number): number {
  const areRows = octets[from] === KIND_DATA_ROW
  let end = from
  while (end + HEADER_OCTETS <= octets.length && (octets[end] === KIND_DATA_ROW) === areRows) {
    const next = end + messageOctets(octets, end)
    if (next > octets.length) break
    end = next
  }
  return end
}

function messageOctets(octets: Buffer, at: number): number {
  const length = octets.readUInt32BE(at + 1)
  if (length < 4 || length > MESSAGE_MAX_OCTETS) throw new Error('not a PostgreSQL message')
  return length + 1
}

/** @param messages whole ones, all rows, which the rows are views of */
function parseRows(messages: Buffer): RawRow[] {
  const rows: RawRow[] = []
  for (let at = 0; at < messages.length; ) {
    const end = at + messageOctets(messages, at)
    rows.push(parseRow(messages, at + HEADER_OCTETS, end))
    at = end
  }
  return rows
}

function parseRow(octets: Buffer, from: number, end: number): RawRow {
  const fields: (Buffer | null)[] = new Array(octets.readUInt16BE(from))
  let at = from + 2
  for (let index = 0; index < fields.length; index++) {
    const length = octets.readInt32BE(at)
    at += 4
    if (length === -1) {
      fields[index] = null
      continue
    }
    if (length < 0 || at + length > end) throw new Error('a row is longer than its message')
    fields[index] = octets.subarray(at, at + length)
    at += length
  }
  return fields
}

/** What pg 8 has and its type declarations do not name. */
interface ConnectionInternals {
  attachListeners(stream: EventEmitter): void
  describe(): void
  ssl: ClientConfig['ssl'] | false
  sslNegotiation: string
}

const { attachListeners } = Connection.prototype as unknown as ConnectionInternals

/** A socket without 'data': what it reads is in memory that the next read overwrites. */
class ReusingSocket extends Socket {
  onOctets: (octets: Buffer) => void = () => {}

  constructor() {
    const callback = (length: number): boolean => {
      this.onOctets(readBuffer.subarray(0, length))
      return true
    }
    // Documented for net.createConnection; the constructor is where it is read.
    super({ onread: { buffer: readBuffer, callback } } as SocketConstructorOpts)
  }
}

class RawConnection extends Connection {
  /** Names of statements that the server refused to prepare: see RowQuery. */
  readonly refused = new Set<string>()
  declare readonly parsedStatements: Record<string, string | undefined>
  declare close: (statement: { type: 'S'; name: string }) => void
  #isGathering = false
  #splitter: RowSplitter | undefined

  /** For rows of the statement that runs: not for a pipeline, on which several do. */
  set memory(memory: RowMemory | undefined) {
    if (this.#splitter !== undefined) this.#splitter.memory = memory
  }

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
  attachListeners(stream: Socket): void {
    const others = new EventEmitter()
    attachListeners.call(this as unknown as ConnectionInternals, others)
    const splitter = new RowSplitter(
      (rows) => this.emit('dataRow', rows),
      (messages) => others.emit('data', messages),
    )
    this.#splitter = splitter
    const read = (piece: Buffer): void => {
      try {
        splitter.write(piece)
      } catch (error) {
        stream.destroy(error as Error)
      }
    }
    if (stream instanceof ReusingSocket) stream.onOctets = read
    else stream.on('data', read)
  }
}

type Answer = (error: Error | null, rows: RawRow[]) => void

/** What a Query has and its type declarations do not name. */
interface QueryInternals {
  prepare(connection: RawConnection): void
  handleError(error: Error, connection: RawConnection): void
}

const { prepare, handleError } = Query.prototype as unknown as QueryInternals

/** One execution of a prepared statement: what pg calls while its answer comes in. */
class RowQuery extends Query {
  declare callback: Answer
  declare readonly name: string
  #rows: RawRow[] = []

  constructor(name: string, text: string, values: readonly unknown[], callback: Answer) {
    super(text)
    Object.assign(this, { name, values, callback })
  }

  /**
   * A name that was refused is free for PostgreSQL, but not for PgBouncer, which remembers what it
   * has passed on and ends who prepares it again: it is told to forget.
   */
  prepare(connection: RawConnection): void {
    if (connection.refused.size > 0 && connection.refused.delete(this.name))
      connection.close({ type: 'S', name: this.name })
    prepare.call(this as unknown as QueryInternals, connection)
  }

  handleError(error: Error, connection: RawConnection): void {
    if (connection.parsedStatements[this.name] === undefined) connection.refused.add(this.name)
    handleError.call(this as unknown as QueryInternals, error, connection)
  }

  /** @param rows several at once: what our connection emits */
  handleDataRow(rows: RawRow[]): void {
    if (this.#rows.length === 0) this.#rows = rows
    else for (const row of rows) this.#rows.push(row)
  }

  handleCommandComplete(): void {}

  handleReadyForQuery(): void {
    this.callback(null, this.#rows)
  }
}

/** A pg Client whose rows are arrays of Buffers; named statements only, all in binary format. */
export class RawClient extends HostedClient {
  declare readonly connection: RawConnection

  constructor(config: HostedConfig) {
    // Read by pg for every query: its results are wanted in binary format.
    super({ ...config, binary: true } as HostedConfig)
    const made = this.connection as unknown as Connection & ConnectionInternals
    // The Client has read the URL, the environment and the TLS settings; its connection has made a
    // socket that is not connected yet. TLS reads from that one itself.
    const own = new RawConnection({
      stream: made.ssl ? made.stream : new ReusingSocket(),
      ssl: made.ssl,
      sslNegotiation: made.sslNegotiation,
      keepAlive: config.keepAlive,
      keepAliveInitialDelayMillis: config.keepAliveInitialDelayMillis,
    } as unknown as ClientConfig)
    assert('attachListeners' in made, 'pg.Connection has attachListeners: is this pg 8?')
    Object.defineProperty(this, 'connection', { value: own, writable: true, enumerable: true })
  }

  /** Not waited for: it goes before whatever is asked, and fails only if that does. */
  protected override adjust(): void {
    this.selectRows(PLAN_EACH_TIME.name, PLAN_EACH_TIME.text, []).catch(() => {})
  }

  async askWhyNotWritable(): Promise<string | null> {
    const [row] = await this.selectRows('why-not-writable', WHY_NOT_WRITABLE, [])
    return row?.[0]?.toString('utf8') ?? null
  }

  /**
   * @param name of the prepared statement: always the same for the same text
   * @param memory where the rows are put; not on a pipelined connection
   */
  selectRows(
    name: string,
    text: string,
    values: readonly unknown[],
    memory?: RowMemory,
  ): Promise<RawRow[]> {
    this.connection.gather()
    this.connection.memory = memory
    return new Promise((resolve, reject) => {
      this.query(
        new RowQuery(name, text, values, (error, rows) => {
          this.connection.memory = undefined
          if (error) reject(error)
          else resolve(rows)
        }),
      )
    })
  }
}
