/**
 * Brings the schema up to date and says whether a node may use it. Migrations are the SQL files of
 * migrations/, forward only, each in a transaction of its own, so that nodes that serve meanwhile
 * wait for the locks of one; Kysely's Migrator keeps the record and takes an advisory lock, so
 * several may begin at once. Each file's first line
 * names the lowest node version that can live with it.
 */
import { readdir, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { type Kysely, type Migration, type MigrationResult, Migrator, sql } from 'kysely'
import { Failure } from '../base/failure.ts'
import type { Log } from '../base/log.ts'
import type { Database } from './postgres/database.ts'
import { toFailure } from './postgres/sqlstate.ts'
import type { Tables } from './schema.ts'

// Two folders up, from src/storage as from dist/storage.
const MIGRATIONS = new URL('../../migrations/', import.meta.url)
const HEADER = /^-- lowest-node-version: (\d+\.\d+\.\d+)\r?\n/
const SERVER_VERSION_MIN = 150_000
/** The last one that Citus does not take in a database whose tables it has distributed. */
const LAST_FOR_ONE_SERVER = '0016_moving_in'

interface MigrationFile {
  name: string
  text: string
  lowestNodeVersion: string
}

/**
 * Applies what is missing; a database that is newer than these files is left as it is.
 * @returns the names of what this call has applied
 * @throws {Failure} STORAGE_REFUSED if a migration fails (nothing of it stays) or the server is
 *   older than PostgreSQL 15
 */
export async function migrate(db: Database, log: Log): Promise<{ applied: string[] }> {
  await checkServerVersion(db)
  const files = await readMigrations()
  const known = await selectApplied(db)
  if (files.every((file) => known.has(file.name))) return { applied: [] }
  if (!known.has(LAST_FOR_ONE_SERVER)) await refuseDistributed(db)
  const migrator = new Migrator({
    db: db.kysely,
    provider: { getMigrations: async () => toMigrations(files) },
    migrationTableName: 'schema_migrations',
    migrationLockTableName: 'schema_migrations_lock',
  })
  const applied: string[] = []
  for (;;) {
    const { error, results = [] } = await migrator.migrateUp()
    if (error !== undefined) throw migrationFailure(error, results)
    if (results.length === 0) break
    for (const { migrationName } of results) {
      log.info({ migration: migrationName }, 'migration applied')
      applied.push(migrationName)
    }
  }
  return { applied }
}

async function refuseDistributed(db: Database): Promise<void> {
  if (!(await existsTable(db, 'pg_dist_partition'))) return
  const { rows } = await sql`select from pg_dist_partition
    where logicalrelid = to_regclass('users')`.execute(db.kysely)
  if (rows.length > 0)
    throw new Failure(
      'STORAGE_REFUSED',
      'the tables were distributed by a version that is too old for Citus to change them: copy ' +
        'the rows to a new database, as docs/scaling.md says',
    )
}

function migrationFailure(error: unknown, results: readonly MigrationResult[]): Failure {
  const failed = results.find((result) => result.status === 'Error')
  const failure = toFailure(error, 'sent')
  const where = failed === undefined ? '' : `${failed.migrationName}: `
  return new Failure(failure.code, `migration failed: ${where}${failure.message}`, failure.cause)
}

/**
 * @param nodeVersion of this node, `x.y.z`
 * @throws {Failure} SCHEMA_TOO_NEW if an applied migration demands a newer node; SCHEMA_TOO_OLD if
 *   one of ours has not been applied
 */
export async function checkSchema(db: Database, nodeVersion: string): Promise<void> {
  const applied = await selectApplied(db)
  const missing = (await readMigrations()).filter((file) => !applied.has(file.name))
  const demanding = await selectDemanding(db, nodeVersion)
  if (demanding !== undefined)
    throw new Failure(
      'SCHEMA_TOO_NEW',
      `the database (${demanding.migration}) needs a node of version ` +
        `${demanding.lowest_node_version} or newer; this one is ${nodeVersion}`,
    )
  const [first] = missing
  if (first !== undefined)
    throw new Failure(
      'SCHEMA_TOO_OLD',
      `the database has not been migrated (${first.name} is missing): run "popgres migrate"`,
    )
}

async function selectDemanding(
  db: Database,
  nodeVersion: string,
): Promise<Tables['schema_requirements'] | undefined> {
  if (!(await existsTable(db, 'schema_requirements'))) return undefined
  const rows = await db.kysely
    .selectFrom('schema_requirements')
    .selectAll()
    .orderBy('migration', 'desc')
    .execute()
  return rows.find((row) => isOlder(nodeVersion, row.lowest_node_version))
}

async function selectApplied(db: Database): Promise<Set<string>> {
  if (!(await existsTable(db, 'schema_migrations'))) return new Set()
  const rows = await db.kysely.selectFrom('schema_migrations').select('name').execute()
  return new Set(rows.map((row) => row.name))
}

async function existsTable(db: Database, name: string): Promise<boolean> {
  const { rows } = await sql<{ exists: boolean }>`
    select to_regclass(${name}) is not null as exists`.execute(db.kysely)
  return rows[0]?.exists === true
}

async function checkServerVersion(db: Database): Promise<void> {
  const { rows } = await sql<{ version: number; shown: string }>`
    select current_setting('server_version_num')::int as version,
           current_setting('server_version') as shown`.execute(db.kysely)
  const [server] = rows
  if (server !== undefined && server.version < SERVER_VERSION_MIN)
    throw new Failure(
      'STORAGE_REFUSED',
      `PostgreSQL 15 or newer is needed; the server is ${server.shown}`,
    )
}

async function readMigrations(): Promise<MigrationFile[]> {
  const names = (await readdir(MIGRATIONS)).filter((name) => name.endsWith('.sql')).sort()
  return await Promise.all(
    names.map(async (name) => {
      const text = await readFile(fileURLToPath(new URL(name, MIGRATIONS)), 'utf8')
      return parseMigration(name.slice(0, -'.sql'.length), text)
    }),
  )
}

function parseMigration(name: string, text: string): MigrationFile {
  const lowestNodeVersion = HEADER.exec(text)?.[1]
  if (lowestNodeVersion === undefined)
    throw new Error(`migrations/${name}.sql does not begin with "-- lowest-node-version: x.y.z"`)
  return { name, text, lowestNodeVersion }
}

function toMigrations(files: readonly MigrationFile[]): Record<string, Migration> {
  const toMigration = ({ name, text, lowestNodeVersion }: MigrationFile): Migration => ({
    up: async (db: Kysely<Tables>) => {
      for (const statement of splitStatements(text)) await sql.raw(statement).execute(db)
      await db
        .insertInto('schema_requirements')
        .values({ migration: name, lowest_node_version: lowestNodeVersion })
        .execute()
    },
  })
  return Object.fromEntries(files.map((file) => [file.name, toMigration(file)]))
}

// What has no semicolon of its own: a comment, a text, the body of a function.
const STATEMENT = /(?:--.*|'[^']*'|\$\$[\s\S]*?\$\$|[^;])+?;/g

/**
 * One at a time: some of them Citus passes on to its servers as the text in which they came.
 * @param text each statement ends with a semicolon; no quoting but '…' and $$…$$
 */
export function splitStatements(text: string): string[] {
  return text.match(STATEMENT) ?? []
}

function isOlder(version: string, other: string): boolean {
  const left = version.split(/[.+-]/, 3).map(Number)
  const right = other.split('.').map(Number)
  const index = right.findIndex((part, at) => part !== left[at])
  return index !== -1 && !((left[index] ?? 0) >= (right[index] ?? 0))
}
