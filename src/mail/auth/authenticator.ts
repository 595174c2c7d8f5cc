/**
 * The one door: every proof of identity, by whatever mechanism, is judged here. In goes what the
 * peer offered, out comes an account or a refusal that says no more than the peer may know: unknown
 * domain, unknown user, no password and wrong password are one refusal at one cost (one look-up,
 * one argon2 verification; APOP and SCRAM: one decryption and one digest), told no sooner than a
 * second after the attempt began. Suspension is told only to who has the right proof. The log tells
 * them all apart; it never holds a password, nor a name that cannot be an address (people type
 * passwords into the wrong field).
 */
import { setTimeout as pause } from 'node:timers/promises'
import { assert } from '../../base/assert.ts'
import { Failure } from '../../base/failure.ts'
import type { Keyring } from '../../base/keyring.ts'
import type { Log } from '../../base/log.ts'
import type { Secret } from '../../base/secret.ts'
import type { LoginAttempt } from '../../protocol/pop3/actions.ts'
import type { ScramSalt } from '../../protocol/sasl/mechanism.ts'
import {
  type LoginAccount,
  type LoginLookup,
  type LoginQuestion,
  lookUpLogin,
} from '../../storage/accounts.ts'
import { type Entitlement, entitlementOf, isSame } from '../../storage/leases.ts'
import type { Database } from '../../storage/postgres/database.ts'
import { recordCredentialUse } from '../../storage/tenants/credentials.ts'
import { selectDomain } from '../../storage/tenants/domains.ts'
import type { FirstLogins } from '../moving/first-logins.ts'
import type { BearerCheck } from './bearer/bearer-check.ts'
import { type LoginName, parseLoginName } from './login-name.ts'
import { addressOf, type LoginPeer, type Presence } from './login-peer.ts'
import { PasswordCheck } from './password-check.ts'
import { ApopJudge } from './proofs/apop.ts'
import { type CertificateVerdict, findCertificateOwner } from './proofs/external.ts'
import { type Judgement, type LoginReason, unknownUser } from './proofs/judgement.ts'
import { ScramJudge } from './proofs/scram.ts'
import { sourceOf } from './source.ts'
import {
  type Claimant,
  type Throttle,
  type ThrottleKeys,
  type ThrottleVerdict,
  throttleKeys,
} from './throttle.ts'
import type { Recollection } from './verified-cache.ts'

export interface AuthenticatorOptions {
  db: Database
  log: Log
  /** Lower case; empty: a bare user name is unknown. */
  defaultDomain: string
  /** Undefined: nobody can use APOP or SCRAM. */
  keyring: Keyring | undefined
  /** Undefined: failures cost nothing. */
  throttle?: Throttle
  /** Undefined: no token is taken. */
  bearer?: BearerCheck
  /** Undefined: no domain migrates. */
  moving?: FirstLogins
  /** How long after an attempt began its refusal is told, in milliseconds. */
  failureDelayMs?: number
}

export type LoginVerdict =
  | {
      kind: 'accepted'
      account: LoginAccount
      /** The app password or certificate that opened it; undefined: the user's own credentials. */
      credentialId: string | undefined
      /** SCRAM only, RFC 5802 §3. */
      serverSignature: Buffer | undefined
    }
  | { kind: 'refused'; reason: RefusedReason }

type Refused = Extract<LoginVerdict, { kind: 'refused' }>

type RefusedReason =
  | 'bad-credentials'
  | 'needs-password'
  | 'suspended'
  | 'throttled'
  | 'in-use'
  | 'being-moved'
  | 'temporary'

/**
 * Where accounts are looked up. Who has just typed a password that was verified lately is expected
 * to be let in: for them the maildrop may be opened in the same round trip.
 */
export interface LoginDesk {
  /** @param expected undefined: nothing is opened */
  lookUp(question: LoginQuestion, expected: Entitlement | undefined): Promise<LoginLookup>
  /** Who was expected is not let in, or not at once: what was opened is given back. */
  giveBack(): Promise<void>
}

/**
 * Longer than the dearest old hash that is taken takes, on most machines: so that one cannot be
 * told from an unknown user by its time.
 */
const FAILURE_DELAY_MS = 1_000

/** Of FAILURE_DELAY_MS: Dovecot's refusals come after two seconds, and more after several. */
const MIGRATING_SLOWNESS = 4

/** These are for the operator to mend, not for the user. */
const OPERATOR_REASONS: ReadonlySet<LoginReason> = new Set([
  'unusable password hash',
  'no secret key',
  'APOP secret of another key',
  'damaged APOP secret',
])

type BearerAttempt = Extract<LoginAttempt, { mechanism: 'bearer' }>

