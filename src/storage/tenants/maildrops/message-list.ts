/**
 * Messages, for those who manage them: by pages, with the start of each. What POP3 sessions read is
 * in messages.ts and bodies.ts. Deleting goes through the function that docs/sql.md documents: it
 * holds the lease meanwhile and keeps the counters right.
 */
import { sql } from 'kysely'
import type { Database } from '../../postgres/database.ts'

export interface MessageRow {
  uid: number
  octets: number
  uniqueId: string
  receivedAt: Date
  /** The first octets of the body: enough for most headers. */
  head: Buffer
}

const HEAD_OCTETS = 8_192

/** @param limit rows at most, in the order of uid, from the one after `afterUid` */
export async function selectMessageList(
  db: Database,
  domainId: number,
  userId: number,
  afterUid: number,
  limit: number,
): Promise<MessageRow[]> {
  const rows = await db.kysely
    .selectFrom('messages as m')
    .innerJoin('maildrops as d', (join) =>
      join.onRef('d.domain_id', '=', 'm.domain_id').onRef('d.user_id', '=', 'm.user_id'),
    )
    .leftJoin('body_chunks as c', (join) =>
      join
        .onRef('c.domain_id', '=', 'm.domain_id')
        .onRef('c.body_id', '=', 'm.body_id')
        .on('c.seq', '=', 0),
    )
    .select(['m.uid', 'm.octets', 'm.unique_id', 'm.received_at', 'd.uid_validity'])
    .select(sql<Buffer | null>`substring(c.data from 1 for ${HEAD_OCTETS}::integer)`.as('head'))
    .where('m.domain_id', '=', domainId)
    .where('m.user_id', '=', userId)
    .where('m.uid', '>', afterUid)
    .orderBy('m.uid')
    .limit(limit)
    .execute()
  return rows.map((row) => ({
    uid: row.uid,
    octets: row.octets,
    uniqueId: row.unique_id ?? `${row.uid_validity}.${row.uid}`,
    receivedAt: row.received_at,
    head: row.head ?? Buffer.alloc(0),
  }))
}

/**
 * Moves messages to the trash.
 * @returns how many were there
 * @throws {Failure} STORAGE_REFUSED with SQLSTATE 55006 while a session holds the maildrop
 */
export async function deleteMessageRows(
  db: Database,
  address: string,
  uids: readonly number[],
): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    select delete_messages(${address}, ${[...uids]}::integer[]) as count`.execute(db.kysely)
  return rows[0]?.count ?? 0
}
