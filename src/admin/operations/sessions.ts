/**
 * What an operator does with live sessions. A session ends because its row is deleted, so this
 * works across machines; the client hears of it within one heartbeat of its node.
 */
import type { Database } from '../../storage/postgres/database.ts'
import { deleteSession, selectSessions } from '../../storage/tenants/sessions.ts'
import { formatAddress } from '../address.ts'
import { requireDomain } from './domains.ts'
import { requireUser } from './users.ts'

export interface LiveSession {
  address: string
  client: string
  since: Date
  /** `host:pid` of the worker; null: its node is no longer there. */
  node: string | null
  sessionId: string
}

/** @param domainName undefined: of all domains */
export async function listSessions(
  db: Database,
  domainName: string | undefined,
): Promise<LiveSession[]> {
  const domain = domainName === undefined ? undefined : await requireDomain(db, domainName)
  const rows = await selectSessions(db, domain?.domainId)
  return rows.map((row) => ({
    address: formatAddress(row),
    client: row.client,
    since: row.since,
    node: row.node === undefined ? null : `${row.node.hostname}:${row.node.pid}`,
    sessionId: row.sessionId,
  }))
}

/** @returns whether there was a session */
export async function kickSession(db: Database, address: string): Promise<boolean> {
  const { row } = await requireUser(db, address)
  return deleteSession(db, row.domainId, row.userId)
}
