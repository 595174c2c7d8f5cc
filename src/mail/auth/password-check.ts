/**
 * Is this the user's password? Whatever the answer and whatever hash is stored, finding out costs
 * at least one argon2 verification of today's parameters: a refusal by any other hash spends a
 * dummy one beside its own. A right password whose hash is not of today's form is hashed anew on
 * the spot.
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
  hashPassword,
  inHashQueue,
  isCurrentArgon2,
  isUsableArgon2,
  makeDummyHash,
  verifyArgon2,
} from './argon2.ts'
import { isUsableBcrypt, isWholeBcryptPassword, verifyBcrypt } from './legacy-hashes.ts'

export type PasswordReason = 'ok' | 'no password' | 'unusable password hash' | 'wrong password'

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
  async spendOne(password: Secret, share: string): Promise<void> {
    await verifyArgon2(this.#dummyHash, password, share)
  }

  /**
   * @param share whose turn in the queue, see hash-queue.ts
   * @throws {Failure} AUTH_OVERLOADED, or a storage failure
   */
  async judge(account: LoginAccount, password: Secret, share: string): Promise<PasswordJudgement> {
    const reason = await this.#verify(account.passwordHash, password, share)
    const stored = account.passwordHash
    if (stored !== undefined && isCurrentArgon2(stored) && reason !== 'unusable password hash')
      return { reason, account }
    if (reason !== 'ok' || stored === undefined) {
      await this.spendOne(password, share)
      return { reason, account }
    }
    return this.#rehash(account, stored, password, share)
  }

  async #verify(
    stored: string | undefined,
    password: Secret,
    share: string,
  ): Promise<PasswordReason> {
    if (stored === undefined) return 'no password'
    let isRight: boolean
    if (isUsableArgon2(stored)) isRight = await verifyArgon2(stored, password, share)
    else if (isUsableBcrypt(stored))
      isRight = await inHashQueue(share, () => verifyBcrypt(stored, password))
    else return 'unusable password hash'
    return isRight ? 'ok' : 'wrong password'
  }

  /** The password is right already: no trouble here may refuse the login. */
  async #rehash(
    account: LoginAccount,
    stored: string,
    password: Secret,
    share: string,
  ): Promise<PasswordJudgement> {
    // Only 72 octets are proven: hashing the rest could lock in somebody's slip of the finger.
    if (stored.startsWith('$2') && !isWholeBcryptPassword(password))
      return { reason: 'ok', account }
    const { domainId, userId, domainName, localPart } = account
    try {
      const passwordHash = await hashPassword(password, share)
      const fingerprint = await updatePasswordHash(this.#db, domainId, userId, stored, passwordHash)
      if (fingerprint !== undefined)
        return { reason: 'ok', account: { ...account, passwordHash, fingerprint } }
    } catch (error) {
      if (!(error instanceof Failure)) throw error
      this.#log.warn({ domain: domainName, error }, 'a password could not be hashed anew')
      return { reason: 'ok', account }
    }
    // Somebody was faster: another login of this user, or a change of the password.
    const current = await selectLoginAccount(this.#db, domainName, localPart)
    if (current?.passwordHash === undefined || current.userId !== userId)
      return { reason: 'wrong password', account }
    const reason = await this.#verify(current.passwordHash, password, share)
    return { reason, account: current }
  }
}
