/**
 * Which host of DATABASE_URL is used. pg knows one host a client, so each client tries the host
 * whose turn it is; one that fails, or that finds a standby, passes the turn on, and who wanted a
 * connection tries again (`connect`). All doors share the turn and remember the host that did, and
 * once another one is in use, connections to the old are cut: what would still be written there is
 * lost with it.
 * It costs the database nothing: since PostgreSQL 14 a server says by itself, when a connection
 * begins, whether it can be written to. Only who says no, or has refused a statement as read-only
 * since, is asked once more, as a pooler repeats what a server said long ago.
 */
import type { EventEmitter } from 'node:events'
import type { ClientConfig } from 'pg'
import type { DatabaseHosts } from '../../base/database-url.ts'
import { Failure } from '../../base/failure.ts'
import { toFailure } from './sqlstate.ts'

interface Host {
  readonly name: string
  readonly config: ClientConfig
  /** A connection that looked writable was not. */
  isDoubted: boolean
  /** Why the last connection to it was none; undefined: it was one. */
  refusal: Failure | undefined
  /** Address and port that its name led to; undefined: none yet, or a Unix socket. */
  peer: string | undefined
}

/** What a try needs of a client of pg. */
export interface HostClient extends EventEmitter {
  connection: EventEmitter & {
    stream: {
      destroy(error: Error): unknown
      remoteAddress?: string | undefined
      remotePort?: number | undefined
    }
  }
  end(): Promise<void>
  /** @returns what WHY_NOT_WRITABLE says */
  askWhyNotWritable(): Promise<string | null>
}

export const WHY_NOT_WRITABLE = `select case
  when pg_is_in_recovery() then 'it is a standby'
  when current_setting('transaction_read_only')::boolean then 'it is read-only' end`

/** LIMIT: for connecting to one host; all together have twice that. */
const CONNECT_TIMEOUT_MS = 5_000

/** A timer may be early by so much. */
const TIMER_MS = 20

/** What a server says of itself, and means that it cannot be written to. */
const SAYS_NO = new Set(['in_hot_standby', 'default_transaction_read_only'])

export class Hosts {
  /** For connecting to one of them. */
  readonly timeoutMs: number
  readonly #hosts: readonly Host[]
  readonly #mustBeWritable: boolean
  readonly #onUsed: (host: string, before: string | undefined) => void
  #turn: Host
  #inUse: Host | undefined
  readonly #clients = new Map<HostClient, Host>()
  /** Errors of clients that have tried a host, not of a pool that has no place. */
  readonly #refused = new WeakSet<object>()

