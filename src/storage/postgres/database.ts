/**
 * The doors to PostgreSQL. `hot` is a pipelined connection for the short statements of all sessions
 * of this process, and one of its own for deliveries, whose commits nobody else should wait for:
 * each statement is its own transaction, and because everybody behind it waits, a row lock is
 * waited for 50 ms at most. `bulk` is a pool of raw connections for what may
 * be long or large. `kysely` is an ordinary pool for operators' queries. All connect when first
 * used and again after a failure, and every failure leaves as a Failure (see sqlstate.ts).
 */
import { Kysely, PostgresDialect, type PostgresPool, type PostgresPoolClient } from 'kysely'
import { type ClientBase, type ClientConfig, Pool, types } from 'pg'
import { Failure, isFailure } from '../../base/failure.ts'
import type { Log } from '../../base/log.ts'
import type { Secret } from '../../base/secret.ts'
import type { Tables } from '../schema.ts'
import { RawClient, type RawRow, TextClient } from './raw-connection.ts'
import type { RowMemory } from './row-memory.ts'
import { sqlStateOf, toFailure } from './sqlstate.ts'

export interface DatabaseOptions {
  /** postgres:// URL as pg understands it, sslmode and the like included */
  url: Secret
  applicationName: string
  /** pooled connections, `bulk` and `kysely` together; the pipelined ones come on top */
  connectionsMax: number
  log?: Log
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

const CONNECT_TIMEOUT_MS = 5_000
const KEEPALIVE_DELAY_MS = 10_000
// A peer that is dead without a word (a pulled cable) is noticed by the first statement without an
// answer; pg then destroys the pipeline and every statement on it fails as STORAGE_IN_DOUBT.
const HOT_QUERY_TIMEOUT_MS = 30_000
const BULK_QUERY_TIMEOUT_MS = 60_000
// Sent as startup parameters. Behind PgBouncer: `ignore_startup_parameters = lock_timeout,options`,
// and `ALTER ROLE … SET lock_timeout = '50ms'` (the retries through `bulk` then wait no longer) and
// the same for what is in STATEMENT_OPTIONS.
const HOT_LOCK_TIMEOUT_MS = 50
const BULK_LOCK_TIMEOUT_MS = 20_000
// A statement is planned once, for whatever values and whatever size its tables have by then:
// planning costs more than carrying out, PostgreSQL would go on planning where it takes an array
// for longer than it is, and a table that was empty then would be read whole ever after.
export const STATEMENT_OPTIONS =
  '-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_bitmapscan=off'
const KYSELY_CONNECTIONS_MAX = 2

export class Database {
  readonly kysely: Kysely<Tables>
  readonly #hotConfig: ClientConfig
  readonly #bulkPool: Pool
  readonly #textPool: Pool
  readonly #log: Log | undefined
  readonly #hotClients = new Map<Pipeline, Promise<RawClient>>()
  #isClosed = false

