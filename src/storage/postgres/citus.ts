/**
 * One database over several PostgreSQL servers, by the extension Citus: the tables of tenants are
 * distributed by domain_id, so that all of a domain lies on one server and each statement about it
 * goes there; what is asked by name, or belongs to nodes, is copied to every server. Which
 * statement goes where is proven by test/plans/routing.test.ts. Nodes notice nothing of it: they
 * connect as before. docs/scaling.md says when it is needed.
 */
import { type Kysely, sql } from 'kysely'
import { Failure } from '../../base/failure.ts'
import type { Tables } from '../schema.ts'
import type { Database } from './database.ts'

/** By domain_id, which is the first column of each; all of a domain together. */
export const DISTRIBUTED_TABLES = [
  'users',
  'credentials',
  'maildrops',
  'bodies',
  'body_chunks',
  'messages',
  'trash',
  // UNLOGGED, as their shards are: a server that crashes frees the leases of its own domains.
  'sessions',
  'known_networks',
  'last_logins',
  'session_log',
  'imported',
] as const

/** Whole on every server: small, seldom changed, and joined with the tables above. */
export const REFERENCE_TABLES = [
  // By name, which is not its key: the first half of every look-up.
  'domains',
  'domain_hosts',
  'oauth_providers',
  'certificates',
  'shared_keys',
  // Joined with sessions by the sweeps and by expiry. Each heartbeat is written on every server.
  'nodes',
  // Keys are networks as well as users, and each login reads some. Written by failures alone.
  'throttles',
] as const

/** Of this schema's own upkeep: only where `popgres migrate` connects to. */
export const LOCAL_TABLES = [
  'schema_migrations',
  'schema_migrations_lock',
  'schema_requirements',
] as const

interface ForeignKey {
  table: string
  name: string
  definition: string
}

/**
 * Distributes what is not distributed yet, all or nothing; rows that are there move. To be called
 * again after each migration.
 * @param db as the owner of the tables, connected to the coordinator
 * @returns the tables that this call has distributed or copied
 * @throws {Failure} STORAGE_REFUSED if the database has no Citus
 */
export async function distribute(db: Database): Promise<string[]> {
  if (!(await hasCitus(db)))
    throw new Failure(
      'STORAGE_REFUSED',
      'the database has no Citus: install it, add it to shared_preload_libraries, and say ' +
        '"create extension citus" in this database',
    )
  return await db.kysely.transaction().execute(distributeMissing)
}

async function hasCitus(db: Database): Promise<boolean> {
  const { rows } = await sql`select from pg_extension where extname = 'citus'`.execute(db.kysely)
  return rows.length === 1
}

async function distributeMissing(transaction: Kysely<Tables>): Promise<string[]> {
  const known = await selectDistributed(transaction)
  const isMissing = (table: string): boolean => !known.has(table)
  const references = REFERENCE_TABLES.filter(isMissing)
  const distributed = DISTRIBUTED_TABLES.filter(isMissing)
  const tables: string[] = [...references, ...distributed]
  if (tables.length === 0) return []
  // One shard after the other: keys between what is copied and what is distributed demand it.
  await sql`set local citus.multi_shard_modify_mode = 'sequential'`.execute(transaction)
  // Citus refuses a table that a local one refers to, and the other way round: without keys first.
  const keys = await selectForeignKeys(transaction, tables)
  for (const { table, name } of keys)
    await sql`alter table ${sql.table(table)} drop constraint ${sql.ref(name)}`.execute(transaction)
  for (const table of references)
    await sql`select create_reference_table(${table}::regclass)`.execute(transaction)
  for (const table of distributed) await distributeTable(transaction, table)
  for (const { table, name, definition } of keys)
    await sql`alter table ${sql.table(table)}
      add constraint ${sql.ref(name)} ${sql.raw(definition)}`.execute(transaction)
  return tables
}

/** The first one says how many shards there are (citus.shard_count), the others lie beside it. */
async function distributeTable(
  transaction: Kysely<Tables>,
  table: (typeof DISTRIBUTED_TABLES)[number],
): Promise<void> {
  const [first] = DISTRIBUTED_TABLES
  const beside = table === first ? 'none' : first
  await sql`select create_distributed_table(${table}::regclass, 'domain_id',
    colocate_with => ${beside})`.execute(transaction)
}

async function selectDistributed(transaction: Kysely<Tables>): Promise<Set<string>> {
  const { rows } = await sql<{ name: string }>`select c.relname as name
    from pg_dist_partition p join pg_class c on c.oid = p.logicalrelid
    where c.relnamespace = current_schema()::regnamespace`.execute(transaction)
  return new Set(rows.map((row) => row.name))
}

/** Of and to these tables. */
async function selectForeignKeys(
  transaction: Kysely<Tables>,
  tables: readonly string[],
): Promise<ForeignKey[]> {
  const { rows } = await sql<ForeignKey>`select r.relname as "table", c.conname as name,
      pg_get_constraintdef(c.oid) as definition
    from pg_constraint c
      join pg_class r on r.oid = c.conrelid
      join pg_class f on f.oid = c.confrelid
    where c.contype = 'f' and r.relnamespace = current_schema()::regnamespace
      and (r.relname = any (${tables}::text[]) or f.relname = any (${tables}::text[]))
    order by r.relname, c.conname`.execute(transaction)
  return rows
}
