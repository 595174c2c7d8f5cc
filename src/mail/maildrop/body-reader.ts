/**
 * Reads the octets of one large message, stretch by stretch, one query each: nothing (no
 * transaction, no pool connection) is held while the peer is slow. While it takes one stretch the
 * next one is on its way, if what the worker may read ahead has room for it.
 */
import { STRETCH_OCTETS, selectStretch, stretchOctets } from '../../storage/bodies.ts'
import type { StoredMessage } from '../../storage/messages.ts'
import type { Database } from '../../storage/postgres/database.ts'
import { RowMemory } from '../../storage/postgres/row-memory.ts'
import type { ReadAheadBudget } from './reader.ts'

interface Stretch {
  pieces: Buffer[]
  memory: RowMemory | undefined
}

export class BodyReader {
  readonly #db: Database
  readonly #budget: ReadAheadBudget
  readonly #domainId: number
  readonly #message: StoredMessage
  /** The stretch that `read` gives next. */
  #nth = 0
  #ahead: Promise<Stretch> | undefined
  /** Of the stretch that was read last. */
  #memory: RowMemory | undefined

  constructor(
    { db, budget }: { db: Database; budget: ReadAheadBudget },
    domainId: number,
    message: StoredMessage,
  ) {
    this.#db = db
    this.#budget = budget
    this.#domainId = domainId
    this.#message = message
  }

  /** Whether all was read. */
  get isDone(): boolean {
    return this.#nth * STRETCH_OCTETS >= this.#message.bodyOctets
  }

  /**
   * @returns the next stretch, in pieces that may be looked at until the one after it is read
   * @throws {Failure} MESSAGE_DAMAGED or a storage failure
   */
  async read(): Promise<readonly Buffer[]> {
    this.#leave()
    const ahead = this.#ahead
    const nth = this.#nth++
    this.#ahead = undefined
    try {
      const { pieces, memory } = await (ahead ?? this.#select(nth))
      this.#memory = memory
      return pieces
    } finally {
      if (ahead !== undefined) this.#budget.add(-this.#octetsOf(nth))
    }
  }

  /** Asks for the next stretch, which is counted until it is read. */
  readAhead(): void {
    const octets = this.#octetsOf(this.#nth)
    if (octets > this.#budget.available) return
    this.#budget.add(octets)
    this.#ahead = this.#select(this.#nth)
    this.#ahead.catch(() => undefined) // Told to who reads it; the peer may go away before.
  }

  /** What is on its way is given back when it arrives. */
  close(): void {
    this.#leave()
    if (this.#ahead === undefined) return
    this.read().then(
      () => this.#leave(),
      () => undefined, // Of an answer that failed nothing is used again.
    )
  }

  #leave(): void {
    this.#memory?.giveBack()
    this.#memory = undefined
  }

  async #select(nth: number): Promise<Stretch> {
    const memory = RowMemory.forAnswer(this.#octetsOf(nth))
    const pieces = await selectStretch(this.#db, this.#domainId, this.#message, nth, memory)
    return { pieces, memory }
  }

  #octetsOf(nth: number): number {
    return stretchOctets(this.#message.bodyOctets, nth)
  }
}
