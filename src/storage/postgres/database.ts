/**
 * The doors to PostgreSQL. `hot` is a pipelined connection for the short statements of all sessions
 * of this process, and one of its own for deliveries, whose commits nobody else should wait for:
 * each statement is its own transaction, and because everybody behind it waits, a row lock is
 * waited for 50 ms at most. `bulk` is a pool of raw connections for what may
 * be long or large. `kysely` is an ordinary pool for operators' queries. All connect when first
 * used and again after a failure, and every failure leaves as a Failure (see sqlstate.ts).
 */
import { Kysely, PostgresDialect, type PostgresPool, type PostgresPoolClient } from 'kysely'
import { LRUCache } from 'lru-cache'
import { Client, type ClientBase, Pool, type PoolClient, types } from 'pg'
import { parseDatabaseUrl } from '../../base/database-url.ts'
import { Failure, isFailure } from '../../base/failure.ts'
import type { Log } from '../../base/log.ts'
import { METRICS } from '../../base/metrics.ts'
import type { Secret } from '../../base/secret.ts'
import { whenRead } from '../../base/tally.ts'
import type { Tables } from '../schema.ts'
import {
  BULK_LOCK_TIMEOUT_MS,
  HOT_LOCK_TIMEOUT_MS,
  QUERY_OPTIONS,
  STATEMENT_OPTIONS,
} from './connection-settings.ts'
import { type HostedConfig, TextClient } from './hosted-client.ts'
import { Hosts } from './hosts.ts'
import { RawClient, type RawRow } from './raw-connection.ts'
import type { RowMemory } from './row-memory.ts'
import { isHolderAway, sqlStateOf, toFailure } from './sqlstate.ts'
import { StatementMeter } from './statement-meter.ts'

export interface DatabaseOptions {
  /** postgres:// URL as pg understands it, sslmode and the like included; with several hosts too */
  url: Secret
  applicationName: string
  /** pooled connections, `bulk` and `kysely` together; the pipelined ones come on top */
  connectionsMax: number
  log?: Log
  /** how long a query of `kysely` may take; without it, for ever */
  queryTimeoutMs?: number
  /** how long a hot statement waits for a lock; only tests of waiting change it */
  hotLockTimeoutMs?: number
}

/** A prepared statement: one name, one text, for ever. */
export interface Statement {
  name: string
  text: string
}

/** The pipelined connections: a statement waits for those that go before it on the same one. */
export type Pipeline = 'sessions' | 'deliveries'

const KEEPALIVE_DELAY_MS = 10_000
// A peer that is dead without a word (a pulled cable) is noticed by the first statement without an
// answer; pg then destroys the pipeline and every statement on it fails as STORAGE_IN_DOUBT.
const HOT_QUERY_TIMEOUT_MS = 30_000
const BULK_QUERY_TIMEOUT_MS = 60_000
/** PostgreSQL's timer and ours may differ by so much. */
const LOCK_TIMER_MS = 100
const KYSELY_CONNECTIONS_MAX = 2
/** LIMIT: names of domains whose ids are remembered, a hundred octets each. */
const DOMAIN_IDS_MAX = 20_000

export class Database {
  readonly kysely: Kysely<Tables>
  /** By name, as they were: see tenants/domain-ids.ts. */
  readonly domainIds = new LRUCache<string, number>({ max: DOMAIN_IDS_MAX })
  readonly #hosts: Hosts
  readonly #hotConfig: HostedConfig
  readonly #bulkPool: Pool
  readonly #textPool: Pool
  readonly #log: Log | undefined
  readonly #takeBulk: () => Promise<PoolClient> = () => this.#bulkPool.connect()
  readonly #hotClients = new Map<Pipeline, Promise<RawClient>>()
  readonly #unwatch: () => void
  #isClosed = false

