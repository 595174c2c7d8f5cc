/**
 * One place in the crew: the worker that serves in it, the next one when it dies (at once the first
 * time, then after a doubling pause; a worker that served for a while ends the series), and at a
 * reload a successor, which serves before its predecessor is told to leave. What the slot forks by
 * is its own: a reload that stops half way leaves the other slots as they were.
 */
import type { Failure } from '../base/failure.ts'
import type { Log } from '../base/log.ts'
import type { DrainOrder, ServingAddresses, ToWorker } from './worker-messages.ts'
import { WorkerProcess, type WorkerProcessOptions } from './worker-process.ts'

const PAUSE_MIN_MS = 100
const PAUSE_MAX_MS = 30_000
const HEALTHY_MS = 60_000
/** Workers that hang at the start of the node before it is given up. */
const START_TRIES = 3

/** What a worker is told at its start. */
export type MakeStart = (nodeId: string) => ToWorker

export interface WorkerSlotOptions {
  log: Log
  makeStart: MakeStart
  onNodesGone: WorkerProcessOptions['onNodesGone']
  servesWithinMs?: WorkerProcessOptions['servesWithinMs']
}

export class WorkerSlot {
  readonly #options: WorkerSlotOptions
  #makeStart: MakeStart
  #worker: WorkerProcess | undefined
  /** It does not serve yet, and nobody forks for it. */
  #successor: WorkerProcess | undefined
  /** It has been told to leave. */
  #predecessor: WorkerProcess | undefined
  #pauseMs = PAUSE_MIN_MS
  #pause: NodeJS.Timeout | undefined
  /** Once a worker has served here, the place is kept filled. */
  #isKept = false
  #isStopping = false

  constructor(options: WorkerSlotOptions) {
    this.#options = options
    this.#makeStart = options.makeStart
  }

  /**
   * Forks the first worker, and another one if it hangs.
   * @returns where it listens
   * @throws {Failure} SETTINGS_INVALID if it cannot listen, or ends before it does
   */
  async start(): Promise<ServingAddresses> {
    for (let tries = 1; ; tries++) {
      const worker = this.#fork(this.#makeStart)
      this.#worker = worker
      try {
        const addresses = await worker.serving
        this.#isKept = true
        return addresses
      } catch (error) {
        if (!worker.hangs || tries === START_TRIES) throw error
        await worker.exited
        if (this.#isStopping) throw error
      }
    }
  }

  /**
   * Forks a successor; once it serves, the predecessor leaves as `order` says. Not to be called
   * again before it has resolved, which it does when the predecessor is gone.
   * @throws {Failure} SETTINGS_INVALID if the successor does not serve; then all is as before
   */
  async replace(makeStart: MakeStart, order: DrainOrder): Promise<void> {
    clearTimeout(this.#pause)
    const successor = this.#fork(makeStart)
    this.#successor = successor
    try {
      await successor.serving
    } catch (error) {
      successor.kill()
      await successor.exited
      this.#successor = undefined
      // The worker died meanwhile, or its pause was cut short: the place is still to be filled.
      if (this.#worker === undefined && !this.#isStopping) this.#forkNow()
      throw error
    }
    if (this.#isStopping) return
    this.#successor = undefined
    this.#predecessor = this.#worker
    this.#worker = successor
    this.#makeStart = makeStart
    this.#pauseMs = PAUSE_MIN_MS
    await this.#predecessor?.drain(order)
    this.#predecessor = undefined
  }

  /** A second call with less hurries. Resolves when no process of the slot is left. */
  async stop(order: DrainOrder): Promise<void> {
    this.#isStopping = true
    clearTimeout(this.#pause)
    const all = [this.#worker, this.#successor, this.#predecessor]
    await Promise.all(all.map((worker) => worker?.drain(order)))
  }

  #fork(makeStart: MakeStart): WorkerProcess {
    const worker = new WorkerProcess({ ...this.#options, makeStart })
    void worker.exited.then((end) => this.#noteEnd(worker, end))
    return worker
  }

  #noteEnd(worker: WorkerProcess, end: string): void {
    const { log } = this.#options
    const fields = { worker: worker.pid, end }
    if (worker === this.#predecessor && !this.#isStopping)
      log.info(fields, 'a worker has ended: it was replaced')
    if (worker !== this.#worker) return
    this.#worker = undefined
    if (this.#isStopping) log.info(fields, 'a worker has ended: it was told to')
    if (this.#isStopping || !this.#isKept) return
    if (this.#successor !== undefined) log.error(fields, 'a worker has ended: its successor comes')
    else this.#forkAgain(fields, worker.livedMs)
  }

  #forkAgain(fields: object, livedMs: number): void {
    if (livedMs > HEALTHY_MS) this.#pauseMs = PAUSE_MIN_MS
    const pauseMs = this.#pauseMs
    this.#pauseMs = Math.min(pauseMs * 2, PAUSE_MAX_MS)
    this.#options.log.error({ ...fields, pauseMs }, 'a worker has ended: starting another')
    this.#pause = setTimeout(() => this.#forkNow(), pauseMs)
  }

  #forkNow(): void {
    const { log } = this.#options
    this.#worker = this.#fork(this.#makeStart)
    this.#worker.serving.catch((error: Failure) =>
      log.error({ reason: error.message }, 'a worker does not start'),
    )
  }
}
