/** How large each table is on disk, with its indexes and TOAST, and what lies in them. */
import type pg from 'pg'

export const TABLES = [
  'body_chunks',
  'bodies',
  'messages',
  'trash',
  'maildrops',
  'sessions',
  'session_log',
] as const

export type TableName = (typeof TABLES)[number]

export interface Sizes {
  tableOctets: Record<TableName, number>
  /** of these tables together */
  totalOctets: number
  /** of messages in maildrops and trash, prefixes included */
  mailOctets: number
}

export async function readSizes(client: pg.Client): Promise<Sizes> {
  const { rows } = await client.query<{ name: TableName; octets: string }>(
    // Of one that is partitioned, all of its partitions.
    `select t.relname as name, (
       select sum(pg_total_relation_size(p.oid)) from pg_class p
       where p.oid = t.oid or p.oid in (select inhrelid from pg_inherits where inhparent = t.oid)
     ) as octets
     from pg_class t where t.relname = any ($1) and t.relnamespace = 'public'::regnamespace`,
    [TABLES],
  )
  const tableOctets = Object.fromEntries(
    rows.map(({ name, octets }) => [name, Number(octets)]),
  ) as Record<TableName, number>
  const mail = await client.query<{ octets: string }>(
    `select coalesce(sum(octets), 0) as octets
     from (select octets from messages union all select octets from trash) kept`,
  )
  const totalOctets = Object.values(tableOctets).reduce((sum, octets) => sum + octets, 0)
  return { tableOctets, totalOctets, mailOctets: Number(mail.rows[0]?.octets) }
}

/** How often autovacuum has been at each. */
export async function readVacuums(client: pg.Client): Promise<Record<TableName, number>> {
  const { rows } = await client.query<{ name: TableName; count: string }>(
    `select relname as name, autovacuum_count as count from pg_stat_user_tables
     where relname = any ($1)`,
    [TABLES],
  )
  return Object.fromEntries(rows.map(({ name, count }) => [name, Number(count)])) as never
}
