/**
 * Is this the user's password? Whatever the answer and whatever hash is stored, finding out takes
 * one turn in the queue and at least as long as one argon2 verification of today's parameters: a
 * dummy one runs beside any other hash. What takes longer than that cannot be hidden, until a right
 * password comes: then it is hashed anew on the spot.
 */
import { Failure } from '../../base/failure.ts'
import type { Log } from '../../base/log.ts'
import type { Secret } from '../../base/secret.ts'
import {
  type LoginAccount,
  selectLoginAccount,
  updatePasswordHash,
} from '../../storage/accounts.ts'
import type { Database } from '../../storage/database.ts'
import {
  computeArgon2,
  hashPassword,
  isCurrentArgon2,
  isUsableArgon2,
  makeDummyHash,
  verifyArgon2,
  verifyBesideDummy,
} from './argon2.ts'
import type { Asker } from './hash-queue.ts'
import { isUsableBcrypt, isWholeBcryptPassword, verifyBcrypt } from './legacy-hashes.ts'

export type PasswordReason =
  | 'verified'
  | 'no password'
  | 'unusable password hash'
  | 'wrong password'

export interface PasswordJudgement {
  reason: PasswordReason
  /** As it is stored now: with the fingerprint of the new hash if there is one. */
  account: LoginAccount
}

export class PasswordCheck {
  readonly #db: Database
  readonly #log: Log
  readonly #dummyHash = makeDummyHash()

  constructor(db: Database, log: Log) {
    this.#db = db
    this.#log = log
  }

  /** The cost of a verification, for a user who is not there. @throws {Failure} AUTH_OVERLOADED */
  async spendOne(password: Secret, asker: Asker): Promise<void> {
    await verifyArgon2(this.#dummyHash, password, asker)
  }

  /** @throws {Failure} AUTH_OVERLOADED, or a storage failure */
  async judge(account: LoginAccount, password: Secret, asker: Asker): Promise<PasswordJudgement> {
    const stored = account.passwordHash
    const reason = await this.#verify(stored, password, asker)
    if (reason !== 'verified' || stored === undefined || isCurrentArgon2(stored))
      return { reason, account }
    return this.#rehash(account, stored, password, asker)
  }

  async #verify(
    stored: string | undefined,
    password: Secret,
    asker: Asker,
  ): Promise<PasswordReason> {
    const isRight = await this.#compare(stored, password, asker)
    if (isRight !== undefined) return isRight ? 'verified' : 'wrong password'
    await this.spendOne(password, asker)
    return stored === undefined ? 'no password' : 'unusable password hash'
  }

  /** @returns undefined, at no cost, if there is nothing to compare with */
  #compare(
    stored: string | undefined,
    password: Secret,
    asker: Asker,
  ): Promise<boolean> | undefined {
    if (stored === undefined) return undefined
    if (isCurrentArgon2(stored)) return verifyArgon2(stored, password, asker)
    const beside = (work: () => Promise<boolean>): Promise<boolean> =>
      verifyBesideDummy(work, this.#dummyHash, password, asker)
    if (isUsableArgon2(stored)) return beside(() => computeArgon2(stored, password))
    if (isUsableBcrypt(stored)) return beside(() => verifyBcrypt(stored, password))
    return undefined
  }

  /** The password is right already: no trouble here may refuse the login. */
  async #rehash(
    account: LoginAccount,
    stored: string,
    password: Secret,
    asker: Asker,
  ): Promise<PasswordJudgement> {
    // Only 72 octets are proven: hashing the rest could lock in somebody's slip of the finger.
    if (stored.startsWith('$2') && !isWholeBcryptPassword(password))
      return { reason: 'verified', account }
    const { domainId, userId, domainName, localPart } = account
    try {
      const passwordHash = await hashPassword(password, asker)
      const fingerprint = await updatePasswordHash(this.#db, domainId, userId, stored, passwordHash)
      if (fingerprint !== undefined)
        return { reason: 'verified', account: { ...account, passwordHash, fingerprint } }
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#log.warn({ domain: domainName, error }, 'a password could not be hashed anew')
      return { reason: 'verified', account }
    }
    // Somebody was faster: another login of this user, or a change of the password.
    const current = await selectLoginAccount(this.#db, domainName, localPart)
    if (current?.passwordHash === undefined || current.userId !== userId)
      return { reason: 'wrong password', account }
    const reason = await this.#verify(current.passwordHash, password, asker)
    return { reason, account: current }
  }
}
