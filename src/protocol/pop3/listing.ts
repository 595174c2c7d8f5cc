/**
 * The maildrop as this session sees it: frozen at login, numbers fixed until the end. Three ways
 * to name a message, never mixed: `number` 1..n is what the peer says, `index` = number - 1 is the
 * place in the arrays, `uid` is the database's.
 *
 * It begins with the counters alone, which is all that a poll (STAT, QUIT) needs; the arrays come
 * when a command asks for them. 8 octets a message and a bit for its mark, never objects: a
 * maildrop of 100,000 messages costs 0.8 MB. Sums are plain numbers, exact to 2^53.
 */
import { assert } from '../../base/assert.ts'
import type { ImportedIds } from './actions.ts'

/** Pieces of a long listing are about this long, so a slow reader holds one, not megabytes. */
const PIECE_OCTETS = 32_768
const NO_MESSAGES = new Int32Array(0)
export const NONE_IMPORTED: ImportedIds = { uids: NO_MESSAGES, uniqueIds: [] }

export interface MaildropCounters {
  messageCount: number
  octets: number
  /** The derived unique-id of a message is this followed by its uid. */
  uidPrefix: string
  /** Whether some messages have an imported unique-id instead. */
  hasUniqueIds: boolean
}

export class Listing {
  /** Whether some messages have an imported unique-id instead of the derived one. */
  readonly hasUniqueIds: boolean
  readonly #uidPrefix: string
  #uids: Int32Array | undefined
  #octets: Int32Array = NO_MESSAGES
  #marks = new Uint8Array(0)
  #total: number
  #totalOctets: number
  #deletedCount = 0
  #deletedOctets = 0

  constructor(counters: MaildropCounters) {
    this.#uidPrefix = counters.uidPrefix
    this.hasUniqueIds = counters.hasUniqueIds
    this.#total = counters.messageCount
    this.#totalOctets = counters.octets
    if (counters.messageCount === 0) this.load(NO_MESSAGES, NO_MESSAGES)
  }

  /** Messages not marked as deleted. */
  get messageCount(): number {
    return this.#total - this.#deletedCount
  }

  /** Octets of the messages not marked as deleted. */
  get octets(): number {
    return this.#totalOctets - this.#deletedOctets
  }

  /** The highest message number, deleted messages included. */
  get total(): number {
    return this.#total
  }

  get isLoaded(): boolean {
    return this.#uids !== undefined
  }

  /**
   * Index i of both arrays is message number i + 1. From here on the arrays are the truth: should
   * the counters have been wrong, sums that agree with the listing are what keeps a client sane.
   */
  load(uids: Int32Array, octets: Int32Array): void {
    assert(uids.length === octets.length, 'a listing has one size for each uid')
    assert(this.#deletedCount === 0, 'a listing is loaded before anything is marked')
    this.#uids = uids
    this.#octets = octets
    this.#marks = new Uint8Array((uids.length + 7) >> 3)
    this.#total = uids.length
    this.#totalOctets = 0
    for (let index = 0; index < octets.length; index += 1) {
      this.#totalOctets += octets[index] as number
    }
  }

  hasNumber(number: number): boolean {
    return number >= 1 && number <= this.#total
  }

  isDeleted(number: number): boolean {
    const index = number - 1
    return ((this.#marks[index >> 3] as number) & (1 << (index & 7))) !== 0
  }

  uidOf(number: number): number {
    return this.#loadedUids()[number - 1] as number
  }

  octetsOf(number: number): number {
    return this.#octets[number - 1] as number
  }

  /** @param imported unique-id of this message, if it has one */
  uniqueIdOf(number: number, imported: string | undefined): string {
    return imported ?? `${this.#uidPrefix}${this.uidOf(number)}`
  }

  markDeleted(number: number): void {
    assert(this.hasNumber(number) && !this.isDeleted(number), 'only a present message is marked')
    const index = number - 1
    this.#marks[index >> 3] = (this.#marks[index >> 3] as number) | (1 << (index & 7))
    this.#deletedCount += 1
    this.#deletedOctets += this.octetsOf(number)
  }

  unmarkAll(): void {
    if (this.#deletedCount === 0) return
    this.#marks.fill(0)
    this.#deletedCount = 0
    this.#deletedOctets = 0
  }

  /** @returns uids of the marked messages, ascending; none without a listing */
  deletedUids(): Int32Array {
    if (this.#deletedCount === 0) return NO_MESSAGES
    const deleted = new Int32Array(this.#deletedCount)
    let count = 0
    for (let number = 1; number <= this.#total; number += 1) {
      if (this.isDeleted(number)) deleted[count++] = this.uidOf(number)
    }
    return deleted
  }

  /** Scan listings, RFC 1939 §5, in pieces, the final dot in the last one. */
  serializeSizes(): Generator<string> {
    return this.#serialize(1, this.#total, (number) => `${number} ${this.octetsOf(number)}\r\n`)
  }

  /**
   * Unique-id listings, RFC 1939 §7, of the messages from `first` to `last`, in pieces; the final
   * dot follows the last message of all.
   */
  serializeUniqueIds(first: number, last: number, imported: ImportedIds): Generator<string> {
    const { uids, uniqueIds } = imported
    let at = 0
    return this.#serialize(first, last, (number) => {
      const uid = this.uidOf(number)
      while ((uids[at] ?? uid) < uid) at += 1
      const found = uids[at] === uid ? uniqueIds[at] : undefined
      return `${number} ${this.uniqueIdOf(number, found)}\r\n`
    })
  }

  *#serialize(first: number, last: number, row: (number: number) => string): Generator<string> {
    let piece = ''
    for (let number = first; number <= last; number += 1) {
      if (this.isDeleted(number)) continue
      piece += row(number)
      if (piece.length < PIECE_OCTETS) continue
      yield piece
      piece = ''
    }
    yield last === this.#total ? `${piece}.\r\n` : piece
  }

  #loadedUids(): Int32Array {
    assert(this.#uids !== undefined, 'the listing is loaded before a message is named')
    return this.#uids
  }
}
