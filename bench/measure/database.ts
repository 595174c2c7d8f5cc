/**
 * What a PostgreSQL server was asked, and what it wrote: statements from pg_stat_statements, WAL
 * from its position and pg_stat_wal. Two readings and their difference tell of what was between.
 */
import pg from 'pg'

export interface Statement {
  query: string
  calls: number
  rows: number
  /** Executing, without planning and the way. */
  millis: number
  walOctets: number
}

export interface DatabaseReading {
  /** By number; without those of the meter itself. */
  statements: Map<string, Statement>
  walOctets: number
  walRecords: number
  /** Pages written whole, since they were the first time changed after a checkpoint. */
  walFullPages: number
  commits: number
}

/** What happened between two readings. */
export interface DatabaseWork extends Omit<DatabaseReading, 'statements'> {
  calls: number
  /** Those that were called, the most often called first. */
  statements: Statement[]
}

// The name keeps the meter's own statements out: all of them speak of pg_stat_….
const READ_STATEMENTS = `
  SELECT queryid::text AS id, min(query) AS query, sum(calls)::float8 AS calls,
         sum(rows)::float8 AS rows, sum(total_exec_time)::float8 AS millis,
         sum(wal_bytes)::float8 AS "walOctets"
    FROM pg_stat_statements
   WHERE query NOT LIKE '%pg_stat_%'
   GROUP BY queryid`

// The position is exact; the records of idle backends come into pg_stat_wal up to 10 s late.
const READ_WAL = `
  SELECT (pg_current_wal_insert_lsn() - '0/0')::float8 AS "walOctets",
         wal_records::float8 AS "walRecords", wal_fpi::float8 AS "walFullPages",
         (SELECT sum(xact_commit)::float8 FROM pg_stat_database) AS commits
    FROM pg_stat_wal`

const minus = (after: Statement, before: Statement | undefined): Statement => ({
  query: after.query,
  calls: after.calls - (before?.calls ?? 0),
  rows: after.rows - (before?.rows ?? 0),
  millis: after.millis - (before?.millis ?? 0),
  walOctets: after.walOctets - (before?.walOctets ?? 0),
})

export function workBetween(before: DatabaseReading, after: DatabaseReading): DatabaseWork {
  const statements = [...after.statements]
    .map(([id, statement]) => minus(statement, before.statements.get(id)))
    .filter(({ calls }) => calls > 0)
    .sort((a, b) => b.calls - a.calls)
  return {
    statements,
    calls: statements.reduce((total, { calls }) => total + calls, 0),
    walOctets: after.walOctets - before.walOctets,
    walRecords: after.walRecords - before.walRecords,
    walFullPages: after.walFullPages - before.walFullPages,
    commits: after.commits - before.commits,
  }
}

/** A connection of its own; pg_stat_statements is to be among the shared_preload_libraries. */
export class DatabaseMeter {
  readonly #client: pg.Client

  /** @param url of a role that may create extensions and checkpoints */
  static async open(url: string): Promise<DatabaseMeter> {
    const client = new pg.Client({ connectionString: url, application_name: 'bench meter' })
    await client.connect()
    await client.query('CREATE EXTENSION IF NOT EXISTS pg_stat_statements')
    return new DatabaseMeter(client)
  }

  private constructor(client: pg.Client) {
    this.#client = client
  }

  async read(): Promise<DatabaseReading> {
    const { rows: wal } = await this.#client.query<Omit<DatabaseReading, 'statements'>>(READ_WAL)
    const { rows } = await this.#client.query<Statement & { id: string }>(READ_STATEMENTS)
    const [first] = wal
    if (first === undefined) throw new Error('pg_stat_wal is empty')
    return { ...first, statements: new Map(rows.map(({ id, ...statement }) => [id, statement])) }
  }

  /** So that WAL is measured from the start of a checkpoint's cycle, or after its full pages. */
  async checkpoint(): Promise<void> {
    await this.#client.query('CHECKPOINT /* pg_stat_ */')
  }

  async close(): Promise<void> {
    await this.#client.end()
  }
}