/** One attempt, with all that is known of it before the proof is looked at. */
interface Visit {
  attempt: LoginAttempt
  peer: LoginPeer
  presence: Presence | undefined
  /** EXTERNAL only. */
  certificate: CertificateVerdict | undefined
  /** Undefined: what was typed cannot be an address, or a token or certificate says who. */
  name: LoginName | undefined
  /** Of a password and a name that can be an address. */
  recollection: Recollection | undefined
  account: LoginAccount | undefined
}

export class Authenticator {
  readonly #options: AuthenticatorOptions
  /** Opens nothing. */
  readonly #ownDesk: LoginDesk
  readonly #passwords: PasswordCheck
  readonly #apop: ApopJudge
  readonly #scram: ScramJudge

  constructor(options: AuthenticatorOptions) {
    this.#options = options
    this.#ownDesk = {
      lookUp: (question) => lookUpLogin(options.db, question),
      giveBack: async () => {},
    }
    this.#passwords = new PasswordCheck(options.db, options.log)
    this.#apop = new ApopJudge(options.keyring)
    this.#scram = new ScramJudge(options)
  }

  /**
   * @param presence of the peer: when it has gone, nothing more is spent on it
   * @param desk what it opened for who is refused, or has to wait, has been given back when that
   *   is known
   * @throws {Failure} temporary: AUTH_OVERLOADED, a storage failure, or a token's provider is away
   */
  async verify(
    attempt: LoginAttempt,
    peer: LoginPeer,
    presence?: Presence,
    desk = this.#ownDesk,
  ): Promise<LoginVerdict> {
    const began = performance.now()
    const certificate =
      attempt.mechanism === 'external' ? await this.#findCertificate(attempt, peer) : undefined
    const name = certificate?.name ?? this.#parse(attempt.name, peer)
    const recollection =
      name && attempt.mechanism === 'password'
        ? this.#passwords.recall(name, attempt.password)
        : undefined
    const expected = recollection?.verified?.entitlement
    const keys = throttleKeys(peer.client, name)
    const { account, throttles } = await this.#lookUp(name, peer, keys, desk, expected)
    const who: Claimant = { client: peer.client, name, keys, account }
    const leave = this.#options.throttle?.judge(who, throttles) ?? GO_AT_ONCE
    if (expected !== undefined && !isAsExpected(expected, account, leave)) await desk.giveBack()
    const over = this.#options.throttle?.enter(who)
    try {
      const visit: Visit = { attempt, peer, presence, certificate, name, recollection, account }
      return await this.#decide(visit, who, leave, began, desk)
    } finally {
      over?.()
    }
  }

  async #decide(
    visit: Visit,
    who: Claimant,
    leave: ThrottleVerdict,
    began: number,
    desk: LoginDesk,
  ): Promise<LoginVerdict> {
    const { throttle, failureDelayMs = FAILURE_DELAY_MS } = this.#options
    const { attempt, peer, presence, account } = visit
    const delayMs = leave.kind === 'go' ? leave.delayMs : 0
    if (delayMs > 0) await waitUntil(began + delayMs, presence)
    if (presence?.isGone) throw new Failure('AUTH_OVERLOADED', 'the peer has left')
    const judgement: Judgement =
      leave.kind === 'refuse' ? { reason: 'throttled', account } : await this.#judge(visit)
    this.#record(visit, judgement)
    const verdict = verdictOf(judgement)
    if (verdict.kind === 'accepted') {
      this.#follow(visit, verdict.account, judgement)
      return verdict
    }
    await desk.giveBack()
    if (!isUnproven(judgement.reason, verdict)) return verdict
    if (leave.kind === 'go') await throttle?.recordFailure(who, proofOf(attempt, peer))
    await waitUntil(began + delayMs + failureDelayMs * this.#slowness(visit), presence)
    return this.#advise(visit, verdict)
  }

  /** An old server takes its time to refuse: that must not tell who has moved and who has not. */
  #slowness({ name }: Visit): number {
    return this.#options.moving?.isMigrating(name) ? MIGRATING_SLOWNESS : 1
  }

  /** Whoever it is: who has not moved yet cannot log in without the password itself. */
  #advise({ attempt, name }: Visit, verdict: Refused): Refused {
    const isSecretLess = attempt.mechanism === 'apop' || attempt.mechanism === 'scram'
    const isAdvised = isSecretLess && verdict.reason === 'bad-credentials'
    if (!isAdvised || !this.#options.moving?.isMigrating(name)) return verdict
    return { kind: 'refused', reason: 'needs-password' }
  }

  /**
   * What SCRAM begins with: for a user who is unknown or has no keys, a salt that stays the same.
   * @param name as typed
   * @throws {Failure} a storage failure
   */
  async scramSalt(name: string, peer: LoginPeer): Promise<ScramSalt> {
    const parsed = this.#parse(name, peer)
    const keys = throttleKeys(peer.client, parsed)
    const { account } = await this.#lookUp(parsed, peer, keys, this.#ownDesk)
    return await this.#scram.salt(name, parsed, account)
  }

  #parse(typed: string, peer: LoginPeer): LoginName | undefined {
    return parseLoginName(typed, peer.hostDomain ?? this.#options.defaultDomain)
  }

  /** What cannot be an address is nobody's: that tells nothing new. */
  async #lookUp(
    name: LoginName | undefined,
    { client }: LoginPeer,
    keys: ThrottleKeys,
    desk: LoginDesk,
    expected?: Entitlement,
  ): Promise<Pick<LoginLookup, 'account' | 'throttles'>> {
    const { throttle } = this.#options
    if (name === undefined)
      return {
        account: undefined,
        throttles: (await throttle?.read(keys)) ?? new Map(),
      }
    const question = {
      domainName: name.domainName,
      localPart: name.localPart,
      client: addressOf(client),
      network: sourceOf(client),
      throttleKeys: Object.values(keys),
    }
    return desk.lookUp(question, expected)
  }

  #findCertificate({ name }: LoginAttempt, peer: LoginPeer): Promise<CertificateVerdict> {
    return findCertificateOwner(this.#options.db, peer, this.#parse(name, peer), name !== '')
  }

  #judge(visit: Visit): Judgement | Promise<Judgement> {
    const { attempt, name, account } = visit
    switch (attempt.mechanism) {
      case 'password':
        return this.#judgePassword(visit, attempt.password)
      case 'apop':
        return this.#apop.judge(attempt, name, account)
      case 'scram':
        return this.#scram.judge(attempt, name, account)
      case 'bearer':
        return this.#judgeBearer(visit, attempt)
      case 'external':
        return judgeExternal(visit)
    }
  }

  #judgePassword(visit: Visit, password: Secret): Judgement | Promise<Judgement> {
    const { name, recollection, account, peer, presence } = visit
    const isKnown = account !== undefined && recollection !== undefined
    const atOnce = isKnown && this.#passwords.judgeAtOnce(account, password, recollection)
    if (atOnce) return atOnce
    const domain = name?.domainName ?? ''
    const asker = { source: sourceOf(peer.client), domain, signal: presence?.signal }
    const { moving } = this.#options
    // Of a domain that migrates; who has a password here has moved.
    if (name && account?.passwordHash === undefined && moving?.isMigrating(name))
      return moving.judge({ name, account, password, client: peer.client, asker, presence })
    if (isKnown) return this.#passwords.judge(account, password, recollection, asker)
    return this.#passwords.spend(password, asker).then(() => unknownUser(name))
  }

  /** The provider is that of the domain of the name, or of the domain that bare names are of. */
  async #judgeBearer(
    { name, account, peer, presence }: Visit,
    attempt: BearerAttempt,
  ): Promise<Judgement> {
    const { bearer, defaultDomain } = this.#options
    if (name === undefined && attempt.name !== '') return unknownUser(name)
    const domainName = name?.domainName ?? peer.hostDomain ?? defaultDomain
    const asker = { source: sourceOf(peer.client), signal: presence?.signal }
    const vouched = await bearer?.verify(domainName, attempt.token, asker)
    if (vouched?.kind !== 'vouched')
      return { reason: vouched?.reason ?? 'no OAuth provider', account }
    const owner = parseLoginName(vouched.address, '')
    if (name === undefined) {
      const keys = throttleKeys(peer.client, owner)
      const found = await this.#lookUp(owner, peer, keys, this.#ownDesk)
      return found.account ? { reason: 'verified', account: found.account } : unknownUser(owner)
    }
    if (owner?.address.toLowerCase() !== name.address.toLowerCase())
      return { reason: 'token of another user', account }
    return account ? { reason: 'verified', account } : unknownUser(name)
  }

  /** What a success brings with it; nobody waits for it. */
  #follow(
    { attempt, peer }: Visit,
    account: LoginAccount,
    { credential, isRecalled }: Judgement,
  ): void {
    const { db, log, throttle } = this.#options
    void throttle?.recordSuccess(peer.client, account)
    if (attempt.mechanism === 'password' && credential === undefined && !isRecalled)
      void this.#scram.remember(account, attempt.password)
    if (credential === undefined || credential.isUseRecorded) return
    const { domainId, userId } = account
    recordCredentialUse(db, domainId, userId, credential.credentialId).catch((error: unknown) =>
      log.warn({ error }, 'the use of a credential was not written down'),
    )
  }

  #record(visit: Visit, judgement: Judgement): void {
    const { name } = visit
    if (judgement.reason === 'unknown user' && name !== undefined)
      void this.#recordUnknown(visit, name)
    else this.#write(visit, judgement)
  }

  /** Beside the reply, not before it: who asks must not see the time of one more statement. */
  async #recordUnknown(visit: Visit, name: LoginName): Promise<void> {
    const { db, log } = this.#options
    try {
      const domain = await selectDomain(db, name.domainName)
      const reason = domain === undefined ? 'unknown domain' : 'unknown user'
      this.#write(visit, { reason, account: undefined })
    } catch (error) {
      this.#write(visit, { reason: 'unknown user', account: undefined })
      log.warn({ error }, 'could not look whether the domain is known')
    }
  }

  #write({ attempt, peer, name }: Visit, { reason, account, credential }: Judgement): void {
    const { log } = this.#options
    const shown = shownReason(reason, attempt, account)
    // Told by what follows: the login, or that another session has the maildrop.
    if (shown === 'verified' && !log.isLevelEnabled('debug')) return
    const fields = {
      client: peer.client,
      mechanism: attempt.mechanism,
      domain: account?.domainName ?? name?.domainName,
      user: name?.address ?? (account && `${account.localPart}@${account.domainName}`),
      credential: credential?.credentialId,
      reason: shown,
    }
    if (OPERATOR_REASONS.has(shown)) log.warn(fields, 'login refused')
    else if (shown === 'verified') log.debug(fields, 'credential verified')
    else log.info(fields, 'login refused')
  }
}

