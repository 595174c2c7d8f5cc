/**
 * What a fault is, and what it may do to the cluster that is tortured. A fault is a
 * `Fault` that a file in faults/ exports, and a line in faults/all.ts.
 *
 * Rules for a fault:
 * - It breaks something, waits, and heals it. When `inject` ends, also by throwing, everything that it
 *   broke is whole again: its nodes run, its proxies are healed, PostgreSQL accepts connections
 *   (`finally`). It does not wait for the nodes to have noticed.
 * - All choices come from `random`, all lengths of time are bounded, nothing is left behind (processes,
 *   mounts, files outside of `cluster.directory`).
 * - It tells the history what clients and checker must know (see `Windows` below), BEFORE it breaks
 *   anything, and closes the window AFTER it has healed.
 * - One fault is injected at a time; the clients go on all the while.
 */
import type { Ending, NodeProcess } from '../support/node-process.ts'
import type { DatabaseProxy } from './database-proxy.ts'
import type { Random } from './random.ts'

export interface Fault {
  /** As it is in the report, e.g. `kill-worker`. */
  readonly name: string
  /** How long `inject` takes, about, in seconds: one that does not fit into the rest is not begun. */
  readonly seconds: number
  /** A long one: a run of two minutes has at most one of these, chosen by the seed. */
  readonly isLong?: boolean
  /**
   * Called once, before the cluster starts: may change how it will be started. Resolves with what
   * undoes it after the cluster has stopped.
   */
  prepare?(plan: ClusterPlan): Promise<() => Promise<void>>
  /**
   * Why it cannot be injected on this machine (no root, no program …), or undefined. The reason is
   * printed and reported as a named skip.
   */
  unavailable?(cluster: TortureCluster): Promise<string | undefined>
  inject(context: FaultContext): Promise<void>
}

export interface FaultContext {
  readonly cluster: TortureCluster
  readonly random: Random
  readonly windows: Windows
  /** Aborted when the run ends early: heal and return. */
  readonly signal: AbortSignal
  /** One line for the report and the history: what exactly was done (which pid, which node …). */
  note(detail: string): void
}

/**
 * Spans of time in which the checker allows what it would not allow otherwise:
 * - `leases-lost`: PostgreSQL has crashed, was killed or failed over: the table of leases (unlogged) is
 *   emptied. From before the kill to when it accepts writes again. A session from before and one from
 *   after may overlap for at most one heartbeat (and what it takes to notice); the older one can
 *   delete nothing, window or not.
 * - `silenced`: the clients of this node may be told nothing, though their connections are open (its
 *   worker is stopped, its event loop is full): meanwhile another node may rightly take the maildrop over.
 *   Until after SIGCONT or the like. What such a session is *told* as if it still had the maildrop is
 *   a violation, window or not.
 * A mere cut or slow connection to PostgreSQL needs no window.
 */
export interface Windows {
  /** @returns to be called once it is over. */
  open(kind: WindowKind, node?: TortureNode): () => void
}

type WindowKind = 'leases-lost' | 'silenced'

/** May be changed by `prepare`. */
export interface ClusterPlan {
  /**
   * Where PostgreSQL and everything else of the run lies; PostgreSQL's account can go there. Default:
   * a new directory in the temporary one. May be set to e.g. a tmpfs that `prepare` has mounted.
   */
  directory: string
  /** `name=value`, of PostgreSQL; later ones win. The defaults have fsync off: no fault crashes Linux. */
  parameters: string[]
  /** Settings of all nodes. */
  env: Record<string, string>
  /** Options of `node` itself for supervisors and workers of all nodes, e.g. `--import=file:…`. */
  nodeOptions: string[]
}

export interface TortureCluster {
  /** Of the run; for scratch files, and a replica's data. PostgreSQL's account can pass it. */
  readonly directory: string
  /** 2 or 3 of them; all run while no fault is injected. */
  readonly nodes: readonly TortureNode[]
  /** The one that all proxies lead to. */
  readonly postgres: TorturePostgres
  /**
   * From now on another server is the cluster's PostgreSQL (a promoted replica): all proxies lead new
   * connections there, `postgres` is it, and it is stopped at the end. It must have the same roles,
   * passwords and database. The old one is the fault's to stop and to remove.
   */
  adopt(postgres: TorturePostgres): void
}

/** A PostgreSQL server whose data directory is `<home>/…`; see postgres.ts for how it is started. */
export interface TorturePostgres {
  /** As src/cli/embedded/ calls the directory around the data directory. */
  readonly home: string
  /** The data directory itself. */
  readonly pgData: string
  /** The same after each start. */
  readonly port: number
  /** Of the superuser, over TCP at 127.0.0.1, directly (no proxy): for faults and the final look. */
  readonly url: string
  /** Of the postmaster; 0: it does not run. */
  readonly pid: number
  /** `name=value` for the next start; may be changed. */
  parameters: string[]
  /** SIGKILL to the postmaster; resolves when all its backends are gone too. */
  kill(): Promise<void>
  /** In order, fast. */
  stop(): Promise<void>
  /** Same data, same port, `parameters`; resolves when it accepts connections. */
  start(): Promise<void>
  /** One statement by the superuser on a connection of its own, in the database of the mail. */
  query(statement: string, values?: readonly unknown[]): Promise<Record<string, unknown>[]>
}

export interface TortureNode {
  /** `node 1` … */
  readonly name: string
  /** Stands between this node alone (supervisor and workers) and PostgreSQL. */
  readonly proxy: DatabaseProxy
  readonly workerCount: number
  readonly isRunning: boolean
  /** The current process: log `records`, `record(message, from)`; another one after each start. */
  readonly process: NodeProcess
  /** Of the supervisor. */
  readonly pid: number
  /** Pids of the workers that serve now. */
  workers(): number[]
  /** SIGTERM; resolves when it has ended and no worker of it is left. */
  stop(): Promise<Ending>
  /** SIGKILL of the supervisor alone; resolves when its workers have ended by themselves, too. */
  kill(): Promise<void>
  /**
   * After `stop` or `kill`; resolves when it serves (at other ports than before).
   * @param options for this start only, on top of the plan's: a preload for a wrong clock, say
   */
  start(options?: { env?: Record<string, string>; nodeOptions?: string[] }): Promise<void>
}
