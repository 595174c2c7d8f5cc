/**
 * One user's maildrop, open under an exclusive lease: take the lease, freeze the list, read, and at
 * QUIT delete what was marked, all or nothing. Marks themselves are the protocol's; until `commit`
 * nothing here changes a message. See DESIGN in docs/protocol.md: the maildrop mirrors RFC 1939's
 * AUTHORIZATION → TRANSACTION → UPDATE.
 */
import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { assert } from '../../base/assert.ts'
import { Failure, isFailure } from '../../base/failure.ts'
import type { Log } from '../../base/log.ts'
import type { Counters, LoginAccount, LoginLookup, LoginQuestion } from '../../storage/accounts.ts'
import {
  acquireLease,
  commitDeletes,
  type Entitlement,
  entitlementOf,
  type Lease,
  noteLogin,
  releaseLease,
  resolveCommit,
  type SessionRecord,
  wantLease,
} from '../../storage/leases.ts'
import {
  type ImportedIds,
  type Snapshot,
  type StoredMessage,
  selectSnapshot,
  selectUniqueIds,
} from '../../storage/messages.ts'
import type { Database } from '../../storage/postgres/database.ts'
import { addressOf, type Presence } from '../auth/login-peer.ts'
import { BodyReader } from './body-reader.ts'
import type { LeaseKeeper } from './lease-keeper.ts'
import { MessageReader, type ReadAheadBudget } from './reader.ts'
import { SessionNotes, type SessionPeer } from './session-notes.ts'
import { UidRanges } from './uid-ranges.ts'

export interface MaildropContext {
  db: Database
  log: Log
  keeper: LeaseKeeper
  budget: ReadAheadBudget
}

export type OpenResult =
  | { kind: 'opened'; maildrop: Maildrop }
  | { kind: 'in-use' }
  /** too soon after the last login, for a user who has a LOGIN-DELAY */
  | { kind: 'login-delay' }
  /**
   * The credential changed or the user was suspended since it was verified: as a wrong password.
   */
  | { kind: 'credential-changed' }

export type CommitResult = 'committed' | 'nothing-deleted' | 'lease-lost' | 'undecided'

/**
 * How long a QUIT whose answer was lost is looked into before the connection closes without one.
 */
const RESOLVE_DEADLINE_MS = 30_000
const RESOLVE_PAUSE_MS = 250

/**
 * What a domain's second_login says of a maildrop that is open elsewhere: how long to wait for it.
 * Taking over takes a heartbeat of the node that has it, and a moment for its session to end.
 */
const WAIT_MS = { refuse: 0, wait: 10_000, 'take-over': 15_000 } as const
const FIRST_PAUSE_MS = 100
const PAUSE_MAX_MS = 1_000

/** The connection that a maildrop is opened for. */
export interface MaildropOwner extends SessionPeer {
  /** when the peer has gone, nothing is waited for any more */
  presence?: Presence | undefined
  /** how long the peer has been silent, in milliseconds; 0 while it is owed something */
  idleMs(): number
  /** Asked of it when the lease is no longer ours or has to be given back, perhaps repeatedly. */
  end(): void
}

/**
 * A lease that was asked for once, and the account as it was looked up right after. An acquired one
 * is that node's.
 */
export type LeaseAttempt = { entitlement: Entitlement; lookup: LoginLookup } & (
  | { kind: 'acquired'; maildrop: Maildrop; nodeId: string }
  | { kind: 'in-use' | 'credential-changed' }
)

/**
 * One round trip. What it acquires is handed to `openMaildrop`, or closed.
 * @param client address of the peer, for the operator's session list
 * @throws {Failure} temporary, if the database is away or this node's own heartbeat is overdue
 */
export async function attemptLease(
  context: MaildropContext,
  entitlement: Entitlement,
  question: LoginQuestion,
  client: string,
): Promise<LeaseAttempt> {
  const { db, keeper } = context
  if (!keeper.isTrusted()) throw new Failure('LEASE_LOST', 'this node has no valid heartbeat')
  const { nodeId, deadNodeIds } = keeper
  const { domainId, userId, fingerprint, credentialId } = entitlement
  const sessionId = randomUUID()
  // Spelled out: a spread with more behind it costs V8 some µs, of which a login has few.
  const request = {
    domainId,
    userId,
    fingerprint,
    credentialId,
    sessionId,
    nodeId,
    deadNodeIds,
    client,
  }
  keeper.expect(sessionId)
  let isAcquired = false
  try {
    const { outcome, lookup } = await acquireLease(db, request, question)
    isAcquired = outcome.kind === 'acquired'
    if (outcome.kind !== 'acquired') return { kind: outcome.kind, entitlement, lookup }
    const maildrop = new Maildrop(context, { domainId, userId, sessionId }, outcome.counters)
    return { kind: outcome.kind, maildrop, nodeId, entitlement, lookup }
  } finally {
    if (!isAcquired) keeper.forget(sessionId)
  }
}

