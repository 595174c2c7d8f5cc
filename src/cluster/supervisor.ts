/**
 * The supervisor: keeps POPGRES_WORKERS workers, frees the leases of one that died at once, does
 * the node's background work, and at a reload replaces the workers one by one. It speaks no
 * protocol itself; a connection goes to whichever worker accepts it first. The listening sockets
 * are shared by all workers and open as long as one of them has them, so that a reload, where the
 * successor listens before the predecessor leaves, refuses nobody.
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
import type { DrainOrder, ServingAddresses, TlsFiles } from './worker-messages.ts'
import { type MakeStart, WorkerSlot } from './worker-slot.ts'

/** What can change while the node runs. */
export interface CrewPlan {
  /** The supervisor's own, of the same database; the workers open theirs. */
  db: Database
  databaseUrl: Secret
  keyring: Keyring | undefined
  tlsFiles: TlsFiles | undefined
  workers: number
  /** Texts of the settings, without the secrets. */
  settings: Readonly<Record<string, string>>
}

export interface SupervisorOptions {
  log: Log
  version: string
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
const AT_ONCE: DrainOrder = { patienceMs: 0, graceMs: 0 }

export class Supervisor {
  readonly #options: SupervisorOptions
  readonly #slots: WorkerSlot[] = []
  readonly #ticketKeysHex = randomBytes(TICKET_KEYS_OCTETS).toString('hex')
  readonly #goneNodeIds = new Set<string>()
  #db: Database
  #background: Background
  #sessionLogMonths: number
  #freeTimer: NodeJS.Timeout | undefined
  #freeing: Promise<void> | undefined
  #isDraining = false
  #isStopping = false

  constructor(options: SupervisorOptions, plan: CrewPlan) {
    this.#options = options
    this.#db = plan.db
    this.#sessionLogMonths = monthsOf(plan)
    this.#background = this.#makeBackground(plan.db)
    this.#addSlots(plan)
  }

  /** From the order to end on: no new client should be sent here. */
  get isDraining(): boolean {
    return this.#isDraining
  }

  /** Says so; `stop` follows. */
  beginDraining(): void {
    this.#isDraining = true
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

  /**
   * One worker after the other is replaced by one of the new plan and leaves as `order` says; then
   * workers are added, or the last ones leave. Not to be called again before it has resolved.
   * @param cut stops it between two workers
   * @returns false: it was cut
   * @throws {Failure} SETTINGS_INVALID if a new worker does not serve; those after it are as before
   */
  async reload(plan: CrewPlan, order: DrainOrder, cut: AbortSignal): Promise<boolean> {
    const before = this.#slots.length
    for (const slot of this.#slots.slice(0, plan.workers)) {
      if (cut.aborted || this.#isStopping) return false
      await slot.replace(this.#makeStartOf(plan), order)
    }
    if (cut.aborted || this.#isStopping) return false
    await this.#grow(plan, before)
    await Promise.all(this.#slots.slice(plan.workers).map((slot) => slot.stop(order)))
    if (this.#isStopping) return false
    this.#slots.length = plan.workers
    this.#sessionLogMonths = monthsOf(plan)
    await this.#useDatabase(plan.db)
    return true
  }

  /** A second call with less hurries the first. Leaves no process. */
  async stop(order: DrainOrder): Promise<void> {
    this.#isDraining = true
    this.#isStopping = true
    const backgroundEnd = this.#background.stop()
    await Promise.all(this.#slots.map((slot) => slot.stop(order)))
    clearTimeout(this.#freeTimer)
    const statements = Promise.all([backgroundEnd, this.#freeing])
    await Promise.race([statements, delay(LAST_STATEMENT_MS, undefined, { ref: false })])
  }

  #addSlots(plan: CrewPlan): void {
    const { log } = this.#options
    const makeStart = this.#makeStartOf(plan)
    const onNodesGone = (nodeIds: readonly string[]): void => {
      for (const nodeId of nodeIds) this.#goneNodeIds.add(nodeId)
      void this.#free()
    }
    while (this.#slots.length < plan.workers)
      this.#slots.push(new WorkerSlot({ log, makeStart, onNodesGone }))
  }

  /** All of the new places, or none. */
  async #grow(plan: CrewPlan, before: number): Promise<void> {
    this.#addSlots(plan)
    const added = this.#slots.slice(before)
    try {
      await Promise.all(added.map((slot) => slot.start()))
    } catch (error) {
      await Promise.all(added.map((slot) => slot.stop(AT_ONCE)))
      if (!this.#isStopping) this.#slots.length = before
      throw error
    }
  }

  #makeStartOf({ settings, databaseUrl, keyring, tlsFiles }: CrewPlan): MakeStart {
    return (nodeId) => ({
      kind: 'start',
      nodeId,
      version: this.#options.version,
      settings,
      databaseUrl: databaseUrl.reveal().toString(),
      secretKeysHex: keyring?.keys.map((key) => key.reveal().toString('hex')),
      ticketKeysHex: this.#ticketKeysHex,
      tlsFiles,
    })
  }

  #makeBackground(db: Database): Background {
    return new Background(db, this.#options.log, () => this.#sessionLogMonths)
  }

  async #useDatabase(db: Database): Promise<void> {
    if (db === this.#db) return
    this.#db = db
    await this.#background.stop()
    this.#background = this.#makeBackground(db)
    if (!this.#isStopping) this.#background.start()
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
    const { log } = this.#options
    for (const nodeId of this.#goneNodeIds) {
      try {
        await deleteNode(this.#db, nodeId)
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

const monthsOf = ({ settings }: CrewPlan): number => Number(settings.POPGRES_SESSION_LOG_MONTHS)
