/**
 * Domains that are migrating: where their mail was, and what moving one user to here takes. A user
 * who has a password here has moved; that is the whole state, so it cannot contradict itself.
 */
import { sql } from 'kysely'
import type { Lease } from '../leases.ts'
import type { Database, Statement } from '../postgres/database.ts'
import { decodeBoolean, decodeInt4, decodeInt8, decodeText, present } from '../postgres/decode.ts'

/** A row of old_servers. */
export interface OldServerRow {
  host: string
  port: number
  security: 'tls' | 'stls' | 'none'
  /** PEM; undefined: the authorities that are known anyway */
  authority: string | undefined
  userFormat: 'full' | 'local'
  makesUsers: boolean
  /** of all nodes together */
  connectionsMax: number
}

export interface MigratingDomain extends OldServerRow {
  domainId: number
  domainName: string
  /** that share its connections, at least one */
  nodeCount: number
}

// At each heartbeat; mostly no row comes back.
export const MIGRATING_DOMAINS: Statement = {
  name: 'migrating-domains',
  text: `select d.domain_id, d.name, o.host, o.port, o.security, o.authority, o.user_format,
    o.makes_users, o.connections_max, (
      select count(*) from nodes n where n.heartbeat_at > now() - interval '30 s')
  from old_servers o join domains d on d.domain_id = o.domain_id`,
}

// Only while the domain migrates, and makes users: a node has no right to make others.
export const MAKE_MOVING_USER: Statement = {
  name: 'moving-user-make',
  text: 'select make_moving_user($1, $2::text)',
}

// What the user deleted here since is not to come again.
export const KNOWN_UNIQUE_IDS: Statement = {
  name: 'unique-ids-known',
  text: `select m.unique_id from messages m
  where m.domain_id = $1 and m.user_id = $2 and m.unique_id is not null
  union all
  select t.unique_id from trash t
  where t.domain_id = $1 and t.user_id = $2 and t.unique_id is not null`,
}

// What the maildrop may still take, by the user's quota and the domain's.
export const ROOM: Statement = {
  name: 'room',
  text: `select
    least(u.quota_octets - coalesce(m.octets, 0), q.quota_octets - q.octets),
    least(u.quota_messages - coalesce(m.message_count, 0), q.quota_messages - q.message_count)
  from users u
    left join maildrops m on m.domain_id = $1 and m.user_id = $2
    left join domain_quotas q on q.domain_id = $1
  where u.domain_id = $1 and u.user_id = $2`,
}

// The last step of a move, fenced by its lease: from then on the user is like any other.
export const KEEP_PASSWORD: Statement = {
  name: 'moving-user-done',
  text: `update users u set password_hash = $4::text
  where u.domain_id = $1 and u.user_id = $2 and u.password_hash is null
    and exists (
      select from sessions s
      where s.domain_id = $1 and s.user_id = $2 and s.session_id = $3::uuid)
  returning 1`,
}

export async function selectMigratingDomains(db: Database): Promise<MigratingDomain[]> {
  const rows = await db.hotOrBulk(MIGRATING_DOMAINS, [])
  return rows.map((row) => ({
    domainId: decodeInt4(present(row, 0)),
    domainName: decodeText(present(row, 1)),
    host: decodeText(present(row, 2)),
    port: decodeInt4(present(row, 3)),
    security: decodeText(present(row, 4)) as OldServerRow['security'],
    authority: row[5] ? decodeText(row[5]) : undefined,
    userFormat: decodeText(present(row, 6)) as OldServerRow['userFormat'],
    makesUsers: decodeBoolean(present(row, 7)),
    connectionsMax: decodeInt4(present(row, 8)),
    nodeCount: Math.max(1, decodeInt8(present(row, 9))),
  }))
}

/** Without a password, if there is none yet and the domain still makes users. */
export async function makeMovingUser(
  db: Database,
  domainId: number,
  localPart: string,
): Promise<void> {
  await db.hotOrBulk(MAKE_MOVING_USER, [domainId, localPart])
}

/** Of the messages in the maildrop and in the trash, those that came with one. */
export async function selectKnownUniqueIds(
  db: Database,
  domainId: number,
  userId: number,
): Promise<Set<string>> {
  const rows = await db.bulk(KNOWN_UNIQUE_IDS, [domainId, userId])
  return new Set(rows.map((row) => decodeText(present(row, 0))))
}

/** Infinity: there is no quota. */
export async function selectRoom(
  db: Database,
  domainId: number,
  userId: number,
): Promise<{ octets: number; messages: number }> {
  const [row = []] = await db.bulk(ROOM, [domainId, userId])
  const [octets, messages] = [0, 1].map((at) =>
    row[at] ? decodeInt8(row[at]) : Number.POSITIVE_INFINITY,
  )
  return { octets: octets ?? 0, messages: messages ?? 0 }
}

/** @returns false: the lease is no longer ours, or there is a password by now */
export async function keepPassword(
  db: Database,
  { domainId, userId, sessionId }: Lease,
  passwordHash: string,
): Promise<boolean> {
  const rows = await db.hotOrBulk(KEEP_PASSWORD, [domainId, userId, sessionId, passwordHash])
  return rows.length === 1
}

export async function selectOldServer(
  db: Database,
  domainId: number,
): Promise<(OldServerRow & { since: Date }) | undefined> {
  const row = await db.kysely
    .selectFrom('old_servers')
    .selectAll()
    .where('domain_id', '=', domainId)
    .executeTakeFirst()
  return (
    row && {
      host: row.host,
      port: row.port,
      security: row.security,
      authority: row.authority ?? undefined,
      userFormat: row.user_format,
      makesUsers: row.makes_users,
      connectionsMax: row.connections_max,
      since: row.since,
    }
  )
}

/** Sets the domain's old server, in place of the one it had; it has been migrating since then. */
export async function upsertOldServer(
  db: Database,
  domainId: number,
  values: OldServerRow,
): Promise<void> {
  const row = {
    host: values.host,
    port: values.port,
    security: values.security,
    authority: values.authority ?? null,
    user_format: values.userFormat,
    makes_users: values.makesUsers,
    connections_max: values.connectionsMax,
  }
  await db.kysely
    .insertInto('old_servers')
    .values({ domain_id: domainId, ...row })
    .onConflict((conflict) => conflict.column('domain_id').doUpdateSet(row))
    .execute()
}

/** @returns whether it was migrating */
export async function deleteOldServer(db: Database, domainId: number): Promise<boolean> {
  const { numDeletedRows } = await db.kysely
    .deleteFrom('old_servers')
    .where('domain_id', '=', domainId)
    .executeTakeFirst()
  return numDeletedRows > 0n
}

export interface MoveCounts {
  moved: number
  waiting: number
}

export async function selectMoveCounts(db: Database, domainId: number): Promise<MoveCounts> {
  const row = await db.kysely
    .selectFrom('users')
    .select(sql<string>`count(password_hash)`.as('moved'))
    .select(sql<string>`count(*) - count(password_hash)`.as('waiting'))
    .where('domain_id', '=', domainId)
    .executeTakeFirstOrThrow()
  return { moved: Number(row.moved), waiting: Number(row.waiting) }
}

/** Local parts of who has no password here, in their order. */
export async function selectWaitingUsers(db: Database, domainId: number): Promise<string[]> {
  const rows = await db.kysely
    .selectFrom('users')
    .select('local_part')
    .where('domain_id', '=', domainId)
    .where('password_hash', 'is', null)
    .orderBy(sql`lower(local_part)`)
    .execute()
  return rows.map((row) => row.local_part)
}
