/**
 * What the supervisor knows of its workers without asking: each says once a second whether it
 * accepts connections and whether the database answered its last heartbeat. From that follows what
 * the probes of this node are told. Time is counted in beats of this process, not by a clock: after
 * the whole node slept (a suspended machine), no worker is taken for silent before it could speak.
 */
import cluster, { type Worker } from 'node:cluster'
import { METRICS } from '../base/metrics.ts'
import type { MetricReport } from '../base/tally.ts'
import type { FromWorker } from './worker-messages.ts'

const BEAT_MS = 1_000
/** A worker that was silent for so long has an event loop that hangs, and accepts nothing. */
const SILENT_BEATS = 5
/**
 * So long no worker served: they crash as often as they are started, or all hang. A new process is
 * then worth more than this one. A database that is away is no reason: workers serve meanwhile, and
 * a restart does not bring it back.
 */
const DEAD_BEATS = 120

/** One worker process. */
export interface Member {
  worker: Worker
  /** Counted from 1, free again when the worker has ended: so there are never more than at once. */
  seat: number
  isServing: boolean
  hasDatabase: boolean
  silentBeats: number
  /** What it reported last. */
  metrics: readonly MetricReport[]
}

/** `reason` is one line that says why not. */
export type Health = { isWell: true } | { isWell: false; reason: string }

const WELL: Health = { isWell: true }

export class Crew {
  readonly #members = new Map<number, Member>()
  readonly #isStopping: () => boolean
  readonly #timer: NodeJS.Timeout
  readonly #onGone: (member: Member) => void
  readonly #onReport: (member: Member, number: number) => void
  #unservedBeats = 0
  #hasServed = false

  /**
   * @param isStopping whether the node was told to end
   * @param onReport its metrics are with the member now
   * @param onGone it has ended
   */
  constructor(
    isStopping: () => boolean,
    onReport: (member: Member, number: number) => void,
    onGone: (member: Member) => void,
  ) {
    this.#isStopping = isStopping
    this.#onReport = onReport
    this.#onGone = onGone
    cluster.on('fork', this.#enter)
    cluster.on('message', this.#hear)
    cluster.on('exit', this.#leave)
    this.#timer = setInterval(() => this.#beat(), BEAT_MS).unref()
  }

  members(): Member[] {
    return [...this.#members.values()]
  }

  close(): void {
    clearInterval(this.#timer)
    cluster.off('fork', this.#enter)
    cluster.off('message', this.#hear)
    cluster.off('exit', this.#leave)
  }

  /** Whether new clients should be sent here. One worker that can serve is enough. */
  readiness(): Health {
    if (this.#isStopping()) return { isWell: false, reason: 'this node is stopping' }
    const serving = this.members().filter(({ isServing }) => isServing)
    if (serving.length === 0) return { isWell: false, reason: 'no worker accepts connections' }
    const awake = serving.filter(({ silentBeats }) => silentBeats < SILENT_BEATS)
    if (awake.length === 0) return { isWell: false, reason: 'no worker gives a sign of life' }
    if (!awake.some(({ hasDatabase }) => hasDatabase))
      return { isWell: false, reason: 'the database does not answer' }
    return WELL
  }

  /** Whether this process should be left alone. */
  liveness(): Health {
    if (this.#isStopping() || this.#unservedBeats < DEAD_BEATS) return WELL
    return { isWell: false, reason: `no worker has served for ${this.#unservedBeats} s` }
  }

  #beat(): void {
    let isServed = false
    for (const member of this.#members.values()) {
      member.silentBeats++
      if (member.isServing && member.silentBeats < SILENT_BEATS) isServed = true
    }
    if (isServed) this.#hasServed = true
    // Before the first: the start may take its time, and ends by itself if it fails.
    this.#unservedBeats = isServed || !this.#hasServed ? 0 : this.#unservedBeats + 1
  }

  readonly #enter = (worker: Worker): void => {
    const taken = new Set(this.members().map(({ seat }) => seat))
    let seat = 1
    while (taken.has(seat)) seat++
    this.#members.set(worker.id, {
      worker,
      seat,
      isServing: false,
      hasDatabase: false,
      silentBeats: 0,
      metrics: [],
    })
  }

  readonly #hear = (worker: Worker, message: FromWorker): void => {
    const member = this.#members.get(worker.id)
    if (member === undefined) return
    if (message.kind === 'pulse') {
      member.isServing = message.isServing
      member.hasDatabase = message.hasDatabase
      member.silentBeats = 0
    }
    if (message.kind === 'report') {
      member.metrics = message.metrics
      this.#onReport(member, message.number)
    }
  }

  /** What it sent last may still be on the way. */
  readonly #leave = (worker: Worker, status: number | null): void => {
    METRICS.nodeWorkerExits.of(status === 0 ? 'in order' : 'died').add()
    const member = this.#members.get(worker.id)
    if (member === undefined) return
    member.isServing = false
    const remove = (): void => {
      this.#members.delete(worker.id)
      this.#onGone(member)
    }
    if (worker.isConnected()) worker.once('disconnect', remove)
    else remove()
  }
}
