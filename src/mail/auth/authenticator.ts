/**
 * The one door: every proof of identity, by whatever mechanism, is judged here. In goes what the
 * peer typed, out comes an account or a refusal that says no more than the peer may know: unknown
 * domain, unknown user, no password and wrong password are one refusal at one cost (one statement,
 * one argon2 verification; APOP: one statement, one decryption, one digest). Suspension is told
 * only to who has the right proof. The log tells them all apart; it never holds a password, nor a
 * name that cannot be an address (people type passwords into the wrong field).
 */
import { randomBytes, timingSafeEqual } from 'node:crypto'
import { assert } from '../../base/assert.ts'
import type { Log } from '../../base/log.ts'
import { Secret } from '../../base/secret.ts'
import type { LoginAttempt } from '../../protocol/pop3/actions.ts'
import { type LoginAccount, selectLoginAccount } from '../../storage/accounts.ts'
import type { Database } from '../../storage/database.ts'
import { selectDomain } from '../../storage/tenants/domains.ts'
import { apopDigest, decryptApopSecret, encryptApopSecret, isApopSecretOf } from './apop-secret.ts'
import type { Asker } from './hash-queue.ts'
import { type LoginName, parseLoginName } from './login-name.ts'
import { PasswordCheck } from './password-check.ts'
import { sourceOf } from './source.ts'

export interface AuthenticatorOptions {
  db: Database
  log: Log
  /** Lower case; empty: a bare user name is unknown. */
  defaultDomain: string
  /** 32 octets; undefined: nobody can use APOP. */
  secretKey: Secret | undefined
}

export type LoginVerdict =
  | { kind: 'accepted'; account: LoginAccount }
  | { kind: 'refused'; reason: 'bad-credentials' | 'suspended' }

/** What the log says. Only `verified` and `suspended` mean that the proof was right. */
type LoginReason =
  | 'verified'
  | 'suspended'
  | 'implausible name'
  | 'unknown domain'
  | 'unknown user'
  | 'no password'
  | 'unusable password hash'
  | 'wrong password'
  | 'no secret key'
  | 'no APOP secret'
  | 'APOP secret of another key'
  | 'damaged APOP secret'
  | 'wrong APOP digest'

/** These are for the operator to mend, not for the user. */
const OPERATOR_REASONS: ReadonlySet<LoginReason> = new Set([
  'unusable password hash',
  'no secret key',
  'APOP secret of another key',
  'damaged APOP secret',
])

/** Who asks, as the log shows it. */
interface Peer {
  client: string
  mechanism: LoginAttempt['mechanism']
}

interface Judgement {
  reason: LoginReason
  account: LoginAccount | undefined
}

type PasswordAttempt = Extract<LoginAttempt, { mechanism: 'password' }>
type ApopAttempt = Extract<LoginAttempt, { mechanism: 'apop' }>

/** Nobody's ids: identity columns begin at 1. */
const NOBODY = { domainId: 0, userId: 0 } as const

const REFUSED: LoginVerdict = { kind: 'refused', reason: 'bad-credentials' }

export class Authenticator {
  readonly #options: AuthenticatorOptions
  readonly #passwords: PasswordCheck
  /** The secret key, or one that nothing is encrypted under. */
  readonly #key: Secret
  /** Stands in for the secret of a user who is unknown or has none. */
  readonly #dummySecret: Buffer

  constructor(options: AuthenticatorOptions) {
    this.#options = options
    this.#passwords = new PasswordCheck(options.db, options.log)
    this.#key = options.secretKey ?? new Secret(randomBytes(32))
    const { domainId, userId } = NOBODY
    const secret = new Secret(randomBytes(16))
    this.#dummySecret = encryptApopSecret(this.#key, domainId, userId, secret)
  }

