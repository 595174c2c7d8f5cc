/**
 * Keeps this worker alive in the eyes of the other nodes, and its sessions in step with their lease
 * rows. One beat every few seconds: renew our row in `nodes`, learn which nodes are dead, compare
 * the sessions here with the rows there. There is no heartbeat per session and no LISTEN.
 *
 * A session whose row is gone (kicked, taken over, lost in a crash of PostgreSQL), whose user was
 * suspended or whose credential changed is ended, as is an idle one whose maildrop another login
 * waits for; a row without a session is deleted. Time is this process' monotonic clock and the
 * database's now(), never the wall clock of a node.
 */
import { randomUUID } from 'node:crypto'
import { Failure } from '../../base/failure.ts'
import type { Log } from '../../base/log.ts'
import { METRICS } from '../../base/metrics.ts'
import { Roster } from '../../base/roster.ts'
import type { Lease } from '../../storage/leases.ts'
import {
  deleteNode,
  deleteNodeSessions,
  insertNode,
  type NodeSession,
  renewNode,
  selectDeadNodes,
  selectNodeSessions,
} from '../../storage/nodes.ts'
import type { Database } from '../../storage/postgres/database.ts'

/** A session in TRANSACTION, as the keeper sees it. */
export interface LiveSession {
  readonly lease: Lease
  /** Of the credential it logged in with; see LoginAccount. */
  readonly fingerprint: string
  /** For how long it has been idle, in milliseconds; 0 while it carries something out. */
  idleMs(): number
  /** `wanted`: the lease is still ours, and to be given back at once. */
  end(reason: 'lease-lost' | 'wanted'): void
}

interface LeaseKeeperOptions {
  db: Database
  log: Log
  hostname: string
  version: string
  nodeId?: string
  /** Called after each beat that reached the database; may read from it. */
  onBeat?: () => Promise<void>
  /** This process was declared dead and goes on under another id. */
  onNodeIdChanged?: (nodeId: string) => void
}

/** Six beats fit into the 30 s after which others take a silent node for dead. */
const BEAT_INTERVAL_MS = 5_000
/**
 * Less than those 30 s by one slow round trip: from then on nothing that depends on a lease is
 * said.
 */
const TRUST_MS = 25_000
/** After a beat that failed: a crash loses all leases, and others take them once it is over. */
const RETRY_MS = 1_000
/** Two beats and a moment: a database that answers nothing is away before a beat gives it up. */
const IN_TOUCH_MS = 12_000
/** So long a lease may arrive that was asked for under an id that this process had before. */
const LATE_LEASE_MS = 120_000
/** A phone that lost its network leaves a session like this; a client that works does not. */
const GIVES_WAY_AFTER_MS = 60_000

export class LeaseKeeper {
  readonly #options: LeaseKeeperOptions
  readonly #live = new Roster<LiveSession>()
  /** Acquires in flight: their rows may exist before their sessions do. */
  readonly #pending = new Set<string>()
  /** Ids that this process had, with the time from which they are forgotten. */
  readonly #formerIds = new Map<string, number>()
  #nodeId: string
  #deadNodeIds: readonly string[] = []
  #isRegistered = false
  #isAway = false
  /** performance.now() at which the last accepted renewal was SENT. */
  #renewalSentAt = Number.NEGATIVE_INFINITY
  #timer: NodeJS.Timeout | undefined
  #trustTimer: NodeJS.Timeout | undefined
  #retryTimer: NodeJS.Timeout | undefined
  #beating: Promise<void> | undefined

  constructor(options: LeaseKeeperOptions) {
    this.#options = options
    this.#nodeId = options.nodeId ?? randomUUID()
  }

  get nodeId(): string {
    return this.#nodeId
  }

  get deadNodeIds(): readonly string[] {
    return this.#deadNodeIds
  }

  get sessionCount(): number {
    return this.#live.count
  }

  /**
   * False: others may have taken our leases by now. No timer can tell a process that was asleep.
   */
  isTrusted(): boolean {
    return performance.now() - this.#renewalSentAt < TRUST_MS
  }

  /** Whether the database answered lately; sooner in doubt than the leases are. */
  isInTouch(): boolean {
    return !this.#isAway && performance.now() - this.#renewalSentAt < IN_TOUCH_MS
  }

  /** To be called before a lease is asked for; `track` or `forget` follows. */
  expect(sessionId: string): void {
    this.#pending.add(sessionId)
  }

  /**
   * @returns to be called when the session has ended. If its row is still there the next beat
   *   deletes it.
   */
  track(session: LiveSession): () => void {
    this.#pending.delete(session.lease.sessionId)
    return this.#live.enter(session)
  }

  /** There will be no session. If there is a row the next beat deletes it. */
  forget(sessionId: string): void {
    this.#pending.delete(sessionId)
  }

  /**
   * Begins to beat; the first beat registers the node. Never throws: a database away is waited for.
   */
  start(): Promise<void> {
    this.#timer = setInterval(() => void this.beat(), BEAT_INTERVAL_MS)
    return this.beat()
  }

