/**
 * What lies in the trash, and where a message is that may lie there: for operators. Putting back
 * and erasing go through the functions that docs/sql.md documents: they hold the lease meanwhile
 * and keep the counters right.
 */
import { type RawBuilder, sql } from 'kysely'
import type { Database } from '../../postgres/database.ts'
import type { Maildrop } from './backup.ts'

/** Of one session, or deleted in a span of time, or both. */
export interface TrashQuestion {
  sessionId: string | undefined
  since: Date | undefined
  until: Date | undefined
}

export interface TrashedMessage {
  uid: number
  octets: number
  uniqueId: string
  receivedAt: Date
  deletedAt: Date
  sessionId: string
}

/** A message that is there, or was. */
export interface TracedMessage {
  uid: number
  uniqueId: string
  place: 'maildrop' | 'trash' | 'gone'
  receivedAt: Date | null
  deletedAt: Date | null
}

const UNIQUE_ID = sql`coalesce(m.unique_id, d.uid_validity || '.' || m.uid)`

function isAsked({ sessionId, since, until }: TrashQuestion): RawBuilder<boolean> {
  return sql`(${sessionId ?? null}::uuid is null or m.session_id = ${sessionId ?? null}::uuid)
    and m.deleted_at >= coalesce(${since ?? null}::timestamptz, '-infinity')
    and m.deleted_at < coalesce(${until ?? null}::timestamptz, 'infinity')`
}

/** In the order of uid. */
export async function selectTrash(
  db: Database,
  { domainId, userId }: Maildrop,
  question: TrashQuestion,
): Promise<TrashedMessage[]> {
  const { rows } = await sql<TrashedMessage>`
    select m.uid, m.octets, ${UNIQUE_ID} as "uniqueId", m.received_at as "receivedAt",
      m.deleted_at as "deletedAt", m.session_id as "sessionId"
    from trash m join maildrops d on d.domain_id = m.domain_id and d.user_id = m.user_id
    where m.domain_id = ${domainId} and m.user_id = ${userId} and ${isAsked(question)}
    order by m.uid`.execute(db.kysely)
  return rows
}

/**
 * Sessions with that beginning of their id of whose deletions the trash has something.
 * @param userId undefined: of all users of the domain
 * @param limit ids at most
 */
export async function selectTrashSessions(
  db: Database,
  { domainId, userId }: { domainId: number; userId: number | undefined },
  prefix: string,
  limit: number,
): Promise<string[]> {
  const padded = (digit: string): string =>
    prefix + '00000000-0000-0000-0000-000000000000'.replaceAll('0', digit).slice(prefix.length)
  const { rows } = await sql<{ session_id: string }>`
    select distinct session_id from trash
    where domain_id = ${domainId}
      and user_id = coalesce(${userId ?? null}::bigint, user_id)
      and session_id between ${padded('0')}::uuid and ${padded('f')}::uuid
    order by session_id limit ${limit}`.execute(db.kysely)
  return rows.map(({ session_id }) => session_id)
}

/**
 * @returns how many came back
 * @throws {Failure} STORAGE_REFUSED with SQLSTATE 55006 while a session holds the maildrop
 */
export async function restoreTrash(
  db: Database,
  address: string,
  { sessionId, since, until }: TrashQuestion,
): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    select restore_messages(${address}, ${sessionId ?? null}::uuid,
      coalesce(${since ?? null}::timestamptz, '-infinity'),
      coalesce(${until ?? null}::timestamptz, 'infinity')) as count`.execute(db.kysely)
  return rows[0]?.count ?? 0
}

/**
 * Where a message is. Of one that has left the trash too its number alone is known, and that only
 * if its unique-id was derived from it.
 */
export async function selectTrace(
  db: Database,
  { domainId, userId }: Maildrop,
  name: { uid: number } | { uniqueId: string },
): Promise<TracedMessage | undefined> {
  const uid = 'uid' in name ? name.uid : null
  const uniqueId = 'uid' in name ? null : name.uniqueId
  const { rows } = await sql<TracedMessage>`
    with d as (
      select uid_validity, next_uid from maildrops
      where domain_id = ${domainId} and user_id = ${userId}
    ), m as (
      select 1 as rank, uid, unique_id, received_at, null::timestamptz as deleted_at from messages
      where domain_id = ${domainId} and user_id = ${userId}
      union all
      select 2, uid, unique_id, received_at, deleted_at from trash
      where domain_id = ${domainId} and user_id = ${userId}
      union all
      select 3, n.uid::integer, null, null, null from d, lateral (
        select coalesce(${uid}::bigint,
          substring(${uniqueId}::text
          from '^' || d.uid_validity || '\\.(\\d{1,10})$')::bigint) as uid
      ) n where n.uid between 1 and d.next_uid - 1
    )
    select m.uid, ${UNIQUE_ID} as "uniqueId", (array['maildrop', 'trash', 'gone'])[m.rank] as place,
      m.received_at as "receivedAt", m.deleted_at as "deletedAt"
    from m, d
    where m.uid = ${uid}::bigint or ${UNIQUE_ID} = ${uniqueId}::text
    order by m.rank limit 1`.execute(db.kysely)
  return rows[0]
}

/**
 * @returns how many messages were erased
 * @throws {Failure} STORAGE_REFUSED with SQLSTATE 55006 while a session holds the maildrop
 */
export async function eraseMessageRows(
  db: Database,
  address: string,
  uids: readonly number[],
): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    select erase_messages(${address}, ${[...uids]}::integer[]) as count`.execute(db.kysely)
  return rows[0]?.count ?? 0
}

/** With all mail, the trash and the log, and the bodies that were nobody else's. */
export async function eraseUserRows(db: Database, address: string): Promise<void> {
  await sql`select erase_user(${address})`.execute(db.kysely)
}
