/**
 * The processes that serve. A node whose heartbeat is older than 30 s by the database's clock is
 * dead, for good: its renewal is refused, its leases are anybody's. These statements are about
 * nodes, so they look into sessions of all domains.
 */
import { FINGERPRINT_SQL, IS_UNEXPIRED_SQL } from './accounts.ts'
import type { Database, Statement } from './postgres/database.ts'
import { decodeBoolean, decodeText, decodeUuid, present } from './postgres/decode.ts'

export interface Node {
  nodeId: string
  hostname: string
  pid: number
  version: string
}

/** A lease that this node has in the database, with what its user's row says now. */
export interface NodeSession {
  sessionId: string
  /** differs from the session's own if the credential has changed since */
  fingerprint: string
  /** suspended, or the app password or certificate that opened it was revoked or has expired */
  isBarred: boolean
  /** another login waits for the maildrop to become free */
  isWanted: boolean
}

const DEAD_AFTER = `interval '30 s'`
/** Who waits says so every second or so; from who has given up nothing is wanted any more. */
const WANTED_FOR = `interval '10 s'`

// It may be there: of an attempt whose answer was lost.
export const INSERT_NODE: Statement = {
  name: 'node-insert',
  text: `insert into nodes as n (node_id, hostname, pid, version) values ($1, $2, $3, $4)
  on conflict (node_id) do update set heartbeat_at = excluded.heartbeat_at
    where excluded.heartbeat_at - n.heartbeat_at < ${DEAD_AFTER}
  returning 1`,
}

export const RENEW: Statement = {
  name: 'node-renew',
  text: `update nodes set heartbeat_at = now()
  where node_id = $1 and heartbeat_at > now() - ${DEAD_AFTER} returning 1`,
}

export const DELETE_LEASES: Statement = {
  name: 'node-delete-leases',
  text: 'delete from sessions where node_id = $1',
}

export const DELETE_NODE: Statement = {
  name: 'node-delete',
  text: `delete from nodes n where n.node_id = $1
    and n.node_id not in (select s.node_id from sessions s where s.node_id = $1)`,
}

export const DEAD_NODES: Statement = {
  name: 'nodes-dead',
  text: `select node_id from nodes where heartbeat_at <= now() - ${DEAD_AFTER}`,
}

export const SWEEP_DEAD_LEASES: Statement = {
  name: 'nodes-sweep-dead-leases',
  text: `delete from sessions s using nodes n
  where n.node_id = s.node_id and n.heartbeat_at <= now() - ${DEAD_AFTER}`,
}

// A minute: an acquire of a node that was removed a moment ago may still be under way.
export const SWEEP_UNKNOWN_LEASES: Statement = {
  name: 'nodes-sweep-unknown-leases',
  text: `delete from sessions s
  where s.since <= now() - interval '1 minute'
    and not exists (select from nodes n where n.node_id = s.node_id)`,
}

export const SWEEP_DEAD_NODES: Statement = {
  name: 'nodes-sweep',
  text: `delete from nodes n where n.heartbeat_at <= now() - ${DEAD_AFTER}
    and n.node_id not in (
      select s.node_id from sessions s join nodes o on o.node_id = s.node_id
      where o.heartbeat_at <= now() - ${DEAD_AFTER})`,
}

export const NODE_SESSIONS: Statement = {
  name: 'node-sessions',
  text: `select s.session_id, ${FINGERPRINT_SQL},
    u.suspended or d.suspended or (s.credential_id is not null and c.credential_id is null),
    coalesce(s.wanted_at > now() - ${WANTED_FOR}, false)
  from sessions s
    join users u on u.domain_id = s.domain_id and u.user_id = s.user_id
    join domains d on d.domain_id = s.domain_id
    left join credentials c on c.domain_id = s.domain_id and c.user_id = s.user_id
      and c.credential_id = s.credential_id and ${IS_UNEXPIRED_SQL}
  where s.node_id = $1`,
}

export const DELETE_NODE_SESSIONS: Statement = {
  name: 'node-sessions-delete',
  text: `delete from sessions where node_id = $1 and session_id = any ($2::uuid[]) returning 1`,
}

/** @returns false: an earlier attempt came through and counts as dead: another id is needed */
export async function insertNode(db: Database, node: Node): Promise<boolean> {
  const rows = await db.hotOrBulk(INSERT_NODE, [node.nodeId, node.hostname, node.pid, node.version])
  return rows.length === 1
}

/** @returns false: this node counts as dead and must register anew, under another id */
export async function renewNode(db: Database, nodeId: string): Promise<boolean> {
  const rows = await db.hotOrBulk(RENEW, [nodeId])
  return rows.length === 1
}

/** At a clean end, or for a child that died: its leases are free at once. */
export async function deleteNode(db: Database, nodeId: string): Promise<void> {
  await db.bulk(DELETE_LEASES, [nodeId])
  await db.bulk(DELETE_NODE, [nodeId])
}

/** Whose leases may be taken over. */
export async function selectDeadNodes(db: Database): Promise<string[]> {
  const rows = await db.hot(DEAD_NODES, [])
  return rows.map((row) => decodeUuid(present(row, 0)))
}

/** Leases of dead and of unknown nodes, then dead nodes that have no lease left. */
export async function sweepNodes(db: Database): Promise<void> {
  await db.bulk(SWEEP_DEAD_LEASES, [])
  await db.bulk(SWEEP_UNKNOWN_LEASES, [])
  await db.bulk(SWEEP_DEAD_NODES, [])
}

/** For reconciling. The session of a user who was removed is not in it: so it ends. */
export async function selectNodeSessions(db: Database, nodeId: string): Promise<NodeSession[]> {
  const rows = await db.bulk(NODE_SESSIONS, [nodeId])
  return rows.map((row) => ({
    sessionId: decodeUuid(present(row, 0)),
    fingerprint: decodeText(present(row, 1)),
    isBarred: decodeBoolean(present(row, 2)),
    isWanted: decodeBoolean(present(row, 3)),
  }))
}

/** @returns how many rows there were: leases that no session of this node knows of */
export async function deleteNodeSessions(
  db: Database,
  nodeId: string,
  sessionIds: readonly string[],
): Promise<number> {
  if (sessionIds.length === 0) return 0
  const rows = await db.bulk(DELETE_NODE_SESSIONS, [nodeId, `{${sessionIds.join(',')}}`])
  return rows.length
}
