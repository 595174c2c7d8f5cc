/**
 * One worker process as the supervisor sees it, from the fork to the end: whether it serves, under
 * which node ids it may have left leases, how it ended. What comes before and after it is
 * worker-slot.ts.
 */
import cluster, { type Worker } from 'node:cluster'
import { randomUUID } from 'node:crypto'
import { Failure } from '../base/failure.ts'
import type { Log } from '../base/log.ts'
import { SECRET_NAMES } from '../base/settings.ts'
import type { DrainOrder, FromWorker, ServingAddresses, ToWorker } from './worker-messages.ts'

/** After its grace a worker still gives leases back; then it is ended by force. */
const KILL_AFTER_GRACE_MS = 2_000
/** A database that is away is not waited for, so a worker serves within a second or two. */
const SERVES_WITHIN_MS = 30_000
/** A fork gets them by a message: its environment can be read by others. */
const WITHOUT_SECRETS = Object.fromEntries(SECRET_NAMES.map((name) => [name, undefined]))

export interface WorkerProcessOptions {
  log: Log
  makeStart: (nodeId: string) => ToWorker
  /** The worker has ended, whatever by, and may have left leases under these ids. */
  onNodesGone: (nodeIds: readonly string[]) => void
  /** Then it hangs, and is ended; only tests change it. */
  servesWithinMs?: number | undefined
}

export class WorkerProcess {
  /** Where it listens; rejects with SETTINGS_INVALID if it cannot, hangs or ends before. */
  readonly serving: Promise<ServingAddresses>
  /** By which signal or status. */
  readonly exited: Promise<string>
  readonly pid: number | undefined
  readonly #worker: Worker
  readonly #options: WorkerProcessOptions
  readonly #forkedAt = performance.now()
  #hanging: NodeJS.Timeout | undefined
  #hangs = false
  /** The first is the one it was given. */
  readonly #nodeIds = [randomUUID() as string]

  /** Forks. */
  constructor(options: WorkerProcessOptions) {
    this.#options = options
    const worker = cluster.fork(WITHOUT_SECRETS)
    this.#worker = worker
    this.pid = worker.process.pid
    worker.on('error', ({ message }) => {
      options.log.warn({ worker: this.pid, reason: message }, 'a message to a worker was lost')
    })
    this.serving = new Promise((resolve, reject) => {
      const refuse = (reason: string): void => reject(new Failure('SETTINGS_INVALID', reason))
      worker.on('message', (message: FromWorker) => {
        if (message.kind === 'refused') refuse(message.reason)
        else if (message.kind === 'serving') resolve(this.#noteServing(message.addresses))
        else this.#hear(message)
      })
      worker.once('exit', (status, signal) =>
        refuse(`a worker ended before it served (${endOf(status, signal)})`),
      )
      this.#hanging = setTimeout(() => {
        this.#hangs = true
        options.log.error({ worker: this.pid }, 'a worker hangs before it serves: it is ended')
        refuse('a new worker does not come to serve')
        this.kill()
      }, options.servesWithinMs ?? SERVES_WITHIN_MS)
    })
    const settle = (): void => clearTimeout(this.#hanging)
    // Who forks another for one that died waits for neither.
    this.serving.then(settle, settle)
    this.exited = new Promise((resolve) => {
      worker.once('exit', (status, signal) => {
        options.onNodesGone(this.#nodeIds)
        resolve(endOf(status, signal))
      })
    })
  }

  /** It did not come to serve in time, and was ended. */
  get hangs(): boolean {
    return this.#hangs
  }

  get livedMs(): number {
    return performance.now() - this.#forkedAt
  }

  /** A second call with less hurries. Resolves when the process is gone. */
  async drain(order: DrainOrder): Promise<void> {
    const worker = this.#worker
    const message: ToWorker = { kind: 'drain', ...order }
    if (worker.isConnected()) worker.send(message, () => {})
    const limitMs = order.patienceMs + order.graceMs + KILL_AFTER_GRACE_MS
    const timer = setTimeout(() => this.kill(), limitMs)
    await this.exited
    clearTimeout(timer)
  }

  kill(): void {
    this.#worker.process.kill('SIGKILL')
  }

  #hear(message: FromWorker): void {
    const [nodeId = ''] = this.#nodeIds
    if (message.kind === 'hello') this.#worker.send(this.#options.makeStart(nodeId), () => {})
    if (message.kind === 'node') this.#nodeIds.push(message.nodeId)
  }

  #noteServing(addresses: ServingAddresses): ServingAddresses {
    this.#options.log.info({ worker: this.pid, node: this.#nodeIds[0] }, 'a worker serves')
    return addresses
  }
}

function endOf(status: number | null, signal: string | null): string {
  return signal ?? `exit status ${status}`
}
