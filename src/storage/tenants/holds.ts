/**
 * Legal holds: while one is on, nothing of the user, or of anybody in the domain, is destroyed. A
 * row of `legal_holds` is the hold, and whatever destroys mail asks for it. Rows of `held_users`
 * only refuse `delete from users`, by their key, as tables of tenants have no triggers. What the
 * SQL functions do is in migrations/0014_retention.sql.
 */
import { sql } from 'kysely'
import type { Database, Statement } from '../postgres/database.ts'

export interface HoldRow {
  domainId: number
  domainName: string
  /** undefined: the whole domain is held */
  localPart: string | undefined
  reason: string
  since: Date
}

/** SQL: the users of domain $1 whom no hold is on; to be said of their user_id. */
export const isFreeSql = (userId: string): string =>
  `not exists (select from legal_holds h where h.domain_id = $1 and h.user_id is null)
    and not exists (
      select from legal_holds h where h.domain_id = $1 and h.user_id = ${userId})`

// Users who came after the hold on their domain was set; where there is none, nothing is read.
export const GUARD_HELD_USERS: Statement = {
  name: 'held-users-guard',
  text: `insert into held_users (domain_id, user_id, hold_id)
  select u.domain_id, u.user_id, h.hold_id
  from legal_holds h join users u on u.domain_id = $1
  where h.domain_id = $1 and h.user_id is null
    and exists (select from legal_holds a where a.domain_id = $1 and a.user_id is null)
    and not exists (
      select from held_users g
      where g.domain_id = $1 and g.user_id = u.user_id and g.hold_id = h.hold_id)
  on conflict (domain_id, user_id, hold_id) do nothing`,
}

/** From then on not even SQL removes a user who came into a held domain. */
export async function guardHeldUsers(db: Database, domainId: number): Promise<void> {
  await db.bulk(GUARD_HELD_USERS, [domainId])
}

/**
 * Whether mail may be destroyed. In SQL the same is asked by refuse_if_held().
 * @param userId undefined: of anybody in the domain
 * @returns the oldest hold that forbids it; undefined: none does
 */
export async function selectHold(
  db: Database,
  domainId: number,
  userId: number | undefined,
): Promise<HoldRow | undefined> {
  const [oldest] = await holds(db)
    .where('h.domain_id', '=', domainId)
    .$if(userId !== undefined, (query) =>
      query.where((eb) =>
        eb.or([eb('h.user_id', 'is', null), eb('h.user_id', '=', userId as number)]),
      ),
    )
    .orderBy('h.since')
    .limit(1)
    .execute()
  return oldest && toHold(oldest)
}

/** @param domainId undefined: of all domains */
export async function selectHolds(db: Database, domainId: number | undefined): Promise<HoldRow[]> {
  const rows = await holds(db)
    .$if(domainId !== undefined, (query) => query.where('h.domain_id', '=', domainId as number))
    .orderBy('d.name')
    .orderBy(sql`lower(u.local_part)`, (order) => order.asc().nullsFirst())
    .execute()
  return rows.map(toHold)
}

/** @param subject an address or a domain */
export async function insertHold(db: Database, subject: string, reason: string): Promise<void> {
  await sql`select set_hold(${subject}, ${reason})`.execute(db.kysely)
}

/** @returns false: none was on */
export async function deleteHold(db: Database, subject: string): Promise<boolean> {
  const { rows } = await sql<{ released: boolean }>`
    select release_hold(${subject}) as released`.execute(db.kysely)
  return rows[0]?.released === true
}

function holds(db: Database) {
  return db.kysely
    .selectFrom('legal_holds as h')
    .innerJoin('domains as d', 'd.domain_id', 'h.domain_id')
    .leftJoin('users as u', (join) =>
      join.onRef('u.domain_id', '=', 'h.domain_id').onRef('u.user_id', '=', 'h.user_id'),
    )
    .select(['h.domain_id', 'd.name', 'u.local_part', 'h.reason', 'h.since'])
}

type SelectedHold = Awaited<ReturnType<ReturnType<typeof holds>['execute']>>[number]

const toHold = (row: SelectedHold): HoldRow => ({
  domainId: row.domain_id,
  domainName: row.name,
  localPart: row.local_part ?? undefined,
  reason: row.reason,
  since: row.since,
})