const GO_AT_ONCE: ThrottleVerdict = { kind: 'go', delayMs: 0 }

/** Whether the account is as it was when this password was verified, and nothing holds it up. */
function isAsExpected(
  expected: Entitlement,
  account: LoginAccount | undefined,
  leave: ThrottleVerdict,
): boolean {
  if (account === undefined || leave.kind === 'refuse' || leave.delayMs > 0) return false
  return isSame(expected, entitlementOf(account, expected.credentialId))
}

/** @param reason as judged: who is told nothing of it needs no finer one */
function shownReason(
  reason: LoginReason,
  { name }: LoginAttempt,
  account: LoginAccount | undefined,
): LoginReason {
  if (reason === 'verified' && account?.isSuspended) return 'suspended'
  // A bare name that any domain would make an address of: only the domain is missing.
  const isBare = reason === 'implausible name' && !name.includes('@')
  return isBare && parseLoginName(name, 'domain.invalid') ? 'no domain' : reason
}

function judgeExternal({ certificate, account }: Visit): Judgement {
  assert(certificate, 'the certificate was looked up')
  if (certificate.kind === 'refused') return { reason: certificate.reason, account: undefined }
  const { owner, name } = certificate
  // Removed, and added again, between the two look-ups.
  if (account?.userId !== owner.userId || account.domainId !== owner.domainId)
    return unknownUser(name)
  return { reason: 'verified', account, credential: owner }
}

