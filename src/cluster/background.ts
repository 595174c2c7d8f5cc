/**
 * The work nobody waits for: messages that expire, emptying the trash, removing bodies that no
 * message names, failed logins that have faded, rows of nodes that are gone, and the months of
 * session_log. One node of all does it (leadership.ts), so that the others' databases and logs are
 * left alone; were there two at once for a moment, no harm is done, as each statement stands for
 * itself and skips what another removes.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Log } from '../base/log.ts'
import { type BackgroundTask, METRICS } from '../base/metrics.ts'
import { sweepLastLogins } from '../storage/leases.ts'
import { sweepNodes } from '../storage/nodes.ts'
import type { Database } from '../storage/postgres/database.ts'
import { isHolderAway } from '../storage/postgres/sqlstate.ts'
import { expireMessages, purgeTrash, selectDomainIds, sweepBodies } from '../storage/retention.ts'
import { guardHeldUsers } from '../storage/tenants/holds.ts'
import { keepSessionLog } from '../storage/tenants/maildrops/session-log.ts'
import { sweepThrottles } from '../storage/throttles.ts'
import { LEASE_TIMES, Leadership, type LeaseTimes } from './leadership.ts'

/** How long is it from one time to the next, about. */
export interface BackgroundTimes extends LeaseTimes {
  nodesMs: number
  loginsMs: number
  retentionMs: number
  /** EXPIRE counts days, and looking costs a walk over the messages of domains that have it. */
  expiryMs: number
  /** Its partitions are made two months before they are needed. */
  sessionLogMs: number
}

const TIMES: BackgroundTimes = {
  ...LEASE_TIMES,
  nodesMs: 30_000,
  loginsMs: 60_000,
  retentionMs: 600_000,
  expiryMs: 3_600_000,
  sessionLogMs: 3_600_000,
}
/** Rows a statement: short enough that nobody waits for its locks. */
const BATCH = 500

export class Background {
  readonly #db: Database
  readonly #log: Log
  readonly #sessionLogMonths: () => number
  readonly #times: BackgroundTimes
  readonly #leadership: Leadership
  readonly #stopping = new AbortController()
  #loops: Promise<unknown> = Promise.resolve()

  /** @param sessionLogMonths for how long session_log is kept, as it is set when that is asked */
  constructor(db: Database, log: Log, sessionLogMonths: () => number, times = TIMES) {
    this.#db = db
    this.#log = log
    this.#sessionLogMonths = sessionLogMonths
    this.#times = times
    this.#leadership = new Leadership(db, log, 'background work', times)
  }

  start(): void {
    const { nodesMs, loginsMs, retentionMs, expiryMs, sessionLogMs } = this.#times
    this.#leadership.start()
    this.#loops = Promise.all([
      this.#repeat('sweep of nodes', nodesMs, () => sweepNodes(this.#db)),
      this.#repeat('sweep of logins', loginsMs, () => this.#sweepLogins()),
      this.#repeat('retention', retentionMs, () => this.#retain()),
      this.#repeat('expiry', expiryMs, () => this.#expire()),
      this.#repeat('session log', sessionLogMs, () => this.#keepSessionLog()),
    ])
  }

  /** Waits for the statement that runs, not for the rest of the work; then it is another node's. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#loops
    await this.#leadership.stop()
  }

  #isOver(): boolean {
    return this.#stopping.signal.aborted || !this.#leadership.isOurs()
  }

  async #repeat(job: BackgroundTask, intervalMs: number, work: () => Promise<void>): Promise<void> {
    const { signal } = this.#stopping
    while (!signal.aborted) {
      // Half to one and a half times the interval: nodes that started together drift apart.
      await delay(intervalMs * (0.5 + Math.random()), undefined, { signal, ref: false }).catch(
        () => {},
      )
      if (signal.aborted) return
      if (!this.#leadership.isOurs()) continue
      try {
        await work()
      } catch (error) {
        METRICS.backgroundFailures.of(job).add()
        this.#log.warn({ job, error }, 'background work failed: it is tried again later')
      }
    }
  }

  async #sweepLogins(): Promise<void> {
    await sweepThrottles(this.#db)
    await sweepLastLogins(this.#db)
  }

  async #expire(): Promise<void> {
    let expired = 0
    await this.#forEachDomain('expiry', async (domainId) => {
      expired += await this.#untilDone(() => expireMessages(this.#db, domainId, BATCH))
    })
    if (expired > 0) this.#log.info({ expired }, 'moved expired messages to the trash')
  }

  async #keepSessionLog(): Promise<void> {
    const months = this.#sessionLogMonths()
    const dropped = await keepSessionLog(this.#db, months)
    if (dropped > 0) this.#log.info({ dropped, months }, 'threw away months of session_log')
  }

  async #retain(): Promise<void> {
    let purged = 0
    let swept = 0
    await this.#forEachDomain('retention', async (domainId) => {
      await guardHeldUsers(this.#db, domainId)
      purged += await this.#untilDone(() => purgeTrash(this.#db, domainId, BATCH))
      swept += await this.#untilDone(() => sweepBodies(this.#db, domainId, BATCH))
    })
    if (purged + swept > 0) this.#log.info({ purged, swept }, 'emptied trash, removed bodies')
  }

  /** Domains whose server is away are left for the next time, the others are not. */
  async #forEachDomain(
    job: BackgroundTask,
    work: (domainId: number) => Promise<void>,
  ): Promise<void> {
    const away: number[] = []
    for (const domainId of await selectDomainIds(this.#db)) {
      if (this.#isOver()) break
      await work(domainId).catch((error: unknown) => {
        if (!isHolderAway(error)) throw error
        away.push(domainId)
      })
    }
    if (away.length === 0) return
    METRICS.backgroundFailures.of(job).add()
    this.#log.warn({ job, domains: away.length }, 'domains that are away were left out')
  }

  async #untilDone(batch: () => Promise<number>): Promise<number> {
    let total = 0
    while (!this.#isOver()) {
      const count = await batch()
      total += count
      if (count < BATCH) break
    }
    return total
  }
}
