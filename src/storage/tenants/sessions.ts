/**
 * Live sessions, for those who manage them. A row is the lease; deleting it ends the session: the
 * worker that holds it finds it gone at its next heartbeat, and a QUIT finds it gone at once.
 */
import type { Database } from '../postgres/database.ts'

export interface SessionRow {
  sessionId: string
  domainName: string
  localPart: string
  client: string
  since: Date
  /** The node's host and process; undefined: the node is no longer there. */
  node: { hostname: string; pid: number } | undefined
}

/** In the order of their addresses. @param domainId undefined: of all domains */
export async function selectSessions(
  db: Database,
  domainId: number | undefined,
): Promise<SessionRow[]> {
  const rows = await db.kysely
    .selectFrom('sessions as s')
    .innerJoin('domains as d', 'd.domain_id', 's.domain_id')
    .innerJoin('users as u', (join) =>
      join.onRef('u.domain_id', '=', 's.domain_id').onRef('u.user_id', '=', 's.user_id'),
    )
    .leftJoin('nodes as n', 'n.node_id', 's.node_id')
    .select(['s.session_id', 'd.name', 'u.local_part', 's.client', 's.since'])
    .select(['n.hostname', 'n.pid'])
    .$if(domainId !== undefined, (query) => query.where('s.domain_id', '=', domainId as number))
    .orderBy('d.name')
    .orderBy('u.local_part')
    .execute()
  return rows.map((row) => ({
    sessionId: row.session_id,
    domainName: row.name,
    localPart: row.local_part,
    client: row.client,
    since: row.since,
    node:
      row.hostname === null || row.pid === null
        ? undefined
        : { hostname: row.hostname, pid: row.pid },
  }))
}

/** @returns whether there was a session */
export async function deleteSession(
  db: Database,
  domainId: number,
  userId: number,
): Promise<boolean> {
  const rows = await db.kysely
    .deleteFrom('sessions')
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .returning('session_id')
    .execute()
  return rows.length > 0
}
