/**
 * A database whose hours pass at our word: a function now() in a schema that is searched before
 * PostgreSQL's own. The statements of Popgres say now() and are otherwise as they are; no row is
 * rewritten to make it older, which would itself leave dead rows.
 */
import type pg from 'pg'

const MAKE = [
  'create schema simulated',
  'create table simulated.clock (hours integer not null)',
  'insert into simulated.clock values (0)',
  `create function simulated.now() returns timestamptz language sql stable as
   $$ select pg_catalog.now() + make_interval(hours => (select hours from simulated.clock)) $$`,
  // Columns remember whose now() it was when they were made.
  'alter table bodies alter column created_at set default simulated.now()',
  'alter table messages alter column received_at set default simulated.now()',
]

/** @param client of a migrated database; counts for connections that begin later */
export async function makeClock(client: pg.Client, database: string): Promise<void> {
  for (const statement of MAKE) await client.query(statement)
  await client.query(`alter database ${database} set search_path = simulated, pg_catalog, public`)
}

export async function passHours(client: pg.Client, hours: number): Promise<void> {
  await client.query('update simulated.clock set hours = hours + $1', [hours])
}