  /**
   * @param client address of the peer, for its turn in the queue and for the log
   * @param signal aborted when the peer has gone: a password that waits is not verified any more
   * @throws {Failure} temporary: AUTH_OVERLOADED, or a storage failure
   */
  async verify(attempt: LoginAttempt, client: string, signal?: AbortSignal): Promise<LoginVerdict> {
    const name = parseLoginName(attempt.name, this.#options.defaultDomain)
    const judgement =
      attempt.mechanism === 'password'
        ? await this.#judgePassword(attempt, name, { source: sourceOf(client), signal })
        : await this.#judgeApop(attempt, name)
    const { mechanism } = attempt
    if (judgement.reason === 'unknown user' && name !== undefined)
      void this.#recordUnknown({ client, mechanism }, name)
    else this.#record({ client, mechanism }, name, judgement)
    return verdictOf(judgement)
  }

  async #judgePassword(
    attempt: PasswordAttempt,
    name: LoginName | undefined,
    peer: Omit<Asker, 'domain'>,
  ): Promise<Judgement> {
    const account = await this.#select(name)
    const asker = { ...peer, domain: name?.domainName ?? '' }
    if (name === undefined || account === undefined) {
      await this.#passwords.spendOne(attempt.password, asker)
      return { reason: unknownReason(name), account: undefined }
    }
    return this.#passwords.judge(account, attempt.password, asker)
  }

  async #judgeApop(attempt: ApopAttempt, name: LoginName | undefined): Promise<Judgement> {
    const account = await this.#select(name)
    const secret = account && this.#decrypt(account)
    const digest = apopDigest(attempt.timestamp, secret ?? this.#decryptDummy())
    const isEqual = isSameText(digest, attempt.digest)
    if (account === undefined) return { reason: unknownReason(name), account }
    if (this.#options.secretKey === undefined) return { reason: 'no secret key', account }
    if (account.apopSecret === undefined) return { reason: 'no APOP secret', account }
    if (secret === undefined) {
      const isOurs = isApopSecretOf(this.#options.secretKey, account.apopSecret)
      return { reason: isOurs ? 'damaged APOP secret' : 'APOP secret of another key', account }
    }
    return { reason: isEqual ? 'verified' : 'wrong APOP digest', account }
  }

  #decrypt({ domainId, userId, apopSecret }: LoginAccount): Secret | undefined {
    return apopSecret && decryptApopSecret(this.#key, domainId, userId, apopSecret)
  }

  #decryptDummy(): Secret {
    const { domainId, userId } = NOBODY
    const secret = decryptApopSecret(this.#key, domainId, userId, this.#dummySecret)
    assert(secret !== undefined, 'what was encrypted here decrypts here')
    return secret
  }

  /** What cannot be an address is nobody's, and costs no statement: that tells nothing new. */
  #select(name: LoginName | undefined): Promise<LoginAccount | undefined> {
    if (name === undefined) return Promise.resolve(undefined)
    return selectLoginAccount(this.#options.db, name.domainName, name.localPart)
  }

  /** Beside the reply, not before it: who asks must not see the time of one more statement. */
  async #recordUnknown(peer: Peer, name: LoginName): Promise<void> {
    const { db, log } = this.#options
    try {
      const domain = await selectDomain(db, name.domainName)
      const reason = domain === undefined ? 'unknown domain' : 'unknown user'
      this.#record(peer, name, { reason, account: undefined })
    } catch (error) {
      this.#record(peer, name, { reason: 'unknown user', account: undefined })
      log.warn({ error }, 'could not look whether the domain is known')
    }
  }

  #record(peer: Peer, name: LoginName | undefined, { reason, account }: Judgement): void {
    const { log } = this.#options
    const isSuspended = reason === 'verified' && account?.isSuspended === true
    const shown = isSuspended ? 'suspended' : reason
    const fields = { ...peer, domain: name?.domainName, user: name?.address, reason: shown }
    if (OPERATOR_REASONS.has(shown)) log.warn(fields, 'login refused')
    // Not yet a login: another session may have the maildrop.
    else log.info(fields, shown === 'verified' ? 'credential verified' : 'login refused')
  }
}

function unknownReason(name: LoginName | undefined): LoginReason {
  return name === undefined ? 'implausible name' : 'unknown user'
}

function verdictOf({ reason, account }: Judgement): LoginVerdict {
  if (reason !== 'verified' || account === undefined) return REFUSED
  if (account.isSuspended) return { kind: 'refused', reason: 'suspended' }
  return { kind: 'accepted', account }
}

/** Compares in a time that depends only on the length of what the peer sent. */
function isSameText(expected: string, given: string): boolean {
  const [a, b] = [Buffer.from(expected), Buffer.from(given)]
  return a.length === b.length && timingSafeEqual(a, b)
}
