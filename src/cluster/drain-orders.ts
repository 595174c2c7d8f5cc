/**
 * When and how a worker is to end: as its supervisor says, or at once when the supervisor is gone.
 * Signals that reach the whole process group (Ctrl-C, a service manager's SIGTERM, a closed
 * terminal) are left to the supervisor.
 */
import cluster from 'node:cluster'
import type { DrainOrder, ToWorker } from './worker-messages.ts'

/** Without a supervisor nobody accepts connections: what is open is told, briefly. */
const ORPHANED: DrainOrder = { patienceMs: 0, graceMs: 500 }

export class DrainOrders {
  readonly first: Promise<DrainOrder>
  /** Told again: whatever is waited for, it has been long enough. */
  readonly hurried: Promise<void>
  graceMs = 0
  #resolveFirst = (_: DrainOrder): void => {}
  #resolveHurried = (): void => {}
  #count = 0

  constructor() {
    this.first = new Promise((resolve) => {
      this.#resolveFirst = resolve
    })
    this.hurried = new Promise((resolve) => {
      this.#resolveHurried = resolve
    })
    process.on('message', (message: ToWorker) => {
      if (message.kind === 'drain') this.#receive(message)
    })
    process.on('SIGTERM', () => {
      if (!process.connected) this.#receive(ORPHANED)
    })
    process.on('SIGINT', () => {})
    process.on('SIGHUP', () => {})
    process.on('disconnect', () => this.#receive(ORPHANED))
    // Otherwise node ends a worker that loses its supervisor before it can give its leases back.
    if (cluster.worker !== undefined) cluster.worker.exitedAfterDisconnect = true
  }

  #receive(order: DrainOrder): void {
    this.graceMs = order.graceMs
    this.#count++
    if (this.#count === 1) this.#resolveFirst(order)
    else this.#resolveHurried()
  }
}
