/**
 * A whole maildrop as it is at one moment, read without its lease: the user logs in, mail comes and
 * goes, and none of it is seen here. The moment is a transaction's (repeatable read, read only);
 * while it lasts vacuum keeps what it may still see, so it is one maildrop long and not a domain.
 */
import { type Kysely, sql } from 'kysely'
import { Failure } from '../../../base/failure.ts'
import { STRETCH_CHUNKS, STRETCH_OCTETS } from '../../bodies.ts'
import type { Database } from '../../postgres/database.ts'
import type { Tables } from '../../schema.ts'

export interface MaildropSnapshot {
  /** What the counters say, and what next uid and unique-ids are made of. */
  messageCount: number
  nextUid: number
  uidValidity: number
  /** In the order of uid, read page by page. */
  messages(): AsyncGenerator<SnapshotMessage>
}

export interface SnapshotMessage {
  uid: number
  octets: number
  /** What UIDL says. */
  uniqueId: string
  receivedAt: Date
  /**
   * What RETR sends, from its first octet, a stretch at a time.
   * @throws {Failure} MESSAGE_DAMAGED where octets are missing
   */
  pieces(): AsyncGenerator<Buffer>
}

interface MessageRow {
  uid: number
  octets: number
  body_id: string
  prefix: Buffer
  unique_id: string | null
  received_at: Date
}

interface Maildrop {
  domainId: number
  userId: number
}

type Transaction = Kysely<Tables>

/** Messages a statement. */
const PAGE = 200

/** @param work gets undefined for a user who has never had mail nor logged in */
export async function withMaildropSnapshot<T>(
  db: Database,
  maildrop: Maildrop,
  work: (snapshot: MaildropSnapshot | undefined) => Promise<T>,
): Promise<T> {
  return await db.kysely
    .transaction()
    .setIsolationLevel('repeatable read')
    .setAccessMode('read only')
    .execute(async (transaction) => work(await openSnapshot(transaction, maildrop)))
}

/** As the counters have it. */
export async function countMessages(
  db: Database,
  domainId: number,
  userIds: readonly number[],
): Promise<number> {
  const row = await db.kysely
    .selectFrom('maildrops')
    .select(sql<number>`coalesce(sum(message_count), 0)::bigint`.as('count'))
    .where('domain_id', '=', domainId)
    .where(sql<boolean>`user_id = any(${[...userIds]}::bigint[])`)
    .executeTakeFirstOrThrow()
  return row.count
}

async function openSnapshot(
  transaction: Transaction,
  maildrop: Maildrop,
): Promise<MaildropSnapshot | undefined> {
  const row = await transaction
    .selectFrom('maildrops')
    .select(['message_count', 'next_uid', 'uid_validity'])
    .where('domain_id', '=', maildrop.domainId)
    .where('user_id', '=', maildrop.userId)
    .executeTakeFirst()
  if (row === undefined) return undefined
  return {
    messageCount: row.message_count,
    nextUid: row.next_uid,
    uidValidity: row.uid_validity,
    messages: () => readMessages(transaction, maildrop, row.uid_validity),
  }
}

async function* readMessages(
  transaction: Transaction,
  { domainId, userId }: Maildrop,
  uidValidity: number,
): AsyncGenerator<SnapshotMessage> {
  for (let afterUid = 0; ; ) {
    const rows: MessageRow[] = await transaction
      .selectFrom('messages')
      .select(['uid', 'octets', 'body_id', 'prefix', 'unique_id', 'received_at'])
      .where('domain_id', '=', domainId)
      .where('user_id', '=', userId)
      .where('uid', '>', afterUid)
      .orderBy('uid')
      .limit(PAGE)
      .execute()
    for (const row of rows)
      yield {
        uid: row.uid,
        octets: row.octets,
        uniqueId: row.unique_id ?? `${uidValidity}.${row.uid}`,
        receivedAt: row.received_at,
        pieces: () => readPieces(transaction, domainId, row),
      }
    if (rows.length < PAGE) return
    afterUid = rows.at(-1)?.uid ?? 0
  }
}

async function* readPieces(
  transaction: Transaction,
  domainId: number,
  { octets, prefix, body_id: bodyId }: MessageRow,
): AsyncGenerator<Buffer> {
  if (prefix.length > 0) yield prefix
  let missing = octets - prefix.length
  for (let seq = 0; missing > 0; seq += STRETCH_CHUNKS) {
    const { rows } = await sql<{ data: Buffer | null }>`
      select string_agg(data, ''::bytea order by seq) as data from body_chunks
      where domain_id = ${domainId} and body_id = ${bodyId}::uuid
        and seq between ${seq}::integer and ${seq + STRETCH_CHUNKS - 1}::integer`.execute(
      transaction,
    )
    const data = rows[0]?.data
    if (data?.length !== Math.min(STRETCH_OCTETS, missing))
      throw new Failure(
        'MESSAGE_DAMAGED',
        `chunk ${seq} ff. of body ${bodyId} are not as they were`,
      )
    missing -= data.length
    yield data
  }
}