  /** @param onUsed another host than before is used, or the first of several */
  constructor(database: DatabaseHosts, onUsed: (host: string, before: string | undefined) => void) {
    const { hosts, mustBeWritable } = database
    this.timeoutMs = Math.min(CONNECT_TIMEOUT_MS, (2 * CONNECT_TIMEOUT_MS) / hosts.length)
    this.#hosts = hosts.map(({ name, url }) => ({
      name,
      config: { connectionString: url },
      isDoubted: false,
      refusal: undefined,
      peer: undefined,
    }))
    const [first] = this.#hosts
    if (first === undefined) throw new Error('there is a host')
    this.#turn = first
    this.#mustBeWritable = mustBeWritable
    this.#onUsed = onUsed
  }

  /** For a client that is made now. */
  nextTry(): HostTry {
    return new HostTry(this.#turn, this, this.#mustBeWritable)
  }

  /**
   * @param open makes a client or takes one from a pool; called again for each host
   * @throws {Failure} that tells of each host why it is not used
   */
  async connect<T>(open: () => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      try {
        return await open()
      } catch (error) {
        if (!this.#isRefusal(error)) throw toFailure(error, 'connecting')
        if (tries >= this.#hosts.length) throw this.#summary(error)
      }
    }
  }

  /** A statement was refused as read-only: the next connection to that host is asked. */
  doubt(client: unknown): void {
    const host = this.#clients.get(client as HostClient)
    if (host !== undefined) host.isDoubted = true
  }

  /** @param error as its client gives it to who wanted it */
  leave(host: Host, error: Error, why: Error): void {
    this.#refused.add(error)
    host.refusal = toFailure(why, 'connecting')
    if (this.#turn !== host) return
    const next = (this.#hosts.indexOf(host) + 1) % this.#hosts.length
    this.#turn = this.#hosts[next] ?? host
  }

  settle(host: Host, client: HostClient): void {
    host.refusal = undefined
    host.isDoubted = false
    this.#turn = host
    this.#clients.set(client, host)
    client.once('end', () => this.#clients.delete(client))
    const { remoteAddress, remotePort } = client.connection.stream
    host.peer = remoteAddress && `${remoteAddress} ${remotePort}`
    const before = this.#inUse
    this.#inUse = host
    if (before === host || this.#hosts.length === 1) return
    // Another name of the same server: there is nothing to cut.
    if (before !== undefined && host.peer !== undefined && before.peer === host.peer) return
    for (const [other, its] of this.#clients)
      if (its !== host) other.connection.stream.destroy(new Error(`${host.name} is used now`))
    this.#onUsed(host.name, before?.name)
  }

  /** pg-pool gives an error of its own where it was who hung up. */
  #isRefusal(error: unknown): boolean {
    if (!(error instanceof Error)) return false
    return this.#refused.has(error) || this.#refused.has(error.cause as object)
  }

  #summary(last: unknown): Failure {
    if (this.#hosts.length === 1) return toFailure(last, 'connecting')
    const refusals = this.#hosts.map(({ name, refusal }) => ({ name, refusal }))
    const isLogin = refusals.every(({ refusal }) => refusal?.code === 'STORAGE_LOGIN_REFUSED')
    const list = refusals.map(({ name, refusal }) => `${name}: ${reasonOf(refusal)}`).join('; ')
    return new Failure(
      isLogin ? 'STORAGE_LOGIN_REFUSED' : 'STORAGE_UNAVAILABLE',
      `no host of DATABASE_URL can be used: ${list}`,
      new Error(list),
    )
  }
}

function reasonOf(refusal: Failure | undefined): string {
  if (refusal === undefined) return 'it has just been left'
  return refusal.cause instanceof Error ? refusal.cause.message : refusal.message
}

/** One client's try at one host. */
export class HostTry {
  readonly #host: Host
  readonly #hosts: Hosts
  readonly #mustBeWritable: boolean
  #isWritable = true

  constructor(host: Host, hosts: Hosts, mustBeWritable: boolean) {
    this.#host = host
    this.#hosts = hosts
    this.#mustBeWritable = mustBeWritable
  }

  get config(): ClientConfig {
    return this.#host.config
  }

  /** @param connect pg's own */
  async connect(client: HostClient, connect: () => Promise<unknown>): Promise<void> {
    // pg-pool listens later: whatever comes until then is in what `connect` or a query fails with.
    client.on('error', () => {})
    client.connection.on('parameterStatus', (status) => this.#hear(status))
    const beganAt = performance.now()
    try {
      await connect()
      if (this.#mustBeWritable && (!this.#isWritable || this.#host.isDoubted))
        await this.#ask(client)
    } catch (error) {
      // Two timers run, pg's and pg-pool's, and neither hangs up with a word of time.
      const { timeoutMs } = this.#hosts
      const isLate = performance.now() - beganAt > timeoutMs - TIMER_MS
      const why = isLate ? new Error(`no answer for ${Math.round(timeoutMs / 1_000)} s`) : error
      this.#hosts.leave(this.#host, error as Error, why as Error)
      client.end().catch(() => {})
      throw error
    }
    this.#hosts.settle(this.#host, client)
  }

  #hear({ parameterName, parameterValue }: ParameterStatus): void {
    if (SAYS_NO.has(parameterName) && parameterValue === 'on') this.#isWritable = false
  }

  async #ask(client: HostClient): Promise<void> {
    const hangUp = () => client.connection.stream.destroy(new Error('timeout expired'))
    const timer = setTimeout(hangUp, this.#hosts.timeoutMs)
    try {
      const why = await client.askWhyNotWritable()
      if (why !== null)
        throw new Failure('STORAGE_UNAVAILABLE', `the database cannot: ${why}`, new Error(why))
    } finally {
      clearTimeout(timer)
    }
  }
}

interface ParameterStatus {
  parameterName: string
  parameterValue: string
}
