/**
 * Domains, for those who manage them: ordinary queries through Kysely on the small text pool. What
 * a login or a delivery needs of a domain is in accounts.ts.
 */
import { sql } from 'kysely'
import type { Database } from '../postgres/database.ts'

export interface DomainRow {
  domainId: number
  name: string
  isSuspended: boolean
  trashDays: number
  createdAt: Date
}

export interface DomainCounts {
  userCount: number
  messageCount: number
  /** Of the messages in the maildrops. */
  octets: number
}

/** @returns domainId; @throws {Failure} STORAGE_REFUSED, constraint domains_name_key */
export async function insertDomain(db: Database, name: string): Promise<number> {
  const row = await db.kysely
    .insertInto('domains')
    .values({ name })
    .returning('domain_id')
    .executeTakeFirstOrThrow()
  return row.domain_id
}

export async function selectDomain(db: Database, name: string): Promise<DomainRow | undefined> {
  const row = await db.kysely
    .selectFrom('domains')
    .select(['domain_id', 'name', 'suspended', 'trash_days', 'created_at'])
    .where('name', '=', name)
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
    .select(['d.domain_id', 'd.name', 'd.suspended', 'd.trash_days', 'd.created_at'])
    .select(['u.user_count', 'm.message_count', 'm.octets'])
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
  const maildrops = await db.kysely
    .selectFrom('maildrops')
    .select((e) => [
      e.fn.sum<string | null>('message_count').as('message_count'),
      e.fn.sum<string | null>('octets').as('octets'),
    ])
    .where('domain_id', '=', domainId)
    .executeTakeFirstOrThrow()
  return toCounts({ ...users, ...maildrops })
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
  created_at: Date
}): DomainRow {
  return {
    domainId: row.domain_id,
    name: row.name,
    isSuspended: row.suspended,
    trashDays: row.trash_days,
    createdAt: row.created_at,
  }
}

type Count = string | number | null

function toCounts(row: { user_count: Count; message_count: Count; octets: Count }): DomainCounts {
  return {
    userCount: Number(row.user_count ?? 0),
    messageCount: Number(row.message_count ?? 0),
    octets: Number(row.octets ?? 0),
  }
}
