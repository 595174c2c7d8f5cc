/**
 * Whether a message of an import is in already. Each one that came in has left a row: its digest,
 * and which copy of it this is. Messages with a unique-id of the old server are told apart by that,
 * so `copy` is made of it; of those without one the first in the source is copy 1, the second 2.
 * What was imported once under another unique-id (or none) is never brought in twice: it is told.
 */
import { CopyCounter, copyOf, UNIQUE_ID } from '../../mail/delivery/imported-copies.ts'
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
  /** Of those without a unique-id, or with another one than they came in with. */
  readonly #counted = new CopyCounter()

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
    const count = this.#counted.count(digest)
    return copies.length >= count ? ALREADY_IMPORTED : count
  }

  #placeNamed(digest: Buffer, uniqueId: string, isTaken: boolean, copies: readonly number[]) {
    const copy = copyOf(uniqueId)
    if (copies.includes(copy)) return ALREADY_IMPORTED
    const others = copies.filter((other) => !this.#namedCopies.has(other))
    if (others.length > 0 && this.#counted.count(digest) <= others.length)
      return 'is in already, with another unique-id: to change that, remove the user and begin anew'
    return isTaken ? `the unique-id ${uniqueId} is that of another message` : copy
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
