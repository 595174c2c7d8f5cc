/**
 * What makes room: messages whose EXPIRE is over, trash whose days are over, and bodies that no row
 * names; nothing that is under a legal hold. Off the hot path, and safe against deliveries without
 * locks of its own: the foreign keys decide. A body goes only when it is older than a day (a
 * delivery writes the body first and the row last) and each in a statement of its own, so that one
 * that is named after all is skipped alone.
 */
import { isFailure } from '../base/failure.ts'
import type { Database, Statement } from './postgres/database.ts'
import { decodeInt4, decodeInt8, decodeUuid, present } from './postgres/decode.ts'
import { sqlStateOf } from './postgres/sqlstate.ts'
import { isFreeSql } from './tenants/holds.ts'

// Rows that somebody else purges or restores now are left to them, and those under a legal hold
// stay for as long as it is on.
export const PURGE_TRASH: Statement = {
  name: 'trash-purge',
  text: `with old as (
    select t.user_id, t.uid from trash t join domains d on d.domain_id = $1
    where t.domain_id = $1 and t.deleted_at <= now() - make_interval(days => d.trash_days)
    and ${isFreeSql('t.user_id')}
    order by t.deleted_at limit $2
    for update of t skip locked
  )
  delete from trash t using old o
  where t.domain_id = $1 and t.user_id = o.user_id and t.uid = o.uid
  returning t.body_id`,
}

const IS_UNNAMED = `b.created_at <= now() - interval '1 day'
    and not exists (select from messages m where m.domain_id = $1 and m.body_id = b.body_id)
    and not exists (select from trash t where t.domain_id = $1 and t.body_id = b.body_id)`

export const UNNAMED_BODIES: Statement = {
  name: 'bodies-unnamed',
  text: `select b.body_id from bodies b where b.domain_id = $1 and ${IS_UNNAMED}
  order by b.created_at limit $2`,
}

export const DELETE_BODY: Statement = {
  name: 'body-delete',
  text: `delete from bodies b where b.domain_id = $1 and b.body_id = $2::uuid and ${IS_UNNAMED}
  returning 1`,
}

// What a change of policy means at once: of a domain for all who have no days of their own.
export const DUE_MESSAGES: Statement = {
  name: 'messages-due',
  text: `select count(*) from (
    select from users u join messages m on m.domain_id = $1 and m.user_id = u.user_id
    where u.domain_id = $1
    and (u.user_id = $2::bigint or $2::bigint is null and u.expire_days is null)
    and m.received_at <= now() - make_interval(days => $3::integer)
    and ${isFreeSql('u.user_id')}
    limit $4
  ) due`,
}

export const DUE_TRASH: Statement = {
  name: 'trash-due',
  text: `select count(*) from (
    select from trash t where t.domain_id = $1
    and t.deleted_at <= now() - make_interval(days => $2::integer)
    and ${isFreeSql('t.user_id')}
    limit $3
  ) due`,
}

// A function, as the lease is taken for each maildrop in turn: see migrations/.
export const EXPIRE_MESSAGES: Statement = {
  name: 'messages-expire',
  text: 'select expire_messages($1, $2)',
}

export const DOMAIN_IDS: Statement = {
  name: 'domain-ids',
  text: 'select domain_id from domains order by domain_id',
}

/**
 * EXPIRE (RFC 2449 §6.7): moves messages older than the user's or domain's expire_days to the
 * trash. Maildrops that are open are left for the next time.
 * @param limit rows at most
 * @returns how many were moved; fewer than `limit`: there are no more
 */
export async function expireMessages(
  db: Database,
  domainId: number,
  limit: number,
): Promise<number> {
  const [row = []] = await db.bulk(EXPIRE_MESSAGES, [domainId, limit])
  return decodeInt4(present(row, 0))
}

/**
 * Looks at what expireMessages looks at, and moves nothing.
 * @param userId undefined: all users of the domain who have no days of their own
 * @param limit where counting stops
 */
export async function countDueMessages(
  db: Database,
  { domainId, userId }: { domainId: number; userId: number | undefined },
  days: number,
  limit: number,
): Promise<number> {
  const [row = []] = await db.bulk(DUE_MESSAGES, [domainId, userId ?? null, days, limit])
  return decodeInt8(present(row, 0))
}

/** What purgeTrash would remove, were the domain's trash_days these. */
export async function countDueTrash(
  db: Database,
  domainId: number,
  days: number,
  limit: number,
): Promise<number> {
  const [row = []] = await db.bulk(DUE_TRASH, [domainId, days, limit])
  return decodeInt8(present(row, 0))
}

/**
 * Removes trash that is older than the domain's trash_days, oldest first, and the bodies that were
 * named by it alone.
 * @param limit rows at most
 * @returns how many rows went; fewer than `limit`: there are no more
 */
export async function purgeTrash(db: Database, domainId: number, limit: number): Promise<number> {
  const rows = await db.bulk(PURGE_TRASH, [domainId, limit])
  // After the commit: of two purges that remove the last two names of a body, the later one sees
  // that nobody names it. What slips through is the sweep's.
  const bodyIds = new Set(rows.map((row) => decodeUuid(present(row, 0))))
  await deleteBodies(db, domainId, bodyIds)
  return rows.length
}

/**
 * Removes bodies older than a day that no message and no trash names: of broken deliveries, removed
 * users, purges that met.
 * @param limit bodies looked at, oldest first
 * @returns how many were removed
 */
export async function sweepBodies(db: Database, domainId: number, limit: number): Promise<number> {
  const rows = await db.bulk(UNNAMED_BODIES, [domainId, limit])
  return await deleteBodies(
    db,
    domainId,
    rows.map((row) => decodeUuid(present(row, 0))),
  )
}

export async function selectDomainIds(db: Database): Promise<number[]> {
  const rows = await db.bulk(DOMAIN_IDS, [])
  return rows.map((row) => decodeInt4(present(row, 0)))
}

async function deleteBodies(
  db: Database,
  domainId: number,
  bodyIds: Iterable<string>,
): Promise<number> {
  let deletedCount = 0
  for (const bodyId of bodyIds) {
    try {
      deletedCount += (await db.bulk(DELETE_BODY, [domainId, bodyId])).length
    } catch (error) {
      // A delivery has named it while we looked, or holds it right now.
      const isNamed = sqlStateOf(error) === '23503' || isFailure(error, 'STORAGE_CONFLICT')
      if (!isNamed) throw error
    }
  }
  return deletedCount
}