  constructor(options: DatabaseOptions) {
    this.#hosts = openHosts(options, (host, before) => {
      if (before === undefined) options.log?.info({ host }, 'this host of DATABASE_URL is used')
      else {
        METRICS.databaseFailovers.of().add()
        const fields = { from: before, to: host }
        options.log?.warn(fields, 'another host of DATABASE_URL is used from now on')
      }
    })
    const config = connectionConfig(options, this.#hosts)
    const kyselyMax = Math.min(KYSELY_CONNECTIONS_MAX, Math.max(1, options.connectionsMax - 1))
    this.#log = options.log
    this.#hotConfig = {
      ...config,
      pipeline: true,
      options: STATEMENT_OPTIONS,
      query_timeout: HOT_QUERY_TIMEOUT_MS,
      lock_timeout: options.hotLockTimeoutMs ?? HOT_LOCK_TIMEOUT_MS,
    }
    this.#bulkPool = this.#openPool('bulk', {
      ...config,
      Client: RawClient as unknown as new () => ClientBase,
      max: Math.max(1, options.connectionsMax - kyselyMax),
      options: STATEMENT_OPTIONS,
      query_timeout: BULK_QUERY_TIMEOUT_MS,
      lock_timeout: BULK_LOCK_TIMEOUT_MS,
    })
    this.#textPool = this.#openPool('kysely', {
      ...config,
      Client: TextClient as unknown as new () => ClientBase,
      max: kyselyMax,
      options: QUERY_OPTIONS,
      query_timeout: options.queryTimeoutMs,
      types: { getTypeParser },
    })
    this.#unwatch = whenRead(() => {
      readPool('bulk', this.#bulkPool)
      readPool('kysely', this.#textPool)
    })
    this.kysely = new Kysely({
      dialect: new PostgresDialect({ pool: withFailures(this.#textPool, this.#hosts) }),
    })
  }

  /**
   * One short statement on a pipelined connection. Statements called for in one tick are sent
   * together and carried out in that order.
   * @throws {Failure} STORAGE_CONFLICT if it had to wait longer than 50 ms for a lock
   */
  async hot(
    statement: Statement,
    values: readonly unknown[],
    pipeline: Pipeline = 'sessions',
  ): Promise<RawRow[]> {
    const beganAt = hotMeter.begin()
    try {
      const connecting = this.#connectHot(pipeline)
      const client = await connecting.catch((failure) => {
        throw counted(hotMeter, failure)
      })
      try {
        return await client.selectRows(statement.name, statement.text, values)
      } catch (error) {
        const failure = counted(hotMeter, toFailure(error, 'sent'))
        if (isUnusable(failure)) this.#dropHot(pipeline, connecting)
        if (isReadOnly(failure)) this.#hosts.doubt(client)
        throw failure
      }
    } finally {
      hotMeter.end(statement.name, beganAt)
    }
  }

  /**
   * A statement that may take long or carry much, on a pooled connection of its own.
   * @param memory for the rows, until it is given back
   */
  async bulk(
    statement: Statement,
    values: readonly unknown[],
    memory?: RowMemory,
  ): Promise<RawRow[]> {
    const beganAt = bulkMeter.begin()
    try {
      for (;;) {
        try {
          return await this.#bulkOnce(statement, values, memory)
        } catch (error) {
          // Behind a pooler it waits for a lock no longer than a hot one: then it comes again.
          const isOver = performance.now() - beganAt > BULK_LOCK_TIMEOUT_MS - LOCK_TIMER_MS
          if (isOver || sqlStateOf(error) !== '55P03') throw counted(bulkMeter, error as Failure)
        }
      }
    } finally {
      bulkMeter.end(statement.name, beganAt)
    }
  }

  async #bulkOnce(
    statement: Statement,
    values: readonly unknown[],
    memory: RowMemory | undefined,
  ): Promise<RawRow[]> {
    const client = await this.#hosts.connect(this.#takeBulk)
    let broken: Failure | undefined
    try {
      const raw = client as unknown as RawClient
      return await raw.selectRows(statement.name, statement.text, values, memory)
    } catch (error) {
      const failure = toFailure(error, 'sent')
      broken = asBroken(failure)
      if (isReadOnly(failure)) this.#hosts.doubt(client)
      throw failure
    } finally {
      client.release(broken ?? false)
    }
  }

  /** Hot, and if a lock is held longer than that allows, once more where waiting harms nobody. */
  async hotOrBulk(statement: Statement, values: readonly unknown[]): Promise<RawRow[]> {
    try {
      return await this.hot(statement, values)
    } catch (error) {
      if (!isFailure(error, 'STORAGE_CONFLICT')) throw error
      return await this.bulk(statement, values)
    }
  }

  /** @throws {Failure} STORAGE_UNAVAILABLE, STORAGE_LOGIN_REFUSED */
  async ping(): Promise<void> {
    try {
      await this.hot(PING, [])
    } catch (error) {
      if (isFailure(error, 'STORAGE_LOGIN_REFUSED')) throw error
      throw new Failure('STORAGE_UNAVAILABLE', (error as Failure).message, error)
    }
  }

  /** Statements that run are waited for; later ones fail as STORAGE_UNAVAILABLE. */
  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#unwatch()
    const hot = [...this.#hotClients.values()].map((connecting) =>
      connecting.then((client) => client.end()).catch(() => undefined),
    )
    // Not kysely.destroy(): what is asked for later would then fail otherwise than everywhere else.
    await Promise.all([...hot, this.#bulkPool.end(), this.#textPool.end()])
  }

  #connectHot(pipeline: Pipeline): Promise<RawClient> {
    if (this.#isClosed)
      return Promise.reject(new Failure('STORAGE_UNAVAILABLE', 'the database has been closed'))
    const connecting = this.#hotClients.get(pipeline) ?? this.#openHot(pipeline)
    this.#hotClients.set(pipeline, connecting)
    return connecting
  }

  #openHot(pipeline: Pipeline): Promise<RawClient> {
    const forget = (): void => this.#forgetHot(pipeline, connecting)
    const connect = async (): Promise<RawClient> => {
      const client = new RawClient(this.#hotConfig)
      await client.connect()
      METRICS.databaseConnects.of('hot').add()
      client.on('error', (error) => {
        forget()
        this.#logBroken(error)
      })
      client.on('end', forget)
      return client
    }
    const connecting = this.#hosts.connect(connect)
    connecting.catch(forget)
    return connecting
  }

  #forgetHot(pipeline: Pipeline, connecting: Promise<RawClient>): void {
    if (this.#hotClients.get(pipeline) === connecting) this.#hotClients.delete(pipeline)
  }

  /** Takes no further statements; those that are under way still get their answers. */
  #dropHot(pipeline: Pipeline, connecting: Promise<RawClient>): void {
    // Once, however many statements were under way.
    if (this.#hotClients.get(pipeline) === connecting) METRICS.databaseBreaks.of().add()
    this.#forgetHot(pipeline, connecting)
    connecting.then((client) => client.end()).catch(() => undefined)
  }

  #openPool(name: PoolName, config: ConstructorParameters<typeof Pool>[0]): Pool {
    const pool = new Pool(config)
    // An idle connection that breaks has already left the pool; without a listener it would crash
    // us.
    pool.on('error', (error) => this.#logBroken(error))
    // pg-pool listens to idle connections only, and an error may come at any time, even in the
    // packet with ReadyForQuery. Nothing is left to do: the next query fails, and release drops it.
    pool.on('connect', (client) => {
      METRICS.databaseConnects.of(name).add()
      client.on('error', () => {})
    })
    return pool
  }

  #logBroken(error: Error): void {
    // While we close, PostgreSQL may end a connection before we do (the embedded one ends next).
    if (this.#isClosed) return
    METRICS.databaseBreaks.of().add()
    this.#log?.warn({ reason: error.message }, 'a database connection broke')
  }
}

/**
 * Opens no connection yet.
 * @throws {Failure} SETTINGS_INVALID if the URL cannot be read; the message does not show it
 */
export function openDatabase(options: DatabaseOptions): Database {
  return new Database(options)
}

function openHosts(
  options: DatabaseOptions,
  onUsed: (host: string, before: string | undefined) => void,
): Hosts {
  const parsed = parseDatabaseUrl(options.url.reveal().toString('utf8'))
  if ('wrong' in parsed) throw new Failure('SETTINGS_INVALID', `DATABASE_URL ${parsed.wrong}`)
  try {
    // The URL is read when a client is made: make one for each, unconnected, to fail early.
    for (const { url } of parsed.hosts) new Client({ connectionString: url })
  } catch {
    throw new Failure('SETTINGS_INVALID', 'DATABASE_URL is not a postgres:// URL that can be read')
  }
  return new Hosts(parsed, onUsed)
}

const PING: Statement = { name: 'ping', text: 'select 1' }

function connectionConfig(options: DatabaseOptions, hosts: Hosts): HostedConfig {
  return {
    hosts,
    application_name: options.applicationName,
    connectionTimeoutMillis: hosts.timeoutMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEPALIVE_DELAY_MS,
  }
}

/**
 * Whether a fresh connection is needed: this one broke (its end may not have been noticed yet), a
 * pooler has lost our prepared statement, a plan is of before a migration, or the server is a
 * standby. Not if the server told us that one behind it is away (a shard, see citus.ts): that is
 * about one domain, and dropping the connection would have all others wait for the next one.
 */
function isUnusable(failure: Failure): boolean {
  if (isHolderAway(failure)) return false
  const sqlState = sqlStateOf(failure)
  return (
    failure.code === 'STORAGE_IN_DOUBT' ||
    sqlState === undefined ||
    sqlState === '26000' ||
    sqlState === '0A000' ||
    sqlState === '25006'
  )
}

/** @returns undefined: its connection goes on */
function asBroken(failure: Failure): Failure | undefined {
  if (!isUnusable(failure)) return undefined
  METRICS.databaseBreaks.of().add()
  return failure
}

const hotMeter = new StatementMeter('hot')
const bulkMeter = new StatementMeter('bulk')
const kyselyMeter = new StatementMeter('kysely')

function counted(meter: StatementMeter, failure: Failure): Failure {
  meter.fail(failure.code)
  return failure
}

type PoolName = 'bulk' | 'kysely'

function readPool(name: PoolName, pool: Pool): void {
  METRICS.poolInUse.of(name).add(pool.totalCount - pool.idleCount)
  METRICS.poolWaiting.of(name).add(pool.waitingCount)
  METRICS.poolMax.of(name).add(pool.options.max)
}

/** Nothing came of it, and the host is none to write to: not even if it says that it is. */
const isReadOnly = (failure: Failure): boolean => sqlStateOf(failure) === '25006'

const OID_INT8 = 20

/** Ids and counters are bigint columns below 2^53: numbers, where pg would give strings. */
const getTypeParser = ((oid: number, format?: 'text') =>
  oid === OID_INT8 ? Number : types.getTypeParser(oid, format)) as typeof types.getTypeParser

/** The pool that Kysely sees: its errors are Failures like everybody's. */
function withFailures(pool: Pool, hosts: Hosts): PostgresPool {
  return {
    async connect(): Promise<PostgresPoolClient> {
      const client = await hosts.connect(() => pool.connect())
      let broken: Failure | undefined
      const query = async (text: string, values: unknown[]): Promise<unknown> => {
        const beganAt = kyselyMeter.begin()
        try {
          return await client.query(text, values)
        } catch (error) {
          const failure = counted(kyselyMeter, toFailure(error, 'sent'))
          broken = asBroken(failure)
          if (isReadOnly(failure)) hosts.doubt(client)
          throw failure
        } finally {
          kyselyMeter.end('query', beganAt)
        }
      }
      return {
        query: query as PostgresPoolClient['query'],
        release: () => client.release(broken ?? false),
      }
    },
    end: () => pool.end(),
  }
}
