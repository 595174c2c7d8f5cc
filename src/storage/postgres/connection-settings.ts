/**
 * What a connection asks of PostgreSQL, besides a database. It is sent when the connection begins.
 * A pooler that shares connections drops it (`ignore_startup_parameters = lock_timeout,options` of
 * PgBouncer), so the role that nodes log in as has the same as its defaults: see serving-role.ts.
 */
import type { Statement } from './database.ts'

/** Everybody behind a hot statement waits while it waits for a row. */
export const HOT_LOCK_TIMEOUT_MS = 50
export const BULK_LOCK_TIMEOUT_MS = 20_000

// A statement is planned once, for whatever values and whatever size its tables have by then:
// planning costs more than carrying out, PostgreSQL would go on planning where it takes an array
// for longer than it is, and a table that was empty then would be read whole ever after.
// Citus alone plans with the values, as they say where a statement goes: see PLAN_EACH_TIME.
const PLANNED_ONCE = {
  plan_cache_mode: 'force_generic_plan',
  enable_seqscan: 'off',
  enable_bitmapscan: 'off',
}

/** Of hot and bulk statements. */
export const STATEMENT_OPTIONS = optionsOf(PLANNED_ONCE)

/** Of operators' queries, whatever the role's defaults are. */
export const QUERY_OPTIONS = optionsOf({
  lock_timeout: '0',
  plan_cache_mode: 'auto',
  enable_seqscan: 'on',
  enable_bitmapscan: 'on',
})

/** Of a role, parameter and value. */
export const SERVING_DEFAULTS = { lock_timeout: `${HOT_LOCK_TIMEOUT_MS}ms`, ...PLANNED_ONCE }
/** The same on Citus. */
export const CITUS_SERVING_DEFAULTS = { ...SERVING_DEFAULTS, plan_cache_mode: 'auto' }

/** Whether the database is one of Citus: a condition in SQL. */
export const HAS_CITUS_SQL = `exists (select 1 from pg_extension where extname = 'citus')`

/** What a connection says first. It does nothing where there is no Citus. */
export const PLAN_EACH_TIME: Statement = {
  name: 'plan-each-time',
  text: `select set_config('plan_cache_mode', 'auto', false) where ${HAS_CITUS_SQL}`,
}

function optionsOf(parameters: Record<string, string>): string {
  return Object.entries(parameters)
    .map(([name, value]) => `-c ${name}=${value}`)
    .join(' ')
}