/**
 * What is told of a right proof, or of a fault of ours, is told at once and counts for nothing. An
 * old server that has not taken a password may refuse wrong ones in these words.
 */
function isUnproven(judged: LoginReason, { reason }: Refused): boolean {
  const isPutOff = judged === 'in use on the old server' || judged === 'put off by the old server'
  return reason === 'bad-credentials' || reason === 'throttled' || isPutOff
}

function verdictOf({ reason, account, credential, serverSignature }: Judgement): LoginVerdict {
  if (reason === 'throttled') return { kind: 'refused', reason }
  if (reason === 'being moved') return { kind: 'refused', reason: 'being-moved' }
  if (reason === 'in use' || reason === 'in use on the old server')
    return { kind: 'refused', reason: 'in-use' }
  if (reason === 'put off by the old server') return { kind: 'refused', reason: 'temporary' }
  if (reason !== 'verified' || account === undefined)
    return { kind: 'refused', reason: 'bad-credentials' }
  if (account.isSuspended) return { kind: 'refused', reason: 'suspended' }
  return { kind: 'accepted', account, credentialId: credential?.credentialId, serverSignature }
}

/**
 * By what the throttle knows a wrong proof again. APOP and SCRAM proofs are different each time, so
 * each of them counts.
 */
function proofOf(attempt: LoginAttempt, peer: LoginPeer): Buffer {
  switch (attempt.mechanism) {
    case 'password':
      return attempt.password.reveal()
    case 'apop':
      return Buffer.from(attempt.digest)
    case 'scram':
      return attempt.clientProof
    case 'bearer':
      return attempt.token.reveal()
    case 'external':
      return peer.certificateDigest ?? Buffer.alloc(0)
  }
}

/** @param moment by the monotonic clock; ends sooner when the peer has gone */
async function waitUntil(moment: number, presence: Presence | undefined): Promise<void> {
  const waitMs = moment - performance.now()
  if (waitMs <= 0) return
  const options = presence === undefined ? {} : { signal: presence.signal }
  await pause(waitMs, undefined, options).catch(() => undefined)
}