  constructor(options: DatabaseOptions) {
    const config = connectionConfig(options)
    const kyselyMax = Math.min(KYSELY_CONNECTIONS_MAX, Math.max(1, options.connectionsMax - 1))
    this.#log = options.log
    this.#hotConfig = {
      ...config,
      pipeline: true,
      options: STATEMENT_OPTIONS,
      query_timeout: HOT_QUERY_TIMEOUT_MS,
      lock_timeout: options.hotLockTimeoutMs ?? HOT_LOCK_TIMEOUT_MS,
    }
    this.#bulkPool = this.#openPool({
      ...config,
      Client: RawClient as unknown as new () => ClientBase,
      max: Math.max(1, options.connectionsMax - kyselyMax),
      options: STATEMENT_OPTIONS,
      query_timeout: BULK_QUERY_TIMEOUT_MS,
      lock_timeout: BULK_LOCK_TIMEOUT_MS,
    })
    this.#textPool = this.#openPool({
      ...config,
      Client: TextClient as unknown as new () => ClientBase,
      max: kyselyMax,
      types: { getTypeParser },
    })
    this.kysely = new Kysely({
      dialect: new PostgresDialect({ pool: withFailures(this.#textPool) }),
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
    const connecting = this.#connectHot(pipeline)
    const client = await connecting.catch((error) => {
      throw toFailure(error, 'connecting')
    })
    try {
      return await client.selectRows(statement.name, statement.text, values)
    } catch (error) {
      const failure = toFailure(error, 'sent')
      if (isUnusable(failure)) this.#dropHot(pipeline, connecting)
      throw failure
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
    const client = await this.#bulkPool.connect().catch((error) => {
      throw toFailure(error, 'connecting')
    })
    let broken: Failure | undefined
    try {
      const raw = client as unknown as RawClient
      return await raw.selectRows(statement.name, statement.text, values, memory)
    } catch (error) {
      const failure = toFailure(error, 'sent')
      if (isUnusable(failure)) broken = failure
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
    const client = new RawClient(this.#hotConfig)
    const connecting = client.connect().then(
      () => client,
      (error) => {
        this.#forgetHot(pipeline, connecting)
        throw error
      },
    )
    client.on('error', (error) => {
      this.#forgetHot(pipeline, connecting)
      this.#logBroken(error)
    })
    client.on('end', () => this.#forgetHot(pipeline, connecting))
    return connecting
  }

  #forgetHot(pipeline: Pipeline, connecting: Promise<RawClient>): void {
    if (this.#hotClients.get(pipeline) === connecting) this.#hotClients.delete(pipeline)
  }

  /** Takes no further statements; those that are under way still get their answers. */
  #dropHot(pipeline: Pipeline, connecting: Promise<RawClient>): void {
    this.#forgetHot(pipeline, connecting)
    connecting.then((client) => client.end()).catch(() => undefined)
  }

  #openPool(config: ConstructorParameters<typeof Pool>[0]): Pool {
    const pool = new Pool(config)
    // An idle connection that breaks has already left the pool; without a listener it would crash
    // us.
    pool.on('error', (error) => this.#logBroken(error))
    // pg-pool listens to idle connections only, and an error may come at any time, even in the
    // packet with ReadyForQuery. Nothing is left to do: the next query fails, and release drops it.
    pool.on('connect', (client) => client.on('error', () => {}))
    return pool
  }

  #logBroken(error: Error): void {
    // While we close, PostgreSQL may end a connection before we do (the embedded one ends next).
    if (this.#isClosed) return
    this.#log?.warn({ reason: error.message }, 'a database connection broke')
  }
}

/**
 * Opens no connection yet.
 * @throws {Failure} SETTINGS_INVALID if the URL cannot be read; the message does not show it
 */
export function openDatabase(options: DatabaseOptions): Database {
  try {
    // The URL is read when a client is made: make one now, unconnected, to fail early and once.
    new RawClient(connectionConfig(options))
  } catch {
    throw new Failure('SETTINGS_INVALID', 'DATABASE_URL is not a postgres:// URL that can be read')
  }
  return new Database(options)
}

const PING: Statement = { name: 'ping', text: 'select 1' }

function connectionConfig(options: DatabaseOptions): ClientConfig {
  return {
    connectionString: options.url.reveal().toString('utf8'),
    application_name: options.applicationName,
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
    keepAliveInitialDelayMillis: KEEPALIVE_DELAY_MS,
  }
}

/**
 * Whether a fresh connection is needed: this one broke (its end may not have been noticed yet), a
 * pooler has lost our prepared statement, a plan is of before a migration, or the server is a
 * standby.
 */
function isUnusable(failure: Failure): boolean {
  const sqlState = sqlStateOf(failure)
  return (
    failure.code === 'STORAGE_IN_DOUBT' ||
    sqlState === undefined ||
    sqlState === '26000' ||
    sqlState === '0A000' ||
    sqlState === '25006'
  )
}

const OID_INT8 = 20

/** Ids and counters are bigint columns below 2^53: numbers, where pg would give strings. */
const getTypeParser = ((oid: number, format?: 'text') =>
  oid === OID_INT8 ? Number : types.getTypeParser(oid, format)) as typeof types.getTypeParser

/** The pool that Kysely sees: its errors are Failures like everybody's. */
function withFailures(pool: Pool): PostgresPool {
  return {
    async connect(): Promise<PostgresPoolClient> {
      const client = await pool.connect().catch((error) => {
        throw toFailure(error, 'connecting')
      })
      let broken: Failure | undefined
      const query = async (text: string, values: unknown[]): Promise<unknown> => {
        try {
          return await client.query(text, values)
        } catch (error) {
          const failure = toFailure(error, 'sent')
          if (isUnusable(failure)) broken = failure
          throw failure
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
