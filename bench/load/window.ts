/**
 * The measured part of a job: begins after the warm-up, ends after its seconds or when the work is
 * done. What completes in between counts. A job without progress fails instead of hanging.
 */
import type { Job, JobResult, JobWatcher } from './job.ts'

const SILENCE_MAX_MS = 60_000

export class Window {
  readonly #watcher: JobWatcher
  readonly #warmUpMs: number
  readonly #measuredMs: number
  readonly #latencies = new Samples()
  readonly #medians = new Map<string, Samples>()
  readonly #sums: Record<string, number> = {}
  readonly #failed: Promise<never>
  readonly #watchdog: NodeJS.Timeout
  #reject: (error: Error) => void = () => {}
  #timer: NodeJS.Timeout | undefined
  #progress = 0
  #phase: 'warm-up' | 'measured' | 'over' = 'warm-up'
  #operations = 0
  #octets = 0
  #operationsInAll = 0
  #octetsInAll = 0
  #sessions = 0
  #beganAt = 0
  #dueAt = Number.POSITIVE_INFINITY
  #cpuAtBegin = process.cpuUsage()
  #seconds = 0
  #cpuSeconds = 0

  constructor({ warmUpSeconds, seconds }: Job, watcher: JobWatcher) {
    this.#watcher = watcher
    this.#warmUpMs = warmUpSeconds * 1_000
    this.#measuredMs = seconds * 1_000
    this.#failed = new Promise((_, reject) => {
      this.#reject = reject
    })
    this.#failed.catch(() => {})
    let seen = -1
    this.#watchdog = setInterval(() => {
      if (seen === this.#progress) this.fail(new Error('no reply for 60 s'))
      seen = this.#progress
    }, SILENCE_MAX_MS)
  }

  /** Work without an end: measured after the warm-up, for as long as the job says. */
  open(): void {
    this.#timer = setTimeout(() => {
      this.begin()
      this.#timer = setTimeout(() => this.end(), this.#measuredMs)
    }, this.#warmUpMs)
  }

  /** Work that has an end: measured from now on to `end`. */
  begin(): void {
    this.#phase = 'measured'
    this.#watcher.onBegin?.()
    this.#cpuAtBegin = process.cpuUsage()
    this.#beganAt = performance.now()
    this.#dueAt = this.#beganAt + this.#measuredMs
  }

  get isOver(): boolean {
    return this.#phase === 'over'
  }

  /** Work that has an end may stop where it is. */
  get isDue(): boolean {
    return this.isOver || performance.now() >= this.#dueAt
  }

  /** One operation is complete and right. */
  count(latencyMs: number, octets = 0): void {
    this.#progress += 1
    this.#operationsInAll += 1
    this.#octetsInAll += octets
    if (this.#phase !== 'measured') return
    this.#operations += 1
    this.#octets += octets
    this.#latencies.add(latencyMs)
  }

  countSession(): void {
    this.#sessions += 1
  }

  /** Its median is told. */
  note(name: string, value: number): void {
    this.#progress += 1
    if (this.#phase !== 'measured') return
    const samples = this.#medians.get(name) ?? new Samples()
    this.#medians.set(name, samples)
    samples.add(value)
  }

  /** Its sum is told. */
  sum(name: string, value: number): void {
    if (this.#phase === 'measured') this.#sums[name] = (this.#sums[name] ?? 0) + value
  }

  readonly fail = (error: Error): void => {
    this.end()
    this.#reject(error)
  }

  /** @throws what `fail` was called with */
  async orFailure(work: Promise<void>): Promise<void> {
    await Promise.race([work, this.#failed])
  }

  /** Once these are done it is over. */
  async until(loops: readonly Promise<void>[]): Promise<void> {
    await Promise.all(loops)
    this.end()
  }

  result(): JobResult {
    const details = { ...this.#sums }
    for (const [name, samples] of this.#medians) details[name] = samples.at(0.5)
    return {
      operations: this.#operations,
      seconds: this.#seconds,
      octets: this.#octets,
      operationsInAll: this.#operationsInAll,
      octetsInAll: this.#octetsInAll,
      sessions: this.#sessions,
      latencyMs: { p50: this.#latencies.at(0.5), p99: this.#latencies.at(0.99) },
      details,
      cpuSeconds: this.#cpuSeconds,
    }
  }

  end(): void {
    clearTimeout(this.#timer)
    clearInterval(this.#watchdog)
    if (this.#phase === 'measured') {
      const { user, system } = process.cpuUsage(this.#cpuAtBegin)
      this.#seconds = (performance.now() - this.#beganAt) / 1_000
      this.#cpuSeconds = (user + system) / 1_000_000
      this.#watcher.onEnd?.()
    }
    this.#phase = 'over'
  }
}

/** Grows without an object a value. */
class Samples {
  #values = new Float64Array(4_096)
  #count = 0

  add(value: number): void {
    if (this.#count === this.#values.length) {
      const larger = new Float64Array(2 * this.#count)
      larger.set(this.#values)
      this.#values = larger
    }
    this.#values[this.#count++] = value
  }

  at(share: number): number {
    const sorted = this.#values.slice(0, this.#count).sort()
    return sorted[Math.min(this.#count - 1, Math.floor(this.#count * share))] ?? 0
  }
}