/**
 * Waits for a maildrop that is open elsewhere as its domain's second_login says.
 * @param first was made for this account while it was looked up; undefined: to be made now
 * @throws {Failure} temporary, if the database is away or this node's own heartbeat is overdue
 */
export async function openMaildrop(
  context: MaildropContext,
  account: LoginAccount,
  owner: MaildropOwner,
  first?: LeaseAttempt,
): Promise<OpenResult> {
  const { secondLogin, domainId, userId } = account
  const deadline = performance.now() + WAIT_MS[secondLogin]
  let attempt = first ?? (await attemptAgain(context, account, owner))
  for (let pauseMs = FIRST_PAUSE_MS; attempt.kind === 'in-use'; pauseMs *= 2) {
    const leftMs = deadline - performance.now()
    if (leftMs <= 0 || owner.presence?.isGone) break
    if (secondLogin === 'take-over') await wantLease(context.db, domainId, userId)
    await pause(Math.min(pauseMs, PAUSE_MAX_MS, leftMs), owner.presence?.signal)
    if (owner.presence?.isGone) break
    attempt = await attemptAgain(context, account, owner)
  }
  if (attempt.kind !== 'acquired') return { kind: attempt.kind }
  return await begin(context, account, attempt, owner)
}

/** What the throttle knows was asked before. */
function attemptAgain(
  context: MaildropContext,
  account: LoginAccount,
  { client, credentialId }: MaildropOwner,
): Promise<LeaseAttempt> {
  const { domainName, localPart } = account
  const where = { client: addressOf(client), network: '', throttleKeys: [] }
  const entitlement = entitlementOf(account, credentialId)
  return attemptLease(context, entitlement, { domainName, localPart, ...where }, client)
}

async function begin(
  { db, keeper }: MaildropContext,
  account: LoginAccount,
  { maildrop, nodeId, entitlement }: Extract<LeaseAttempt, { kind: 'acquired' }>,
  owner: MaildropOwner,
): Promise<OpenResult> {
  const { lease } = maildrop
  try {
    if (await isTooSoon(db, account)) {
      await maildrop.close('login-delay')
      return { kind: 'login-delay' }
    }
  } catch (error) {
    keeper.forget(lease.sessionId)
    throw error
  }
  maildrop.notes.begin(owner)
  maildrop.forget = keeper.track({
    lease,
    fingerprint: entitlement.fingerprint,
    idleMs: () => owner.idleMs(),
    end: (reason) => {
      owner.end()
      // Before the peer has closed, which may be gone without a word: somebody waits.
      if (reason === 'wanted') void maildrop.close('wanted')
    },
  })
  // Under another id by now: this lease was a dead node's for a while, and may be another's.
  if (keeper.isTrusted() && keeper.nodeId === nodeId) return { kind: 'opened', maildrop }
  await maildrop.close('lease-lost')
  throw new Failure('LEASE_LOST', 'the heartbeat became overdue while the lease was taken')
}

/** Asked only of users who have a LOGIN-DELAY, and only when they hold the lease. */
async function isTooSoon(db: Database, account: LoginAccount): Promise<boolean> {
  const { domainId, userId, loginDelaySeconds } = account
  if (loginDelaySeconds === 0) return false
  return !(await noteLogin(db, domainId, userId, loginDelaySeconds))
}

/** @param signal ends it early */
function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return delay(ms, undefined, { signal }).catch(() => {})
}

export class Maildrop {
  readonly lease: Lease
  readonly counters: Counters
  readonly notes = new SessionNotes()
  /** Tells the keeper that it is closed. */
  forget: () => void
  readonly #context: MaildropContext
  readonly #reader: MessageReader
  #snapshot: Snapshot | undefined
  #state: 'open' | 'committing' | 'closed' = 'open'

  constructor(context: MaildropContext, lease: Lease, counters: Counters) {
    this.#context = context
    this.lease = lease
    this.counters = counters
    this.forget = () => context.keeper.forget(lease.sessionId)
    this.#snapshot = counters.snapshot
    this.#reader = new MessageReader(context.db, lease, context.budget)
  }

  /** Part of every unique-id that is derived, not imported: `<uid_validity>.<uid>`. */
  get uidPrefix(): string {
    return `${this.counters.uidValidity}.`
  }

