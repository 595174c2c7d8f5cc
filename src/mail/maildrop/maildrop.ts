/**
 * One user's maildrop, open under an exclusive lease: take the lease, freeze the list, read, and at
 * QUIT delete what was marked, all or nothing. Marks themselves are the protocol's; until `commit`
 * nothing here changes a message. See DESIGN in docs/protocol.md: the maildrop mirrors RFC 1939's
 * AUTHORIZATION → TRANSACTION → UPDATE.
 */
import { randomUUID } from 'node:crypto'
import { assert } from '../../base/assert.ts'
import { Failure, isFailure } from '../../base/failure.ts'
import type { Log } from '../../base/log.ts'
import type { LoginAccount } from '../../storage/accounts.ts'
import type { Database } from '../../storage/database.ts'
import {
  acquireLease,
  type Counters,
  commitDeletes,
  type Lease,
  releaseLease,
  resolveCommit,
} from '../../storage/leases.ts'
import {
  type PackedUniqueIds,
  type StoredMessage,
  selectSnapshot,
  selectUniqueIds,
} from '../../storage/messages.ts'
import type { LeaseKeeper } from './lease-keeper.ts'
import { MessageReader, type ReadAheadBudget } from './reader.ts'

/** Ascending by uid: index i of both arrays is message number i + 1. 8 octets a message. */
export interface Snapshot {
  uids: Int32Array
  octets: Int32Array
}

export interface MaildropContext {
  db: Database
  log: Log
  keeper: LeaseKeeper
  budget: ReadAheadBudget
}

export type OpenResult =
  | { kind: 'opened'; maildrop: Maildrop }
  | { kind: 'in-use' }
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
 * @param client address of the peer, for the operator's session list
 * @param onLeaseLost called at most once, when the lease is known to be no longer ours
 * @throws {Failure} temporary, if the database is away or this node's own heartbeat is overdue
 */
export async function openMaildrop(
  context: MaildropContext,
  account: LoginAccount,
  client: string,
  onLeaseLost: () => void,
): Promise<OpenResult> {
  const { db, keeper } = context
  if (!keeper.isTrusted()) throw new Failure('LEASE_LOST', 'this node has no valid heartbeat')
  const { domainId, userId, fingerprint } = account
  const lease: Lease = { domainId, userId, sessionId: randomUUID() }
  keeper.expect(lease.sessionId)
  try {
    const { nodeId, deadNodeIds } = keeper
    const result = await acquireLease(db, { ...lease, nodeId, deadNodeIds, fingerprint, client })
    if (result.kind !== 'acquired') {
      keeper.forget(lease.sessionId)
      return result
    }
    keeper.track({ lease, fingerprint, end: onLeaseLost })
    const maildrop = new Maildrop(context, lease, result.counters)
    if (keeper.isTrusted()) return { kind: 'opened', maildrop }
    await maildrop.close()
    throw new Failure('LEASE_LOST', 'the heartbeat became overdue while the lease was taken')
  } catch (error) {
    keeper.forget(lease.sessionId)
    throw error
  }
}

export class Maildrop {
  readonly lease: Lease
  readonly counters: Counters
  readonly #context: MaildropContext
  readonly #reader: MessageReader
  #snapshot: Snapshot | undefined
  #state: 'open' | 'committing' | 'closed' = 'open'

  constructor(context: MaildropContext, lease: Lease, counters: Counters) {
    this.#context = context
    this.lease = lease
    this.counters = counters
    this.#reader = new MessageReader(context.db, lease, context.budget)
  }

  /** Part of every unique-id that is derived, not imported: `<uid_validity>.<uid>`. */
  get uidPrefix(): string {
    return `${this.counters.uidValidity}.`
  }

  /** The list as of the login: bounded by the next uid read then, so later mail stays invisible. */
  async list(): Promise<Snapshot> {
    const { domainId, userId } = this.lease
    const { nextUid } = this.counters
    this.#snapshot ??= await selectSnapshot(this.#context.db, domainId, userId, nextUid)
    return this.#snapshot
  }

  uniqueIds(): Promise<PackedUniqueIds> {
    const { domainId, userId } = this.lease
    return selectUniqueIds(this.#context.db, domainId, userId, this.counters.nextUid)
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

  /** @throws {Failure} MESSAGE_DAMAGED or a storage failure */
  readChunk(message: StoredMessage, seq: number): Promise<Buffer> {
    return this.#reader.readChunk(message, seq)
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
      if (uids.length === 0) await releaseLease(db, this.lease)
      else if ((await commitDeletes(db, this.lease, uids)) === 'fenced') return 'lease-lost'
      return 'committed'
    } catch (error) {
      if (uids.length === 0) return 'committed'
      log.error({ error, session: this.lease.sessionId }, 'QUIT could not be committed')
      if (isFailure(error, 'STORAGE_IN_DOUBT')) return await this.#resolve()
      await this.#release()
      return 'nothing-deleted'
    } finally {
      this.#finish()
    }
  }

  /** Ends without UPDATE: nothing is deleted, the lease is free for the next login at once. */
  async close(): Promise<void> {
    if (this.#state !== 'open') return
    this.#state = 'committing'
    await this.#release()
    this.#finish()
  }

  async #release(): Promise<void> {
    const { db, log } = this.#context
    await releaseLease(db, this.lease).catch((error: unknown) => {
      const { sessionId } = this.lease
      log.warn({ error, session: sessionId }, 'the next heartbeat will release the lease')
    })
  }

  #finish(): void {
    this.#state = 'closed'
    this.#reader.close()
    this.#context.keeper.forget(this.lease.sessionId)
  }

  /** Asks the database what became of the QUIT whose answer was lost, until it answers. */
  async #resolve(): Promise<CommitResult> {
    const { db, log } = this.#context
    const deadline = performance.now() + RESOLVE_DEADLINE_MS
    while (performance.now() < deadline) {
      try {
        const result = await resolveCommit(db, this.lease)
        log.info({ session: this.lease.sessionId, result }, 'the lost QUIT is resolved')
        return result
      } catch {
        await new Promise((resolve) => setTimeout(resolve, RESOLVE_PAUSE_MS))
      }
    }
    log.error({ session: this.lease.sessionId }, 'QUIT stays undecided: closing without a reply')
    return 'undecided'
  }
}
