/**
 * Whether a message of an import is in already. Each one that came in has left a row: its digest,
 * and which copy of it this is. Messages with a unique-id of the old server are told apart by that,
 * so `copy` is made of it; of those without one the first in the source is copy 1, the second 2.
 * What was imported once under another unique-id (or none) is never brought in twice: it is told.
 */
import { createHash } from 'node:crypto'
import type { Database } from '../../storage/postgres/database.ts'
import {
  selectImportedCopies,
  selectUniqueIdUse,
} from '../../storage/tenants/maildrops/imported.ts'

export interface LedgerUser {
  domainId: number
  userId: number
}

export const ALREADY_IMPORTED = Symbol('already imported')

/** RFC 1939 §7, without "/": migrations say so too. */
const UNIQUE_ID = /^[!-.0-~]{1,70}$/
/** Copies from here on are made of unique-ids, those below are counted. */
const NAMED_FROM = 2 ** 30

/** What may be kept of an old unique-id, or why it cannot. */
export interface TakenUniqueId {
  uniqueId: string | undefined
  /** Some message in the maildrop or its trash has it: this one, or another. */
  isTaken?: boolean
  problem?: string
}

export class ImportLedger {
  readonly #db: Database
  readonly #user: LedgerUser | undefined
  readonly #uniqueIds = new Set<string>()
  /** Copies that are made of them. */
  readonly #namedCopies = new Set<number>()
  /** How often a digest came up without a unique-id, or with another one than it came in with. */
  readonly #counts = new Map<string, number>()

  /** @param user undefined: not there yet, so nothing is in */
  constructor(db: Database, user: LedgerUser | undefined) {
    this.#db = db
    this.#user = user
  }

  /** @param isEnough whether a message with this unique-id is the same, unread */
  async takeUniqueId(
    uniqueId: string | undefined,
    isEnough: boolean,
  ): Promise<TakenUniqueId | typeof ALREADY_IMPORTED> {
    if (uniqueId === undefined) return { uniqueId }
    const problem = this.#problemOf(uniqueId)
    if (problem !== undefined) return { uniqueId: undefined, problem }
    this.#uniqueIds.add(uniqueId)
    this.#namedCopies.add(copyOf(uniqueId))
    const use = await this.#useOf(uniqueId)
    if (use === 'ours')
      return {
        uniqueId: undefined,
        problem: `the unique-id ${uniqueId} may meet one that this server makes itself`,
      }
    const isTaken = use === 'taken'
    return isTaken && isEnough ? ALREADY_IMPORTED : { uniqueId, isTaken }
  }

  #problemOf(uniqueId: string): string | undefined {
    if (this.#uniqueIds.has(uniqueId))
      return `the unique-id ${uniqueId} is that of an earlier message`
    if (UNIQUE_ID.test(uniqueId)) return undefined
    const shown = JSON.stringify(uniqueId.slice(0, 100))
    if (uniqueId.length > 70)
      return `the unique-id ${shown} has ${uniqueId.length} characters, more than 70 (RFC 1939 §7)`
    return uniqueId === ''
      ? 'the unique-id is empty'
      : `the unique-id ${shown} has a character other than 0x21 to 0x7E, or a "/"`
  }

  /** @returns which copy to write; a reason if it was imported in another way */
  async place(
    digest: Buffer,
    { uniqueId, isTaken = false }: TakenUniqueId,
  ): Promise<number | typeof ALREADY_IMPORTED | string> {
    const copies = await this.#copiesOf(digest)
    if (uniqueId !== undefined) return this.#placeNamed(digest, uniqueId, isTaken, copies)
    const count = this.#count(digest)
    return copies.length >= count ? ALREADY_IMPORTED : count
  }

  #placeNamed(digest: Buffer, uniqueId: string, isTaken: boolean, copies: readonly number[]) {
    const copy = copyOf(uniqueId)
    if (copies.includes(copy)) return ALREADY_IMPORTED
    const others = copies.filter((other) => !this.#namedCopies.has(other))
    if (others.length > 0 && this.#count(digest) <= others.length)
      return 'is in already, with another unique-id: to change that, remove the user and begin anew'
    return isTaken ? `the unique-id ${uniqueId} is that of another message` : copy
  }

  /** How many there were so far, this one included. */
  #count(digest: Buffer): number {
    const key = digest.toString('base64')
    const count = (this.#counts.get(key) ?? 0) + 1
    this.#counts.set(key, count)
    return count
  }

  async #useOf(uniqueId: string) {
    if (this.#user === undefined) return 'free'
    return selectUniqueIdUse(this.#db, this.#user.domainId, this.#user.userId, uniqueId)
  }

  async #copiesOf(digest: Buffer): Promise<number[]> {
    if (this.#user === undefined) return []
    return selectImportedCopies(this.#db, this.#user.domainId, this.#user.userId, digest)
  }
}

function copyOf(uniqueId: string): number {
  const digest = createHash('sha256').update(uniqueId).digest()
  return NAMED_FROM + (digest.readUInt32BE(0) % NAMED_FROM)
}
