/**
 * Is this the user's password? Whatever the answer and whatever hash is stored, finding out takes
 * one turn in the queue and at least as long as one argon2 verification of today's parameters: a
 * dummy one runs beside any other hash. What takes longer than that is hidden by the delay of every
 * refusal, and when a right password comes it is hashed anew on the spot. Only a password that was
 * verified lately costs nothing (verified-cache.ts), nor does an app password.
 */
import { Failure } from '../../base/failure.ts'
import type { Log } from '../../base/log.ts'
import type { Secret } from '../../base/secret.ts'
import { passwordForms } from '../../protocol/sasl/text.ts'
import {
  type AppPassword,
  type LoginAccount,
  selectLoginAccount,
  updatePasswordHash,
} from '../../storage/accounts.ts'
import { entitlementOf, isSame } from '../../storage/leases.ts'
import type { Database } from '../../storage/postgres/database.ts'
import { hashPassword, isCurrentArgon2, makeDummyHash, verifyArgon2 } from './argon2.ts'
import type { Asker } from './hash-queue.ts'
import type { LoginName } from './login-name.ts'
import { findAppPassword } from './proofs/app-password.ts'
import { isWholePassword, verifyStored } from './schemes/scheme.ts'
import { isVerifiedAgainst, type Recollection, VerifiedCache } from './verified-cache.ts'

export type PasswordReason =
  | 'verified'
  | 'no password'
  | 'unusable password hash'
  | 'wrong password'
  | 'main password not allowed'

/** What is told only of a password that is right. */
const RIGHT: ReadonlySet<PasswordReason> = new Set(['verified', 'main password not allowed'])

export interface PasswordJudgement {
  reason: PasswordReason
  /** As it is stored now: with the fingerprint of the new hash if there is one. */
  account: LoginAccount
  /** The app password that it is. */
  credential?: AppPassword | undefined
  /** It was verified before, and by nothing dear now. */
  isRecalled?: boolean
}

export class PasswordCheck {
  readonly #db: Database
  readonly #log: Log
  readonly #verified = new VerifiedCache()
  readonly #dummyHash = makeDummyHash()

  constructor(db: Database, log: Log) {
    this.#db = db
    this.#log = log
  }

  /** Whether this password was right lately, before anything is known of the account. */
  recall({ address }: LoginName, sent: Secret): Recollection {
    return this.#verified.recall(address.toLowerCase(), sent)
  }

  /** The cost of `judge`, for a user who is not there. @throws {Failure} AUTH_OVERLOADED */
  async spend(sent: Secret, asker: Asker): Promise<void> {
    for (const password of passwordForms(sent)) await this.#spendOne(password, asker)
  }

  /**
   * Of an app password, and of one that was verified lately. undefined: `judge` it.
   * @param recollection of the name by which `account` was found, and of what was sent
   */
  judgeAtOnce(
    account: LoginAccount,
    sent: Secret,
    recollection: Recollection,
  ): PasswordJudgement | undefined {
    const credential = findAppPassword(account.appPasswords, sent)
    const { passwordHash, isMainPasswordAllowed } = account
    const isRecalled =
      credential === undefined &&
      passwordHash !== undefined &&
      isMainPasswordAllowed &&
      isVerifiedAgainst(recollection, passwordHash)
    if (credential === undefined && !isRecalled) return undefined
    return this.#remember(recollection, { reason: 'verified', account, credential, isRecalled })
  }

  /**
   * @param recollection as for `judgeAtOnce`, which does not know
   * @throws {Failure} AUTH_OVERLOADED, or a storage failure
   */
  async judge(
    account: LoginAccount,
    sent: Secret,
    recollection: Recollection,
    asker: Asker,
  ): Promise<PasswordJudgement> {
    let judgement: PasswordJudgement = { reason: 'wrong password', account }
    for (const password of passwordForms(sent)) {
      judgement = await this.#judgeForm(account, password, asker)
      if (RIGHT.has(judgement.reason)) break
    }
    return this.#remember(recollection, judgement)
  }

  #remember(recollection: Recollection, judgement: PasswordJudgement): PasswordJudgement {
    const { reason, account, credential } = judgement
    if (reason !== 'verified') return judgement
    const entitlement = entitlementOf(account, credential?.credentialId)
    const known = recollection.verified?.entitlement
    if (known === undefined || !isSame(known, entitlement))
      this.#verified.add(recollection, entitlement, credential ? undefined : account.passwordHash)
    return judgement
  }

  async #judgeForm(
    account: LoginAccount,
    password: Secret,
    asker: Asker,
  ): Promise<PasswordJudgement> {
    const stored = account.passwordHash
    const reason = await this.#verify(stored, password, asker)
    if (reason !== 'verified' || stored === undefined) return { reason, account }
    if (!account.isMainPasswordAllowed) return { reason: 'main password not allowed', account }
    if (isCurrentArgon2(stored)) return { reason, account }
    return this.#rehash(account, stored, password, asker)
  }

  async #spendOne(password: Secret, asker: Asker): Promise<void> {
    await verifyArgon2(this.#dummyHash, password, asker)
  }

  async #verify(
    stored: string | undefined,
    password: Secret,
    asker: Asker,
  ): Promise<PasswordReason> {
    const isRight =
      stored === undefined
        ? undefined
        : await verifyStored(stored, password, this.#dummyHash, asker)
    if (isRight !== undefined) return isRight ? 'verified' : 'wrong password'
    await this.#spendOne(password, asker)
    return stored === undefined ? 'no password' : 'unusable password hash'
  }

  /** The password is right already: no trouble here may refuse the login. */
  async #rehash(
    account: LoginAccount,
    stored: string,
    password: Secret,
    asker: Asker,
  ): Promise<PasswordJudgement> {
    // Of bcrypt only 72 octets are proven: hashing the rest could lock in a slip of the finger.
    if (!isWholePassword(stored, password)) return { reason: 'verified', account }
    const { domainId, userId, domainName, localPart } = account
    try {
      const passwordHash = await hashPassword(password, asker)
      const fingerprint = await updatePasswordHash(this.#db, domainId, userId, stored, passwordHash)
      if (fingerprint !== undefined)
        return { reason: 'verified', account: renewed(account, { passwordHash, fingerprint }) }
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
    const isAllowed = current.isMainPasswordAllowed || reason !== 'verified'
    return {
      reason: isAllowed ? reason : 'main password not allowed',
      account: renewed(account, current),
    }
  }
}

/** What was read of the account before stays, but for what goes with the hash. */
function renewed(
  account: LoginAccount,
  { passwordHash, fingerprint }: Pick<LoginAccount, 'passwordHash' | 'fingerprint'>,
): LoginAccount {
  return { ...account, passwordHash, fingerprint, scramKeys: undefined }
}
