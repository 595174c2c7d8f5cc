/**
 * The role that `popgres serve` logs in as: it owns nothing and can do nothing but a node's work.
 * What it is granted is in the migration that makes grant_serving.
 */
import { randomBytes } from 'node:crypto'
import { sql } from 'kysely'
import { Secret } from '../base/secret.ts'
import { hasCitus } from './postgres/citus.ts'
import { CITUS_SERVING_DEFAULTS, SERVING_DEFAULTS } from './postgres/connection-settings.ts'
import type { Database } from './postgres/database.ts'
import { sqlStateOf } from './postgres/sqlstate.ts'

/** What PostgreSQL lets everybody do, and a node needs for nothing. */
const TAKEN_FROM_ALL = [
  "do $$ begin execute format('revoke temporary on database %I from public', " +
    'current_database()); end $$',
  'revoke connect, temporary on database postgres from public',
  'revoke execute on function lo_create(oid), lo_creat(integer), lo_from_bytea(oid, bytea) ' +
    'from public',
]

/** Of the embedded PostgreSQL; to another one the operator gives a role of any name. */
const EMBEDDED_ROLE = 'popgres_serve'
const PASSWORD_OCTETS = 24

/**
 * Lets a role do what nodes do, and no more. To be called again after each migration.
 * @param db as the owner of the tables
 * @throws {Failure} if there is no such role, or it is the owner
 */
export async function grantServing(db: Database, role: string): Promise<void> {
  await sql`select grant_serving(${role})`.execute(db.kysely)
}

/**
 * What a node asks of its connections becomes the role's defaults: a pooler does not pass it on.
 * @param db as who may alter the role
 * @returns the statements that would do it, if `db` may not
 */
export async function setServingDefaults(db: Database, role: string): Promise<string[]> {
  const name = `"${role.replaceAll('"', '""')}"`
  const defaults = (await hasCitus(db)) ? CITUS_SERVING_DEFAULTS : SERVING_DEFAULTS
  const statements = Object.entries(defaults).map(
    ([parameter, value]) => `alter role ${name} set ${parameter} = '${value}'`,
  )
  try {
    for (const statement of statements) await sql.raw(statement).execute(db.kysely)
    return []
  } catch (error) {
    if (sqlStateOf(error) === '42501') return statements
    throw error
  }
}

/**
 * Makes the role of the embedded PostgreSQL, with another password at each start.
 * @param db as the superuser
 * @param url of `db`
 * @returns the URL with which nodes connect
 */
export async function openServingRole(db: Database, url: Secret): Promise<Secret> {
  const password = randomBytes(PASSWORD_OCTETS).toString('hex')
  const { rows } = await sql`select from pg_roles where rolname = ${EMBEDDED_ROLE}`.execute(
    db.kysely,
  )
  const verb = rows.length === 0 ? 'create' : 'alter'
  // A statement that takes no parameters; role and password are letters and digits.
  await sql.raw(`${verb} role ${EMBEDDED_ROLE} login password '${password}'`).execute(db.kysely)
  await grantServing(db, EMBEDDED_ROLE)
  for (const statement of TAKEN_FROM_ALL) await sql.raw(statement).execute(db.kysely)
  const serving = new URL(url.reveal().toString())
  serving.username = EMBEDDED_ROLE
  serving.password = password
  return new Secret(serving.toString())
}