  /** Ends the beating and takes this node and its leases out of the database, if it answers. */
  async stop(): Promise<void> {
    clearInterval(this.#timer)
    await this.#beating
    clearTimeout(this.#trustTimer)
    clearTimeout(this.#retryTimer)
    if (!this.#isRegistered) return
    this.#isRegistered = false
    this.#renewalSentAt = Number.NEGATIVE_INFINITY
    await deleteNode(this.#options.db, this.#nodeId).catch((error: unknown) => {
      this.#options.log.warn({ error }, 'this node could not be taken out: others free its leases')
    })
  }

  /** One beat; those asked for while it runs are the same one. */
  beat(): Promise<void> {
    this.#beating ??= this.#beatOnce().finally(() => {
      this.#beating = undefined
    })
    return this.#beating
  }

  async #beatOnce(): Promise<void> {
    const { db, log, onBeat } = this.#options
    try {
      await this.#renew()
      this.#deadNodeIds = await selectDeadNodes(db)
      await this.#freeFormer()
      await this.#reconcile()
      await onBeat?.()
      if (this.#isAway) log.info('the database is back')
      this.#isAway = false
    } catch (error) {
      if (!this.#isAway) log.error({ error }, 'the database does not answer: retrying')
      this.#isAway = true
      clearTimeout(this.#retryTimer)
      this.#retryTimer = setTimeout(() => void this.beat(), RETRY_MS).unref()
    }
    if (!this.isTrusted()) this.#endAll()
  }

  async #renew(): Promise<void> {
    const sentAt = performance.now()
    // Accepted, but the last renewal was not trusted any more when the answer came: somebody may
    // have read us as dead before it was committed, and take our leases until they look again.
    const isOurs =
      !this.#isRegistered || ((await renewNode(this.#options.db, this.#nodeId)) && this.isTrusted())
    if (!isOurs) this.#die()
    if (!this.#isRegistered) {
      const { hostname, version } = this.#options
      const node = { nodeId: this.#nodeId, hostname, pid: process.pid, version }
      if (!(await insertNode(this.#options.db, node))) {
        this.#rename()
        throw new Failure('LEASE_LOST', 'what this node registered as has died meanwhile')
      }
      this.#isRegistered = true
    }
    this.#renewalSentAt = sentAt
    this.#watchTrust()
  }

  /**
   * The next beats may wait for a database that has fallen silent: who sits idle is told in time
   * that its session is over, before another is given the maildrop.
   */
  #watchTrust(): void {
    clearTimeout(this.#trustTimer)
    const leftMs = this.#renewalSentAt + TRUST_MS - performance.now()
    this.#trustTimer = setTimeout(() => {
      if (this.isTrusted()) this.#watchTrust()
      else this.#endAll()
    }, leftMs).unref()
  }

  /**
   * Declared dead while we slept: every lease may be another's, so begin again under another id.
   */
  #die(): void {
    this.#options.log.warn('this node was declared dead: its sessions end')
    this.#endAll()
    this.#isRegistered = false
    this.#rename()
  }

  #rename(): void {
    this.#formerIds.set(this.#nodeId, performance.now() + LATE_LEASE_MS)
    this.#nodeId = randomUUID()
    this.#options.onNodeIdChanged?.(this.#nodeId)
  }

  /**
   * No session goes on under a former id, but what was asked for under it may be carried out when
   * the database is heard again. Others would wait a minute for that maildrop.
   */
  async #freeFormer(): Promise<void> {
    for (const [nodeId, until] of this.#formerIds) {
      await deleteNode(this.#options.db, nodeId)
      if (performance.now() > until) this.#formerIds.delete(nodeId)
    }
  }

  #endAll(): void {
    const live = this.#live.members()
    METRICS.leaseLosses.of('heartbeat').add(live.length)
    for (const session of live) session.end('lease-lost')
  }

  async #reconcile(): Promise<void> {
    const { db } = this.#options
    const before = this.#live.members()
    const domainIds = new Set(before.map(({ lease }) => lease.domainId))
    const { sessions, away } = await selectNodeSessions(db, this.#nodeId, domainIds)
    const rows = new Map(sessions.map((row) => [row.sessionId, row]))
    const liveIds = new Set(this.#live.members().map(({ lease }) => lease.sessionId))
    // Others ended by themselves meanwhile. Of those in domains that are away nothing is known:
    // whoever could take their leases must ask the same server.
    for (const session of before)
      if (liveIds.has(session.lease.sessionId) && !away.has(session.lease.domainId))
        this.#check(session, rows.get(session.lease.sessionId))
    // What was live before the query may have ended since, and its release be on the way: the row
    // it left is deleted by session_id, so deleting it twice is harmless.
    const orphans = sessions.filter(
      ({ sessionId }) => !liveIds.has(sessionId) && !this.#pending.has(sessionId),
    )
    if (orphans.length > 0) await deleteNodeSessions(db, this.#nodeId, orphans)
  }

  /** @param row undefined: there is none */
  #check(session: LiveSession, row: NodeSession | undefined): void {
    const { sessionId } = session.lease
    const fields = { session: sessionId, isRowThere: row !== undefined }
    if (row?.fingerprint !== session.fingerprint || row.isBarred) {
      this.#options.log.info(
        fields,
        'the lease is gone or its credential changed: the session ends',
      )
      METRICS.leaseLosses.of(row === undefined ? 'gone' : 'credential').add()
      session.end('lease-lost')
    } else if (row.isWanted && session.idleMs() >= GIVES_WAY_AFTER_MS) {
      this.#options.log.info(fields, 'another login waits: the idle session ends')
      METRICS.leaseLosses.of('wanted').add()
      session.end('wanted')
    }
  }
}
