/**
 * The processes that serve. A node whose heartbeat is older than 30 s by the database's clock is
 * dead, for good: its renewal is refused, its leases are anybody's. No statement is about both
 * nodes and leases: a node is one row in one place, and its leases lie wherever their domains do,
 * of which some may be away (postgres/holders.ts).
 */
import { FINGERPRINT_SQL, IS_UNEXPIRED_SQL } from './accounts.ts'
import type { Database, Statement } from './postgres/database.ts'
import {
  decodeBoolean,
  decodeInt4,
  decodeText,
  decodeUuid,
  encodeNumbers,
  present,
} from './postgres/decode.ts'
import { amongSql, askEverywhere } from './postgres/holders.ts'
import type { RawRow } from './postgres/raw-connection.ts'

export interface Node {
  nodeId: string
  hostname: string
  pid: number
  version: string
}

/** A lease that this node has in the database, with what its user's row says now. */
export interface NodeSession {
  sessionId: string
  domainId: number
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

export const DEAD_NODES: Statement = {
  name: 'nodes-dead',
  text: `select node_id from nodes where heartbeat_at <= now() - ${DEAD_AFTER}`,
}

// A minute: an acquire of a node that was removed a moment ago may still be under way.
export const KNOWN_NODES: Statement = {
  name: 'nodes-known',
  text: `select array(select node_id from nodes)::text, (now() - interval '1 minute')::text`,
}

export const DELETE_NODES: Statement = {
  name: 'nodes-delete',
  text: 'delete from nodes where node_id = any ($1::uuid[])',
}

export const DELETE_LEASES: Statement = {
  name: 'node-leases-delete',
  text: `delete from sessions where node_id = any ($1::uuid[]) and ${amongSql('domain_id', '$2')}`,
}

export const LEASE_HOLDERS: Statement = {
  name: 'node-leases',
  text: 'select distinct node_id from sessions where node_id = any ($1::uuid[])',
}

export const DELETE_UNKNOWN_LEASES: Statement = {
  name: 'node-leases-delete-unknown',
  text: `delete from sessions where node_id <> all ($1::uuid[]) and since <= $2::timestamptz
    and ${amongSql('domain_id', '$3')}`,
}

export const NODE_SESSIONS: Statement = {
  name: 'node-sessions',
  text: `select s.session_id, s.domain_id, ${FINGERPRINT_SQL},
    u.suspended or d.suspended or (s.credential_id is not null and c.credential_id is null),
    coalesce(s.wanted_at > now() - ${WANTED_FOR}, false)
  from sessions s
    join users u on u.domain_id = s.domain_id and u.user_id = s.user_id
    join domains d on d.domain_id = s.domain_id
    left join credentials c on c.domain_id = s.domain_id and c.user_id = s.user_id
      and c.credential_id = s.credential_id and ${IS_UNEXPIRED_SQL}
  where s.node_id = $1 and ${amongSql('s.domain_id', '$2')} and ${amongSql('u.domain_id', '$2')}`,
}

export const DELETE_NODE_SESSIONS: Statement = {
  name: 'node-sessions-delete',
  text: `delete from sessions
  where node_id = $1 and session_id = any ($2::uuid[]) and domain_id = any ($3::integer[])
  returning 1`,
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

/**
 * At a clean end, or for a child that died: its leases are free at once. Those of domains that are
 * away are anybody's when the node counts as dead, in half a minute.
 */
export async function deleteNode(db: Database, nodeId: string): Promise<void> {
  await freeNodes(db, [nodeId])
}

/** Whose leases may be taken over. */
export async function selectDeadNodes(db: Database): Promise<string[]> {
  const rows = await db.hot(DEAD_NODES, [])
  return rows.map((row) => decodeUuid(present(row, 0)))
}

/** Leases of dead nodes, dead nodes that have no lease left, then leases of unknown nodes. */
export async function sweepNodes(db: Database): Promise<void> {
  await freeNodes(db, await selectDeadNodes(db))
  // Before the leases are looked at: of a node that comes meanwhile none is as old.
  const [row = []] = await db.bulk(KNOWN_NODES, [])
  const [known, before] = [decodeText(present(row, 0)), decodeText(present(row, 1))]
  await askEverywhere(db, (among) => db.bulk(DELETE_UNKNOWN_LEASES, [known, before, among]))
}

/** A node goes when it has no lease, as far as all servers say: those of unknown nodes must age. */
async function freeNodes(db: Database, nodeIds: readonly string[]): Promise<void> {
  if (nodeIds.length === 0) return
  const ids = encodeUuids(nodeIds)
  const { away } = await askEverywhere(db, (among) => db.bulk(DELETE_LEASES, [ids, among]))
  if (away.size > 0) return
  // Somebody may have been given one meanwhile.
  const rows = await db.bulk(LEASE_HOLDERS, [ids])
  const holding = new Set(rows.map((row) => decodeUuid(present(row, 0))))
  const free = nodeIds.filter((nodeId) => !holding.has(nodeId))
  await db.bulk(DELETE_NODES, [encodeUuids(free)])
}

/**
 * For reconciling. The session of a user who was removed is not in it: so it ends.
 * @param domainIds that the node has sessions of
 * @returns also the domains of which nobody can tell now
 */
export async function selectNodeSessions(
  db: Database,
  nodeId: string,
  domainIds: Iterable<number>,
): Promise<{ sessions: NodeSession[]; away: ReadonlySet<number> }> {
  const select = (among: string | null) => db.bulk(NODE_SESSIONS, [nodeId, among])
  const { answers, away } = await askEverywhere(db, select, domainIds)
  return { sessions: answers.flat().map(toNodeSession), away }
}

function toNodeSession(row: RawRow): NodeSession {
  return {
    sessionId: decodeUuid(present(row, 0)),
    domainId: decodeInt4(present(row, 1)),
    fingerprint: decodeText(present(row, 2)),
    isBarred: decodeBoolean(present(row, 3)),
    isWanted: decodeBoolean(present(row, 4)),
  }
}

/** @returns how many rows there were: leases that no session of this node knows of */
export async function deleteNodeSessions(
  db: Database,
  nodeId: string,
  sessions: readonly Pick<NodeSession, 'sessionId' | 'domainId'>[],
): Promise<number> {
  if (sessions.length === 0) return 0
  const sessionIds = encodeUuids(sessions.map(({ sessionId }) => sessionId))
  const domainIds = encodeNumbers(new Set(sessions.map(({ domainId }) => domainId)))
  const rows = await db.bulk(DELETE_NODE_SESSIONS, [nodeId, sessionIds, domainIds])
  return rows.length
}

/** A process that asks to do what one of all nodes does for all. */
export interface Candidate {
  /** made up, anew at each start */
  holderId: string
  hostname: string
  pid: number
}

// The row is written by who has it, or by who takes it over; a look of the others changes nothing.
export const LEAD: Statement = {
  name: 'node-lead',
  text: `insert into leaders as l (task, holder, hostname, pid, since, renewed_at)
  values ($1, $2::uuid, $3, $4, now(), now())
  on conflict (task) do update
    set holder = excluded.holder, hostname = excluded.hostname, pid = excluded.pid,
      since = case when l.holder = excluded.holder then l.since else excluded.since end,
      renewed_at = excluded.renewed_at
    where l.holder = excluded.holder
      or excluded.renewed_at - l.renewed_at > make_interval(secs => $5)
  returning 1`,
}

export const STOP_LEADING: Statement = {
  name: 'node-stop-leading',
  text: 'delete from leaders where task = $1 and holder = $2::uuid',
}

/**
 * Takes a task that nobody has, or whose leader has not renewed it for `leaseMs`; renews one's own.
 * @returns whether it is ours, for `leaseMs` from now on
 */
export async function leadTask(
  db: Database,
  task: string,
  { holderId, hostname, pid }: Candidate,
  leaseMs: number,
): Promise<boolean> {
  const rows = await db.bulk(LEAD, [task, holderId, hostname, pid, leaseMs / 1_000])
  return rows.length === 1
}

/** So that another node need not wait for the lease to end. */
export async function stopLeading(db: Database, task: string, holderId: string): Promise<void> {
  await db.bulk(STOP_LEADING, [task, holderId])
}

const encodeUuids = (ids: readonly string[]): string => `{${ids.join(',')}}`
