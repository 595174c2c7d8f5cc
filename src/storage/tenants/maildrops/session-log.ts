/**
 * What session_log tells: which sessions fetched or deleted a message, or any on a day. The rows
 * are written with the end of a lease (leases.ts), and thrown away month by month. Rows of before
 * that was noted say how many messages went; which ones, the trash knows for as long as it is kept.
 */
import { type SqlBool, sql } from 'kysely'
import type { Database, Statement } from '../../postgres/database.ts'
import { decodeInt4, present } from '../../postgres/decode.ts'

export interface LoggedSession {
  sessionId: string
  /** of the login; undefined: not noted */
  beganAt: Date | undefined
  endedAt: Date
  /** why; undefined: not noted */
  reason: string | undefined
  /** address of the peer; `sql`: an operator or expiry */
  client: string | undefined
  tls: string | undefined
  mechanism: string | undefined
  credentialId: string | undefined
  credentialName: string | undefined
  fetched: number
  deleted: number
  octets: number
  /** `{[1,4),[7,8)}`; more uids than were fetched if there were too many ranges to note */
  fetchedUids: string | undefined
  deletedUids: string | undefined
}

/** Which rows: of one message, that ended in a span of time, or the latest. */
export type LogQuestion = { uid: number } | { from: Date; until: Date } | 'latest'

// A function, as nodes do not own the partitions that it makes and drops: see migrations/.
export const KEEP_SESSION_LOG: Statement = {
  name: 'session-log-keep',
  text: 'select keep_session_log($1)',
}

/** @returns how many months were thrown away */
export async function keepSessionLog(db: Database, months: number): Promise<number> {
  const [row = []] = await db.bulk(KEEP_SESSION_LOG, [months])
  return decodeInt4(present(row, 0))
}

/** The last ones, the oldest first. @param limit rows at most */
export async function selectLoggedSessions(
  db: Database,
  { domainId, userId }: { domainId: number; userId: number },
  question: LogQuestion,
  limit: number,
): Promise<LoggedSession[]> {
  const isAsked =
    question === 'latest'
      ? sql<SqlBool>`true`
      : 'uid' in question
        ? sql<SqlBool>`(l.fetched_uids @> ${question.uid}::integer
          or coalesce(l.deleted_uids, t.uids) @> ${question.uid}::integer)`
        : sql<SqlBool>`l.ended_at >= ${question.from} and l.ended_at < ${question.until}`
  const { rows } = await sql<Row>`
    with trashed as (
      select session_id, range_agg(int4range(uid, uid, '[]')) as uids from trash
      where domain_id = ${domainId} and user_id = ${userId} group by session_id
    )
    select l.*, coalesce(l.deleted_uids, t.uids) as deleted_uids
    from session_log l left join trashed t on t.session_id = l.session_id
    where l.domain_id = ${domainId} and l.user_id = ${userId} and ${isAsked}
    order by l.ended_at desc limit ${limit}`.execute(db.kysely)
  return rows.reverse().map(toSession)
}

interface Row {
  session_id: string
  began_at: Date | null
  ended_at: Date
  reason: string | null
  client: string | null
  tls: string | null
  mechanism: string | null
  credential_id: string | null
  credential_name: string | null
  fetched: number
  deleted: number
  octets: number
  fetched_uids: string | null
  deleted_uids: string | null
}

function toSession(row: Row): LoggedSession {
  return {
    sessionId: row.session_id,
    beganAt: row.began_at ?? undefined,
    endedAt: row.ended_at,
    reason: row.reason ?? undefined,
    client: row.client ?? undefined,
    tls: row.tls ?? undefined,
    mechanism: row.mechanism ?? undefined,
    credentialId: row.credential_id ?? undefined,
    credentialName: row.credential_name ?? undefined,
    fetched: row.fetched,
    deleted: row.deleted,
    octets: row.octets,
    fetchedUids: row.fetched_uids ?? undefined,
    deletedUids: row.deleted_uids ?? undefined,
  }
}
