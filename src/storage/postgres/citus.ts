/**
 * One database over several PostgreSQL servers, by the extension Citus: the tables of tenants are
 * distributed by domain_id, so that all of a domain lies on one server and each statement about it
 * goes there; what is asked by name is copied to every server; what belongs to nodes and to nobody
 * stays at the coordinator, which nodes connect to as before: so a server that is away costs its
 * own domains alone (holders.ts). Which statement goes where is proven by
 * test/plans/routing.test.ts. docs/scaling.md says when it is needed.
 */
import { type Kysely, sql } from 'kysely'
import { Failure } from '../../base/failure.ts'
import type { Tables } from '../schema.ts'
import { HAS_CITUS_SQL } from './connection-settings.ts'
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
  'legal_holds',
  'held_users',
  // One row for a domain that has a quota, beside its maildrops.
  'domain_quotas',
] as const

/** Whole on every server: small, seldom changed, and joined with the tables above. */
export const REFERENCE_TABLES = [
  // By name, which is not its key: the first half of every look-up.
  'domains',
  'domain_hosts',
  // An alias may name users of other domains: from here to any shard.
  'aliases',
  'oauth_providers',
  'old_servers',
  'certificates',
  'shared_keys',
] as const

/** Only where nodes and `popgres migrate` connect to: the coordinator. */
export const LOCAL_TABLES = [
  // A heartbeat must need no other server.
  'nodes',
  // Nor a failed login. Keys are networks as well as users, so no server is theirs.
  'throttles',
  // One row, written every few seconds by whoever does the background work.
  'leaders',
  'schema_migrations',
  'schema_migrations_lock',
  'schema_requirements',
] as const

interface Moved {
  distributed: string[]
  /** to the coordinator */
  broughtBack: string[]
}

interface ForeignKey {
  table: string
  name: string
  definition: string
}

/** A migration makes it for one server: this is how Citus says where a domain lies. */
const DOMAIN_HOLDER = `create or replace function domain_holder(of_domain integer) returns integer
  language sql stable as $$
    select p.groupid from pg_catalog.pg_dist_placement p
    where p.shardid = pg_catalog.get_shard_id_for_distribution_column('users', of_domain) $$`

/**
 * Distributes what is not distributed yet, all or nothing; rows that are there move. What earlier
 * versions have distributed and this one wants at the coordinator alone is brought back. To be
 * called again after each migration.
 * @param db as the owner of the tables, connected to the coordinator
 * @returns what this call has moved
 * @throws {Failure} STORAGE_REFUSED if the database has no Citus
 */
export async function distribute(db: Database): Promise<Moved> {
  if (!(await hasCitus(db)))
    throw new Failure(
      'STORAGE_REFUSED',
      'the database has no Citus: install it, add it to shared_preload_libraries, and say ' +
        '"create extension citus" in this database',
    )
  return await db.kysely.transaction().execute(distributeMissing)
}

export async function hasCitus(db: Database): Promise<boolean> {
  const { rows } = await sql`select 1 where ${sql.raw(HAS_CITUS_SQL)}`.execute(db.kysely)
  return rows.length === 1
}

async function distributeMissing(transaction: Kysely<Tables>): Promise<Moved> {
  const known = await selectDistributed(transaction)
  const isMissing = (table: string): boolean => !known.has(table)
  const references = REFERENCE_TABLES.filter(isMissing)
  const distributed = DISTRIBUTED_TABLES.filter(isMissing)
  const broughtBack: string[] = LOCAL_TABLES.filter((table) => known.has(table))
  for (const table of broughtBack)
    await sql`select undistribute_table(${table}::regclass)`.execute(transaction)
  await sql.raw(DOMAIN_HOLDER).execute(transaction)
  const tables: string[] = [...references, ...distributed]
  if (tables.length === 0) return { distributed: [], broughtBack }
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
  return { distributed: tables, broughtBack }
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
