/**
 * One node of all does a task: who holds its row in `leaders`. The row is a lease by the
 * database's clock, so it needs no session of PostgreSQL and PgBouncer may stand in between; our
 * own clock only says for how long an answer is believed: from when it was asked for, and shorter
 * than the lease, so that a process that slept, or lost the database, stops before another begins.
 * A statement that is under way by then goes on: what is done under a leadership must bear two.
 */
import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { isFailure } from '../base/failure.ts'
import type { Log } from '../base/log.ts'
import { METRICS } from '../base/metrics.ts'
import { type Candidate, leadTask, stopLeading } from '../storage/nodes.ts'
import type { Database } from '../storage/postgres/database.ts'

export interface LeaseTimes {
  /** Without a renewal for so long, another may take it. */
  leaseMs: number
  /** How often it is renewed, and asked for by the others; well below the lease. */
  renewMs: number
}

export const LEASE_TIMES: LeaseTimes = { leaseMs: 30_000, renewMs: 10_000 }

export class Leadership {
  readonly #db: Database
  readonly #log: Log
  readonly #task: string
  readonly #times: LeaseTimes
  readonly #candidate: Candidate = {
    holderId: randomUUID(),
    hostname: hostname(),
    pid: process.pid,
  }
  readonly #stopping = new AbortController()
  #loop: Promise<void> = Promise.resolve()
  #believedUntil = Number.NEGATIVE_INFINITY
  #wasOurs = false
  #wasRefused = false

  constructor(db: Database, log: Log, task: string, times: LeaseTimes) {
    this.#db = db
    this.#log = log
    this.#task = task
    this.#times = times
  }

  start(): void {
    this.#loop = this.#campaign()
  }

  /** To be asked before each statement. */
  isOurs(): boolean {
    return performance.now() < this.#believedUntil
  }

  /** Gives it up at once; the row is free when it resolves, unless the database is away. */
  async stop(): Promise<void> {
    this.#believedUntil = Number.NEGATIVE_INFINITY
    this.#stopping.abort()
    await this.#loop
    if (!this.#wasOurs) return
    await stopLeading(this.#db, this.#task, this.#candidate.holderId).catch((error: unknown) =>
      this.#log.debug({ task: this.#task, error }, 'a task could not be given up: its lease ends'),
    )
  }

  async #campaign(): Promise<void> {
    const { signal } = this.#stopping
    while (!signal.aborted) {
      await this.#ask()
      await delay(this.#times.renewMs, undefined, { signal, ref: false }).catch(() => {})
    }
  }

  async #ask(): Promise<void> {
    const { leaseMs, renewMs } = this.#times
    const askedAt = performance.now()
    try {
      const isOurs = await leadTask(this.#db, this.#task, this.#candidate, leaseMs)
      // One renewal before the lease ends: an answer that is late is not believed at all.
      this.#note(isOurs, askedAt + leaseMs - renewMs)
      this.#wasRefused = false
    } catch (error) {
      this.#noteFailure(error)
    }
  }

  /** A database that is away is told of by others; one that refuses would leave the work undone. */
  #noteFailure(error: unknown): void {
    const isRefused = isFailure(error, 'STORAGE_REFUSED')
    const level = isRefused && !this.#wasRefused ? 'warn' : 'debug'
    if (isRefused) METRICS.backgroundFailures.of('leadership').add()
    this.#wasRefused = isRefused
    this.#log[level]({ task: this.#task, error }, 'who does the background work cannot be settled')
  }

  #note(isOurs: boolean, until: number): void {
    if (isOurs !== this.#wasOurs)
      this.#log.info(
        { task: this.#task },
        isOurs ? 'this node does it for all from now on' : 'another node does it from now on',
      )
    this.#wasOurs = isOurs
    const isOver = this.#stopping.signal.aborted
    this.#believedUntil = isOurs && !isOver ? until : Number.NEGATIVE_INFINITY
  }
}
