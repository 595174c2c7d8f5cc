/**
 * One message on its way in, from whatever brings it (LMTP, import): line ends are made CRLF,
 * octets are counted against a limit, and what exceeds one stretch is written to the database while
 * the rest still arrives, one body for each domain among the recipients. `write` resolves when
 * storage took the octets: that is the back-pressure. A message of up to one stretch is kept in
 * memory and written by the delivering statement. Nothing is visible before that statement; an
 * aborted message leaves at most bodies that no row names, which the sweep removes.
 */
import { assert } from '../../base/assert.ts'
import { Failure } from '../../base/failure.ts'
import {
  discardBody,
  insertBody,
  insertStretch,
  newBodyId,
  STRETCH_OCTETS,
} from '../../storage/bodies.ts'
import type { Database } from '../../storage/postgres/database.ts'
import { LineEnds } from './line-ends.ts'

/** Most messages fit; larger ones double it up to a stretch. */
const FIRST_BUFFER_OCTETS = 16_384

/** A message that came in whole. */
export interface IngestedMessage {
  octets: number
  /** All of it, if it fits one stretch; undefined: the bodies are in the database. */
  content: Buffer | undefined
  /** The body's id in each domain. */
  bodyIds: ReadonlyMap<number, string>
}

export interface IngestOptions {
  domainIds: Iterable<number>
  /** The largest message taken, counted with CRLF line ends. */
  maxOctets: number
}

export class Ingest {
  readonly #db: Database
  readonly #maxOctets: number
  readonly #bodyIds: Map<number, string>
  readonly #lineEnds = new LineEnds()
  #buffer = Buffer.allocUnsafe(FIRST_BUFFER_OCTETS)
  #used = 0
  #octets = 0
  #stretchCount = 0
  #isOpen = true

  constructor(db: Database, options: IngestOptions) {
    this.#db = db
    this.#maxOctets = options.maxOctets
    this.#bodyIds = new Map([...new Set(options.domainIds)].map((id) => [id, newBodyId()]))
  }

  /**
   * Takes the next octets; to be awaited before the next call.
   * @throws {Failure} MESSAGE_TOO_LARGE, or what storage throws; then abort()
   */
  async write(chunk: Buffer): Promise<void> {
    assert(this.#isOpen, 'a message takes octets until it is finished or aborted')
    await this.#append(this.#lineEnds.push(chunk))
  }

  /** @throws {Failure} as write() */
  async finish(): Promise<IngestedMessage> {
    await this.write(this.#lineEnds.end())
    this.#isOpen = false
    if (this.#stretchCount > 0) await this.#flush()
    const content = this.#stretchCount > 0 ? undefined : this.#buffer.subarray(0, this.#used)
    return { octets: this.#octets, content, bodyIds: this.#bodyIds }
  }

  /** Drops the message. What was written stays unnamed, for the sweep. */
  abort(): void {
    this.#isOpen = false
    this.#buffer = Buffer.alloc(0)
  }

  /** As abort(), and takes what was written away again, if nobody names it. Never throws. */
  async discard(): Promise<void> {
    this.abort()
    if (this.#stretchCount === 0) return
    for (const [domainId, bodyId] of this.#bodyIds)
      await discardBody(this.#db, domainId, bodyId).catch(() => {}) // the sweep does it
  }

  async #append(octets: Buffer): Promise<void> {
    this.#octets += octets.length
    if (this.#octets > this.#maxOctets) throw new Failure('MESSAGE_TOO_LARGE')
    for (let from = 0; from < octets.length; ) {
      if (this.#used === STRETCH_OCTETS) await this.#flush()
      const count = Math.min(octets.length - from, STRETCH_OCTETS - this.#used)
      this.#reserve(this.#used + count)
      octets.copy(this.#buffer, this.#used, from, from + count)
      this.#used += count
      from += count
    }
  }

  #reserve(capacity: number): void {
    if (capacity <= this.#buffer.length) return
    let length = this.#buffer.length
    while (length < capacity) length *= 2
    const larger = Buffer.allocUnsafe(Math.min(length, STRETCH_OCTETS))
    this.#buffer.copy(larger, 0, 0, this.#used)
    this.#buffer = larger
  }

  /** Into each domain's body, one after the other: memory stays that of one stretch. */
  async #flush(): Promise<void> {
    const stretch = this.#buffer.subarray(0, this.#used)
    for (const [domainId, bodyId] of this.#bodyIds) {
      if (this.#stretchCount === 0) await insertBody(this.#db, domainId, bodyId)
      await insertStretch(this.#db, domainId, bodyId, this.#stretchCount, stretch)
    }
    this.#stretchCount++
    this.#used = 0
  }
}
