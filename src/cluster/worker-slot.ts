/**
 * One place in the crew: forks a worker, forks the next one when it dies (at once the first time,
 * then after a doubling pause), and drains the last one. A worker that served for a while ends
 * the series.
 */
import cluster, { type Worker } from 'node:cluster'
import { randomUUID } from 'node:crypto'
import { Failure } from '../base/failure.ts'
import type { Log } from '../base/log.ts'
import type { FromWorker, ServingAddresses, ToWorker } from './worker-messages.ts'

const PAUSE_MIN_MS = 100
const PAUSE_MAX_MS = 30_000
const HEALTHY_MS = 60_000
/** After its grace a worker still gives leases back; then it is ended by force. */
const KILL_AFTER_GRACE_MS = 2_000

export interface WorkerSlotOptions {
  log: Log
  makeStart: (nodeId: string) => ToWorker
  /** The worker has ended, whatever by, and may have left leases under these ids. */
  onNodesGone: (nodeIds: readonly string[]) => void
}

export class WorkerSlot {
  readonly #options: WorkerSlotOptions
  #worker: Worker | undefined
  #exited: Promise<void> = Promise.resolve()
  #pauseMs = PAUSE_MIN_MS
  #pause: NodeJS.Timeout | undefined
  #isStopping = false

  constructor(options: WorkerSlotOptions) {
    this.#options = options
  }

  /**
   * Forks the first worker.
   * @returns where it listens
   * @throws {Failure} SETTINGS_INVALID if it cannot listen, or ends before it does
   */
  start(): Promise<ServingAddresses> {
    return new Promise((resolve, reject) => {
      let hasServed = false
      const onServing = (addresses: ServingAddresses): void => {
        hasServed = true
        resolve(addresses)
      }
      this.#fork(onServing, (reason) => {
        if (hasServed) return
        this.#isStopping = true // one that cannot start is not started again
        reject(new Failure('SETTINGS_INVALID', reason))
      })
    })
  }

  /** Idempotent; a second call with less grace hurries. Resolves when the process is gone. */
  async stop(graceMs: number): Promise<void> {
    this.#isStopping = true
    clearTimeout(this.#pause)
    const worker = this.#worker
    if (worker === undefined) return
    if (worker.isConnected()) worker.send({ kind: 'drain', graceMs } satisfies ToWorker, () => {})
    const kill = setTimeout(() => worker.process.kill('SIGKILL'), graceMs + KILL_AFTER_GRACE_MS)
    await this.#exited
    clearTimeout(kill)
  }

  #fork(
    onServing: (addresses: ServingAddresses) => void,
    onRefused: (reason: string) => void,
  ): void {
    const { log, makeStart, onNodesGone } = this.#options
    const nodeIds = [randomUUID() as string]
    const worker = cluster.fork()
    const forkedAt = performance.now()
    const pid = worker.process.pid
    this.#worker = worker
    worker.on('message', (message: FromWorker) => {
      if (message.kind === 'hello') worker.send(makeStart(nodeIds[0] ?? ''), () => {})
      if (message.kind === 'node') nodeIds.push(message.nodeId)
      if (message.kind === 'refused') onRefused(message.reason)
      if (message.kind === 'serving') {
        log.info({ worker: pid, node: nodeIds[0] }, 'a worker serves')
        onServing(message.addresses)
      }
    })
    worker.on('error', ({ message }) => {
      log.warn({ worker: pid, reason: message }, 'a message to a worker was lost')
    })
    this.#exited = new Promise((resolve) => {
      worker.once('exit', (status, signal) => {
        this.#worker = undefined
        onNodesGone(nodeIds)
        onRefused(`a worker ended before it served (${signal ?? `exit status ${status}`})`)
        this.#forkAgain(pid, signal ?? `exit status ${status}`, performance.now() - forkedAt)
        resolve()
      })
    })
  }

  #forkAgain(pid: number | undefined, end: string, livedMs: number): void {
    if (this.#isStopping) return
    if (livedMs > HEALTHY_MS) this.#pauseMs = PAUSE_MIN_MS
    const pauseMs = this.#pauseMs
    this.#pauseMs = Math.min(pauseMs * 2, PAUSE_MAX_MS)
    this.#options.log.error({ worker: pid, end, pauseMs }, 'a worker has ended: starting another')
    this.#pause = setTimeout(() => {
      const { log } = this.#options
      this.#fork(
        () => {},
        (reason) => log.error({ reason }, 'a worker does not start'),
      )
    }, pauseMs)
  }
}
