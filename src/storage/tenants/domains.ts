/**
 * Domains, for those who manage them: ordinary queries through Kysely on the small text pool. What
 * a login or a delivery needs of a domain is in accounts.ts.
 */
import { sql } from 'kysely'
import type { Database } from '../postgres/database.ts'
import { type DomainPolicy, toPolicyColumns } from './policies.ts'

export interface DomainRow {
  domainId: number
  name: string
  isSuspended: boolean
  trashDays: number
  /** the domain that it stands for */
  aliasOf: string | undefined
  createdAt: Date
}

/** What sets a domain apart from others, but its quota. */
export interface DomainSettings extends DomainPolicy {
  isSuspended: boolean
}

export interface DomainCounts {
  userCount: number
  messageCount: number
  /** Of the messages in the maildrops. */
  octets: number
  /** In the trash: what can be undone. */
  trashCount: number
  trashOctets: number
  /** undefined: no limit */
  quotaOctets: number | undefined
  quotaMessages: number | undefined
}

/** @returns domainId; @throws {Failure} STORAGE_REFUSED, constraint domains_name_key */
export async function insertDomain(
  db: Database,
  name: string,
  { isSuspended = false, ...policy }: Partial<DomainSettings> = {},
): Promise<number> {
  const row = await db.kysely
    .insertInto('domains')
    .values({ name, suspended: isSuspended, ...toPolicyColumns(policy) })
    .returning('domain_id')
    .executeTakeFirstOrThrow()
  return row.domain_id
}

export async function selectDomain(db: Database, name: string): Promise<DomainRow | undefined> {
  const row = await db.kysely
    .selectFrom('domains as d')
    .leftJoin('domains as o', 'o.domain_id', 'd.alias_of')
    .select(['d.domain_id', 'd.name', 'd.suspended', 'd.trash_days', 'd.created_at'])
    .select('o.name as alias_of')
    .where('d.name', '=', name)
    .executeTakeFirst()
  return row && toDomain(row)
}

/** All domains in the order of their names, with what each holds. */
export async function selectDomainList(db: Database): Promise<(DomainRow & DomainCounts)[]> {
  const rows = await db.kysely
    .selectFrom('domains as d')
    .leftJoin(
      (eb) =>
        eb
          .selectFrom('users')
          .select((e) => ['domain_id', e.fn.countAll<string>().as('user_count')])
          .groupBy('domain_id')
          .as('u'),
      (join) => join.onRef('u.domain_id', '=', 'd.domain_id'),
    )
    .leftJoin(
      (eb) =>
        eb
          .selectFrom('maildrops')
          .select((e) => [
            'domain_id',
            e.fn.sum<string>('message_count').as('message_count'),
            e.fn.sum<string>('octets').as('octets'),
          ])
          .groupBy('domain_id')
          .as('m'),
      (join) => join.onRef('m.domain_id', '=', 'd.domain_id'),
    )
    .leftJoin(
      (eb) =>
        eb
          .selectFrom('trash')
          .select((e) => [
            'domain_id',
            e.fn.countAll<string>().as('trash_count'),
            e.fn.sum<string>('octets').as('trash_octets'),
          ])
          .groupBy('domain_id')
          .as('t'),
      (join) => join.onRef('t.domain_id', '=', 'd.domain_id'),
    )
    .leftJoin('domain_quotas as q', 'q.domain_id', 'd.domain_id')
    .leftJoin('domains as o', 'o.domain_id', 'd.alias_of')
    .select(['d.domain_id', 'd.name', 'd.suspended', 'd.trash_days', 'd.created_at'])
    .select(['u.user_count', 'm.message_count', 'm.octets', 't.trash_count', 't.trash_octets'])
    .select(['q.quota_octets', 'q.quota_messages', 'o.name as alias_of'])
    .orderBy('d.name')
    .execute()
  return rows.map((row) => ({ ...toDomain(row), ...toCounts(row) }))
}

export async function selectDomainCounts(db: Database, domainId: number): Promise<DomainCounts> {
  const users = await db.kysely
    .selectFrom('users')
    .select((e) => e.fn.countAll<string>().as('user_count'))
    .where('domain_id', '=', domainId)
    .executeTakeFirstOrThrow()
  const { rows } = await sql<Omit<CountsRow, 'user_count'>>`
    select held_messages as message_count, held_octets as octets,
      undoable_messages as trash_count, undoable_octets as trash_octets,
      quota_octets, quota_messages
    from domain_usage where domain_id = ${domainId}`.execute(db.kysely)
  return toCounts({ ...users, ...(rows[0] ?? NOTHING) })
}

/** Counts anew; twice undefined: there is no limit any more. */
export async function updateDomainQuota(
  db: Database,
  name: string,
  quota: { octets: number | undefined; messages: number | undefined },
): Promise<void> {
  const { octets = null, messages = null } = quota
  await sql`select set_domain_quota(${name}, ${octets}::bigint, ${messages}::bigint)`.execute(
    db.kysely,
  )
}

/** Suspending ends the domain's live sessions in the same transaction. */
export async function updateDomainSuspended(
  db: Database,
  domainId: number,
  isSuspended: boolean,
): Promise<void> {
  await db.kysely.transaction().execute(async (trx) => {
    await trx
      .updateTable('domains')
      .set({ suspended: isSuspended })
      .where('domain_id', '=', domainId)
      .execute()
    if (isSuspended) await trx.deleteFrom('sessions').where('domain_id', '=', domainId).execute()
  })
}

/** With its users, messages and trash, by the function that docs/sql.md documents. */
export async function deleteDomain(db: Database, name: string): Promise<void> {
  await sql`select remove_domain(${name})`.execute(db.kysely)
}

function toDomain(row: {
  domain_id: number
  name: string
  suspended: boolean
  trash_days: number
  alias_of: string | null
  created_at: Date
}): DomainRow {
  return {
    domainId: row.domain_id,
    name: row.name,
    isSuspended: row.suspended,
    trashDays: row.trash_days,
    aliasOf: row.alias_of ?? undefined,
    createdAt: row.created_at,
  }
}

type Count = string | number | null

interface CountsRow {
  user_count: Count
  message_count: Count
  octets: Count
  trash_count: Count
  trash_octets: Count
  quota_octets: Count
  quota_messages: Count
}

/** Of a domain that was removed in this moment. */
const NOTHING = {
  message_count: null,
  octets: null,
  trash_count: null,
  trash_octets: null,
  quota_octets: null,
  quota_messages: null,
}

function toCounts(row: CountsRow): DomainCounts {
  return {
    userCount: Number(row.user_count ?? 0),
    messageCount: Number(row.message_count ?? 0),
    octets: Number(row.octets ?? 0),
    trashCount: Number(row.trash_count ?? 0),
    trashOctets: Number(row.trash_octets ?? 0),
    quotaOctets: row.quota_octets === null ? undefined : Number(row.quota_octets),
    quotaMessages: row.quota_messages === null ? undefined : Number(row.quota_messages),
  }
}
