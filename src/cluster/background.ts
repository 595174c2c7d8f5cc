/**
 * The work nobody waits for: messages that expire, emptying the trash, removing bodies that no
 * message names, failed logins that have faded, and rows of nodes that are gone. Every node does
 * it, at times that jitter apart; two at once do no harm, as each statement stands for itself and
 * skips what another removes.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Log } from '../base/log.ts'
import { METRICS } from '../base/metrics.ts'
import { sweepLastLogins } from '../storage/leases.ts'
import { sweepNodes } from '../storage/nodes.ts'
import type { Database } from '../storage/postgres/database.ts'
import { expireMessages, purgeTrash, selectDomainIds, sweepBodies } from '../storage/retention.ts'
import { sweepThrottles } from '../storage/throttles.ts'

const NODES_INTERVAL_MS = 30_000
const LOGINS_INTERVAL_MS = 60_000
const RETENTION_INTERVAL_MS = 600_000
/** EXPIRE counts days, and looking costs a walk over the messages of domains that have it. */
const EXPIRE_INTERVAL_MS = 3_600_000
/** Rows a statement: short enough that nobody waits for its locks. */
const BATCH = 500

export class Background {
  readonly #db: Database
  readonly #log: Log
  readonly #stopping = new AbortController()
  #loops: Promise<unknown> = Promise.resolve()

  constructor(db: Database, log: Log) {
    this.#db = db
    this.#log = log
  }

  start(): void {
    this.#loops = Promise.all([
      this.#repeat('sweep of nodes', NODES_INTERVAL_MS, () => sweepNodes(this.#db)),
      this.#repeat('sweep of logins', LOGINS_INTERVAL_MS, () => this.#sweepLogins()),
      this.#repeat('retention', RETENTION_INTERVAL_MS, () => this.#retain()),
      this.#repeat('expiry', EXPIRE_INTERVAL_MS, () => this.#expire()),
    ])
  }

  /** Waits for the statement that runs, not for the rest of the work. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#loops
  }

  async #repeat(job: string, intervalMs: number, work: () => Promise<void>): Promise<void> {
    const { signal } = this.#stopping
    while (!signal.aborted) {
      // Half to one and a half times the interval: nodes that started together drift apart.
      await delay(intervalMs * (0.5 + Math.random()), undefined, { signal, ref: false }).catch(
        () => {},
      )
      if (signal.aborted) return
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
    for (const domainId of await selectDomainIds(this.#db)) {
      expired += await this.#untilDone(() => expireMessages(this.#db, domainId, BATCH))
      if (this.#stopping.signal.aborted) break
    }
    if (expired > 0) this.#log.info({ expired }, 'moved expired messages to the trash')
  }

  async #retain(): Promise<void> {
    let purged = 0
    let swept = 0
    for (const domainId of await selectDomainIds(this.#db)) {
      purged += await this.#untilDone(() => purgeTrash(this.#db, domainId, BATCH))
      swept += await this.#untilDone(() => sweepBodies(this.#db, domainId, BATCH))
      if (this.#stopping.signal.aborted) return
    }
    if (purged + swept > 0) this.#log.info({ purged, swept }, 'emptied trash, removed bodies')
  }

  async #untilDone(batch: () => Promise<number>): Promise<number> {
    let total = 0
    while (!this.#stopping.signal.aborted) {
      const count = await batch()
      total += count
      if (count < BATCH) break
    }
    return total
  }
}
