/**
 * The supervisor: keeps POPGRES_WORKERS workers, frees the leases of one that died at once, does
 * the node's background work. It speaks no protocol itself; a connection goes to whichever worker
 * accepts it first.
 */
import cluster from 'node:cluster'
import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import type { Keyring } from '../base/keyring.ts'
import type { Log } from '../base/log.ts'
import type { Secret } from '../base/secret.ts'
import { deleteNode } from '../storage/nodes.ts'
import type { Database } from '../storage/postgres/database.ts'
import { Background } from './background.ts'
import type { ServingAddresses, TlsFiles, ToWorker } from './worker-messages.ts'
import { WorkerSlot } from './worker-slot.ts'

export interface SupervisorOptions {
  /** The supervisor's own; the workers open theirs. */
  db: Database
  log: Log
  databaseUrl: Secret
  keyring: Keyring | undefined
  tlsFiles: TlsFiles | undefined
  version: string
  workers: number
  /** Arguments of a worker process, after the script. */
  workerArgs: readonly string[]
}

const V8_FLAGS = [
  // What a session makes is garbage at its end. V8's 16 MiB for young objects are too few for a
  // busy worker: what is still in use when they are full is kept for long. Measured: a tenth of
  // what a poll costs. It grows only with use.
  '--max-semi-space-size=64',
  // Below this V8 does not look for garbage among the old objects. A worker has 25 MiB of them, and
  // V8 counts what lies outside of its heap for the difference to a limit of its own: it marked and
  // moved them up to fourteen times a second, at times for two thirds of a worker's CPU.
  '--initial-old-space-size=128',
]
/** As node:tls wants them. */
const TICKET_KEYS_OCTETS = 48
/** While the database is away, how often freeing a dead worker's leases is tried again. */
const FREE_RETRY_MS = 1_000
/** At the end a database that is away is not waited for: others free the leases after 30 s. */
const LAST_STATEMENT_MS = 1_000

export class Supervisor {
  readonly #options: SupervisorOptions
  readonly #slots: WorkerSlot[]
  readonly #background: Background
  readonly #goneNodeIds = new Set<string>()
  #freeTimer: NodeJS.Timeout | undefined
  #freeing: Promise<void> | undefined

  constructor(options: SupervisorOptions) {
    const { db, log, databaseUrl, keyring, tlsFiles, version } = options
    this.#options = options
    this.#background = new Background(db, log)
    const ticketKeysHex = randomBytes(TICKET_KEYS_OCTETS).toString('hex')
    const makeStart = (nodeId: string): ToWorker => ({
      kind: 'start',
      nodeId,
      version,
      databaseUrl: databaseUrl.reveal().toString(),
      secretKeysHex: keyring?.keys.map((key) => key.reveal().toString('hex')),
      ticketKeysHex,
      tlsFiles,
    })
    const onNodesGone = (nodeIds: readonly string[]): void => {
      for (const nodeId of nodeIds) this.#goneNodeIds.add(nodeId)
      void this.#free()
    }
    this.#slots = Array.from(
      { length: options.workers },
      () => new WorkerSlot({ log, makeStart, onNodesGone }),
    )
  }

  /**
   * @returns where all workers listen
   * @throws {Failure} if a worker cannot listen; then `stop` ends the others
   */
  async start(): Promise<ServingAddresses> {
    // Workers accept by themselves: what the supervisor hands over to a worker that dies is lost,
    // and the peer hangs; what waits in the kernel is another worker's.
    cluster.schedulingPolicy = cluster.SCHED_NONE
    const args = [...this.#options.workerArgs]
    cluster.setupPrimary({ args, execArgv: [...process.execArgv, ...V8_FLAGS] })
    const [addresses] = await Promise.all(this.#slots.map((slot) => slot.start()))
    this.#background.start()
    return addresses ?? { pop3: [], pop3s: [], lmtp: [] }
  }

  /** A second call with less grace hurries the first. Leaves no process. */
  async stop(graceMs: number): Promise<void> {
    const backgroundEnd = this.#background.stop()
    await Promise.all(this.#slots.map((slot) => slot.stop(graceMs)))
    clearTimeout(this.#freeTimer)
    const statements = Promise.all([backgroundEnd, this.#freeing])
    await Promise.race([statements, delay(LAST_STATEMENT_MS, undefined, { ref: false })])
  }

  /** One at a time, until all are free: a login must not wait 30 s for a node that is gone. */
  #free(): Promise<void> {
    clearTimeout(this.#freeTimer)
    this.#freeing ??= this.#freeAll().finally(() => {
      this.#freeing = undefined
    })
    return this.#freeing
  }

  async #freeAll(): Promise<void> {
    const { db, log } = this.#options
    for (const nodeId of this.#goneNodeIds) {
      try {
        await deleteNode(db, nodeId)
        this.#goneNodeIds.delete(nodeId)
        log.info({ node: nodeId }, 'the leases of a worker that ended are free')
      } catch (error) {
        log.debug({ node: nodeId, error }, 'leases could not be freed yet')
        this.#freeTimer = setTimeout(() => void this.#free(), FREE_RETRY_MS).unref()
        return
      }
    }
  }
}