  /** The list as of the login: bounded by the next uid read then, so later mail stays invisible. */
  async list(): Promise<Snapshot> {
    const { domainId, userId } = this.lease
    this.#snapshot ??= await selectSnapshot(this.#context.db, domainId, userId, this.counters)
    return this.#snapshot
  }

  /** The imported ones of the listed messages from one uid to another. */
  uniqueIds(firstUid: number, lastUid: number): Promise<ImportedIds> {
    const { domainId, userId } = this.lease
    return selectUniqueIds(this.#context.db, domainId, userId, firstUid, lastUid)
  }

  /** A listed message that was read ahead, whole in memory; undefined: `read` it. */
  take(uid: number): StoredMessage | undefined {
    return this.#reader.take(uid)
  }

  /**
   * @param uid of a listed message
   * @throws {Failure} MESSAGE_GONE or a storage failure
   */
  async read(uid: number): Promise<StoredMessage> {
    return this.#reader.read(await this.list(), uid)
  }

  /** To be closed. */
  openBody(message: StoredMessage): BodyReader {
    return new BodyReader(this.#context, this.lease.domainId, message)
  }

  /**
   * RFC 1939 §6: deletes `uids` and releases the lease. `committed` only when PostgreSQL said so.
   * Never throws: what cannot be found out is `undecided`.
   */
  async commit(uids: Int32Array): Promise<CommitResult> {
    assert(this.#state === 'open', 'QUIT comes once')
    this.#state = 'committing'
    const { db, log } = this.#context
    try {
      // Nothing marked: nothing can be lost, so the goodbye does not depend on the lease.
      if (uids.length === 0) await releaseLease(db, this.lease, this.#told('quit'))
      else if ((await this.#delete(uids)) === 'fenced') return 'lease-lost'
      return 'committed'
    } catch (error) {
      if (uids.length === 0) return 'committed'
      log.error({ error, session: this.lease.sessionId }, 'QUIT could not be committed')
      if (isFailure(error, 'STORAGE_IN_DOUBT')) return await this.#resolve()
      await this.#release('quit-failed')
      return 'nothing-deleted'
    } finally {
      this.#finish()
    }
  }

  /**
   * Ends without UPDATE: nothing is deleted, the lease is free for the next login at once.
   * @param reason why, for session_log
   */
  async close(reason = 'gone'): Promise<void> {
    if (this.#state !== 'open') return
    this.#state = 'committing'
    await this.#release(reason)
    this.#finish()
  }

  #delete(uids: Int32Array): Promise<'committed' | 'fenced'> {
    const record = { ...this.notes.toRecord(), deletedUids: UidRanges.of(uids).toText() }
    return commitDeletes(this.#context.db, this.lease, uids, record)
  }

  #told(reason: string): { record: SessionRecord; reason: string } | undefined {
    return this.notes.hasFetched ? { record: this.notes.toRecord(), reason } : undefined
  }

  async #release(reason: string): Promise<void> {
    const { db, log } = this.#context
    await releaseLease(db, this.lease, this.#told(reason)).catch((error: unknown) => {
      const { sessionId } = this.lease
      log.warn({ error, session: sessionId }, 'the next heartbeat will release the lease')
    })
  }

  #finish(): void {
    this.#state = 'closed'
    this.#reader.close()
    this.forget()
  }

  /** Asks the database what became of the QUIT whose answer was lost, until it answers. */
  async #resolve(): Promise<CommitResult> {
    const { db, log } = this.#context
    const { sessionId } = this.lease
    const patience = new AbortController()
    const { signal } = patience
    // A connection that says nothing is given up later than that. What it was asked does no harm,
    // whenever it arrives.
    const isOver = delay(RESOLVE_DEADLINE_MS, undefined, { signal }).catch(() => undefined)
    try {
      for (const deadline = performance.now() + RESOLVE_DEADLINE_MS; ; ) {
        const asked = resolveCommit(db, this.lease).catch(() => undefined)
        const result = await Promise.race([asked, isOver])
        if (result !== undefined) {
          log.info({ session: sessionId, result }, 'the lost QUIT is resolved')
          // The lease has gone by now, but what was fetched is not told yet.
          if (result !== 'committed' && this.notes.hasFetched) await this.#release('quit-failed')
          return result
        }
        if (performance.now() >= deadline) break
        await delay(RESOLVE_PAUSE_MS)
      }
    } finally {
      patience.abort()
    }
    log.error({ session: sessionId }, 'QUIT stays undecided: closing without a reply')
    return 'undecided'
  }
}
