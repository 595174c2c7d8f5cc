/**
 * Whether a message of an import is in already. Each one that came in has left a row: its digest,
 * and which copy of it this is. Messages with a unique-id of the old server are told apart by that,
 * so `copy` is made of it; of those without one the first in the source is copy 1, the second 2.
 * What was imported once under another unique-id is never brought in twice: it is told. One that
 * had none yet gets what the old server has given it since, if no client knows it by ours.
 */
import { CopyCounter, copyOf, isCounted, UNIQUE_ID } from '../../mail/delivery/imported-copies.ts'
import type { Database } from '../../storage/postgres/database.ts'
import {
  nameImported,
  selectImportedCopies,
  selectIsServed,
  selectUniqueIdUse,
} from '../../storage/tenants/maildrops/imported.ts'

export interface LedgerUser {
  domainId: number
  userId: number
}

export const ALREADY_IMPORTED = Symbol('already imported')

/** As it would be stored. */
export interface MeasuredMessage {
  digest: Buffer
  octets: number
}

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
  readonly #isDryRun: boolean
  /** Copies that are made of them. */
  readonly #namedCopies = new Set<number>()
  /** Of those: what came in without a unique-id, and got it now. */
  readonly #renamed = new Set<number>()
  /** Of those without a unique-id, or with another one than they came in with. */
  readonly #counted = new CopyCounter()

  /** @param user undefined: not there yet, so nothing is in */
  constructor(db: Database, user: LedgerUser | undefined, isDryRun: boolean) {
    this.#isDryRun = isDryRun
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
    message: MeasuredMessage,
    { uniqueId, isTaken = false }: TakenUniqueId,
  ): Promise<number | typeof ALREADY_IMPORTED | string> {
    const { digest } = message
    const copies = await this.#copiesOf(digest)
    const named = uniqueId === undefined ? undefined : copyOf(uniqueId)
    if (named !== undefined && copies.includes(named)) return ALREADY_IMPORTED
    // What another message of this source is, this one is not.
    const others = copies.filter((copy) => !this.#namedCopies.has(copy) || this.#renamed.has(copy))
    if (uniqueId === undefined || named === undefined) {
      const count = this.#counted.count(digest)
      return count <= others.length ? ALREADY_IMPORTED : freeFrom(count, copies)
    }
    if (others.length > 0 && this.#counted.count(digest) <= others.length) {
      const fromCopy = Math.max(0, ...others.filter(isCounted))
      if (fromCopy > 0 && !isTaken && (await this.#name(message, uniqueId, fromCopy)))
        return ALREADY_IMPORTED
      return 'is in already, with another unique-id: to change that, remove the user and begin anew'
    }
    return isTaken ? `the unique-id ${uniqueId} is that of another message` : named
  }

  /** @returns whether it has that unique-id now */
  async #name(message: MeasuredMessage, uniqueId: string, fromCopy: number): Promise<boolean> {
    if (this.#user === undefined) return false
    const { domainId, userId } = this.#user
    if (this.#isDryRun) return !(await selectIsServed(this.#db, domainId, userId))
    const copy = copyOf(uniqueId)
    const naming = { ...message, fromCopy, copy, uniqueId }
    const isNamed = await nameImported(this.#db, domainId, userId, naming)
    if (isNamed) this.#renamed.add(copy)
    return isNamed
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

/** The first number that no copy has. */
function freeFrom(count: number, copies: readonly number[]): number {
  return copies.includes(count) ? freeFrom(count + 1, copies) : count
}
