/**
 * Exclusive access to a maildrop. The row in `sessions` is the lock (RFC 1939 §4), and QUIT's one
 * statement is fenced by it: a session whose row was taken over, kicked or lost deletes nothing.
 * Times are the database's; deadlines of nodes are in nodes.ts.
 */
import { isFailure } from '../base/failure.ts'
import {
  accountSql,
  addressSql,
  type Counters,
  FINGERPRINT_SQL,
  isUsableSql,
  type LoginAccount,
  type LoginLookup,
  type LoginQuestion,
  lookUpLogin,
  type OpenedMaildrop,
  PACKED_APP_PASSWORD,
  readMaildrop,
  toAccount,
} from './accounts.ts'
import type { Database, Statement } from './postgres/database.ts'
import { decodeBoolean, encodeNumbers, present } from './postgres/decode.ts'
import { amongSql, askEverywhere, ownerSql } from './postgres/holders.ts'
import type { RawRow } from './postgres/raw-connection.ts'
import { isTableLocked } from './postgres/sqlstate.ts'

export interface Lease {
  domainId: number
  userId: number
  sessionId: string
}

/** What session_log keeps of a session besides what it deleted. */
export interface SessionRecord {
  /** how long it has had the maildrop open */
  seconds: number
  client: string | undefined
  tls: string | undefined
  mechanism: string | undefined
  credentialId: string | undefined
  /** messages, and their octets */
  fetched: number
  octets: number
  /** an int4multirange, as text */
  fetchedUids: string | undefined
}

/** Whose lease it may be: the account and the credential that were verified, as they were then. */
export interface Entitlement {
  domainId: number
  userId: number
  fingerprint: string
  /** an app password or a certificate; undefined: the user's own credentials */
  credentialId: string | undefined
}

export function entitlementOf(
  { domainId, userId, fingerprint }: LoginAccount,
  credentialId: string | undefined,
): Entitlement {
  return { domainId, userId, fingerprint, credentialId }
}

export function isSame(one: Entitlement, other: Entitlement): boolean {
  return (
    one.userId === other.userId &&
    one.domainId === other.domainId &&
    one.fingerprint === other.fingerprint &&
    one.credentialId === other.credentialId
  )
}

export interface LeaseRequest extends Entitlement {
  sessionId: string
  nodeId: string
  /**
   * their leases may be taken over: the dead, as a node that has just joined is on nobody's list
   */
  deadNodeIds: readonly string[]
  /** address of the peer, for operators */
  client: string
}

export type LeaseOutcome =
  | { kind: 'acquired'; counters: Counters }
  | { kind: 'in-use' }
  | { kind: 'credential-changed' }

const ITS_APP_PASSWORD = `case c.kind when 'app-password' then ${PACKED_APP_PASSWORD} end`

// Nothing is touched unless the credential still stands, neither changed, revoked nor expired, nor
// the user suspended, nor the address another's by now: then no row comes back. Otherwise one,
// which says whether the lease is ours, and what the account is. coalesce: where there is no
// credential none is found (its id is a session's), but not by a null, which Citus would take the
// whole join for.
export const ACQUIRE: Statement = {
  name: 'lease-acquire',
  text: `with entitled as (
    select ${accountSql('$6::text', ITS_APP_PASSWORD)}
    from users u join domains d on d.domain_id = u.domain_id
      left join credentials c on c.domain_id = $1 and c.user_id = $2
        and c.credential_id = coalesce($8::uuid, $3::uuid) and ${isUsableSql('$9')}
    where u.domain_id = $1 and d.domain_id = $1 and u.user_id = $2
      and ${addressSql('$10', '$11')}
      and not u.suspended and not d.suspended and ${FINGERPRINT_SQL} = $6
      and ($8::uuid is null or c.kind is not null)
  ), taken as (
    insert into sessions as s (domain_id, user_id, session_id, node_id, client, since,
      credential_id)
    select o.domain_id, o.user_id, $3::uuid, $4::uuid, $7::text, now(), $8::uuid
    from entitled cross join ${ownerSql('$1', '$2')}
    on conflict (domain_id, user_id) do update
      set session_id = excluded.session_id, node_id = excluded.node_id,
        client = excluded.client, since = excluded.since,
        credential_id = excluded.credential_id, wanted_at = null
      where s.node_id = any ($5::uuid[])
    returning 1
  )
  select exists (select from taken), e.* from entitled e`,
}

export const MAKE_MAILDROPS: Statement = {
  name: 'maildrops-make',
  text: `insert into maildrops (domain_id, user_id)
  select u.domain_id, u.user_id from users u
  where u.domain_id = $1 and u.user_id = any ($2::bigint[])
  order by u.user_id
  on conflict (domain_id, user_id) do nothing`,
}

// Says to the node that holds the lease that somebody waits; it looks at its next heartbeat.
export const WANT: Statement = {
  name: 'lease-want',
  text: 'update sessions set wanted_at = now() where domain_id = $1 and user_id = $2',
}

// Refused while the last login is younger than the delay: no row comes back.
export const NOTE_LOGIN: Statement = {
  name: 'lease-note-login',
  text: `insert into last_logins as l (domain_id, user_id, logged_in_at)
  values ($1, $2, now())
  on conflict (domain_id, user_id) do update set logged_in_at = excluded.logged_in_at
    where excluded.logged_in_at - l.logged_in_at >= make_interval(secs => $3)
  returning 1`,
}

// Of all domains: a LOGIN-DELAY is at most a day.
export const SWEEP_LAST_LOGINS: Statement = {
  name: 'last-logins-sweep',
  text: `delete from last_logins
  where logged_in_at <= now() - interval '1 day' and ${amongSql('domain_id', '$1')}`,
}

export const RELEASE: Statement = {
  name: 'lease-release',
  text: `delete from sessions where domain_id = $1 and user_id = $2 and session_id = $3::uuid
  returning 1`,
}

const LOG_COLUMNS = `domain_id, user_id, session_id, ended_at, began_at, client, tls, mechanism,
      credential_id, credential_name, fetched, octets, fetched_uids, deleted, deleted_uids, reason`

// By the values of a lease and of a record. coalesce: a session's id is no credential's.
const LOG_VALUES = `o.domain_id, o.user_id, $3::uuid, now(),
      now() - make_interval(secs => $4::float8),
      $5::text, $6::text, $7::text, $8::uuid, (
        select c.name from credentials c
        where c.domain_id = $1 and c.user_id = $2
          and c.credential_id = coalesce($8::uuid, $3::uuid)
      ), $9::integer, $10::bigint, $11::int4multirange`

// What was fetched is told even if the lease is another's by now; not of a user who was removed.
export const RELEASE_LOGGED: Statement = {
  name: 'lease-release-logged',
  text: `with held as (
    delete from sessions where domain_id = $1 and user_id = $2 and session_id = $3::uuid
    returning 1
  ), logged as (
    insert into session_log (${LOG_COLUMNS})
    select ${LOG_VALUES}, 0, null::int4multirange, $12::text
    from ${ownerSql('$1', '$2')}
  )
  select 1 from held`,
}

// All or nothing, and only while the lease is ours. The row in session_log is written by the same
// transaction: by it, if its reason is 'quit', a commit whose answer was lost is recognised. Few
// domains have a row in domain_quotas; it is locked after the maildrop, as by a delivery.
export const QUIT: Statement = {
  name: 'lease-quit',
  text: `with held as (
    delete from sessions where domain_id = $1 and user_id = $2 and session_id = $3::uuid
    returning 1
  ), gone as (
    delete from messages
    where domain_id = $1 and user_id = $2 and uid = any ($12::integer[])
      and exists (select 1 from held)
    returning uid, octets, body_id, prefix, unique_id, received_at
  ), kept as (
    insert into trash (domain_id, user_id, uid, octets, body_id, prefix, unique_id, received_at,
      session_id, deleted_at)
    select o.domain_id, o.user_id, g.uid, g.octets, g.body_id, g.prefix, g.unique_id,
      g.received_at, $3::uuid, now()
    from ${ownerSql('$1', '$2')} left join gone g on true where coalesce(g.uid, 0) > 0
  ), counted as (
    update maildrops
    set message_count = message_count - (select count(*) from gone)::integer,
      octets = octets - (select coalesce(sum(octets), 0) from gone)::bigint
    where domain_id = $1 and user_id = $2 and exists (select 1 from held)
    returning 1
  ), given_back as (
    update domain_quotas q
    set message_count = q.message_count - (select count(*) from gone),
      octets = q.octets - (select coalesce(sum(g.octets), 0) from gone g)::bigint
    where q.domain_id = $1 and (select count(*) from counted) > 0
  ), logged as (
    insert into session_log (${LOG_COLUMNS})
    select ${LOG_VALUES}, (select count(*) from gone)::integer,
      case when exists (select 1 from held) then $13::int4multirange end,
      case when exists (select 1 from held) then 'quit' else 'lease-lost' end
    from ${ownerSql('$1', '$2')} where exists (select 1 from held) or $9 > 0
  )
  select 1 from held`,
}

export const COMMITTED: Statement = {
  name: 'lease-committed',
  text: `select 1 from session_log
  where domain_id = $1 and user_id = $2 and session_id = $3::uuid and reason = 'quit'`,
}

/** LIMIT: a QUIT with more marks would keep the pipeline's other sessions waiting. */
const HOT_DELETES_MAX = 200

/**
 * Takes the maildrop for a session and looks the account up, in one round trip. `in-use`: another
 * session has it (or its row stayed locked for 50 ms); `credential-changed`: since it was verified,
 * the credential was changed or the user suspended or removed.
 * @param question the address; who it is of by now is in `lookup`, whatever the outcome. An account
 *   that may still be opened brings the app password that it is opened with, and no others
 * @throws {Failure} after which the row may or may not be there: reconciling removes it
 */
export async function acquireLease(
  db: Database,
  request: LeaseRequest,
  question: LoginQuestion,
): Promise<{ outcome: LeaseOutcome; lookup: LoginLookup }> {
  const { domainId, userId } = request
  // Called for in one tick: sent together, carried out in this order. Two statements, so that the
  // second sees what the first has waited for: the counters after a QUIT, not before it.
  const [{ kind, account, isLate }, seen] = await Promise.all([
    askForLease(db, request, question),
    readMaildrop(db, domainId, userId, question),
  ])
  const isOurs = kind === 'acquired'
  const opened =
    (isLate ? undefined : seen) ?? (isOurs ? await makeMaildrop(db, request, question) : undefined)
  if (account === undefined || opened === undefined) {
    // Removed in this moment.
    if (isOurs) await releaseLease(db, request)
    const outcome: LeaseOutcome = { kind: isOurs ? 'credential-changed' : kind }
    return { outcome, lookup: await lookUpLogin(db, question) }
  }
  const { counters, notice, throttles } = opened
  return {
    outcome: isOurs ? { kind, counters } : { kind },
    lookup: { account: toAccount(account, notice), throttles },
  }
}

interface LeaseAnswer {
  kind: LeaseOutcome['kind']
  account: RawRow | undefined
  /** it was overtaken by what was sent after it */
  isLate: boolean
}

async function askForLease(
  db: Database,
  request: LeaseRequest,
  { domainName, localPart, client: address }: LoginQuestion,
): Promise<LeaseAnswer> {
  const { domainId, userId, sessionId, nodeId, deadNodeIds, fingerprint, client } = request
  const dead = `{${deadNodeIds.join(',')}}`
  const by = [request.credentialId ?? null, address ?? null, domainName, localPart]
  const values = [domainId, userId, sessionId, nodeId, dead, fingerprint, client, ...by]
  let isLate = false
  try {
    const rows = await db.hot(ACQUIRE, values).catch((error) => {
      // A migration says nothing of this maildrop: wait, where that harms nobody.
      if (!isTableLocked(error)) throw error
      isLate = true
      return db.bulk(ACQUIRE, values)
    })
    const [row] = rows
    if (row === undefined) return { kind: 'credential-changed', account: undefined, isLate }
    const kind = decodeBoolean(present(row, 0)) ? 'acquired' : 'in-use'
    return { kind, account: row.slice(1), isLate }
  } catch (error) {
    if (isTableLocked(error) || !isFailure(error, 'STORAGE_CONFLICT')) throw error
    return { kind: 'in-use', account: undefined, isLate }
  }
}

/** Asks whoever has the maildrop to give it up if its session is idle; to be said now and then. */
export async function wantLease(db: Database, domainId: number, userId: number): Promise<void> {
  try {
    await db.hot(WANT, [domainId, userId])
  } catch (error) {
    // Somebody has the row locked, and perhaps gives it back: the next attempt will see.
    if (!isFailure(error, 'STORAGE_CONFLICT')) throw error
  }
}

/**
 * LOGIN-DELAY (RFC 2449 §6.5), for users who have one: notes that the user logs in now.
 * @returns false: the last login is younger than `delaySeconds`, and stays noted
 */
export async function noteLogin(
  db: Database,
  domainId: number,
  userId: number,
  delaySeconds: number,
): Promise<boolean> {
  const rows = await db.hotOrBulk(NOTE_LOGIN, [domainId, userId, delaySeconds])
  return rows.length === 1
}

/** Logins that no LOGIN-DELAY asks for any more. */
export async function sweepLastLogins(db: Database): Promise<void> {
  const sweep = (among: string | null) => db.bulk(SWEEP_LAST_LOGINS, [among])
  await askEverywhere(db, sweep)
}

/**
 * @param logged for session_log, with the reason why the session ends; undefined: of one that has
 *   fetched nothing there is nothing to tell
 * @returns false: the lease was no longer ours
 */
export async function releaseLease(
  db: Database,
  lease: Lease,
  logged?: { record: SessionRecord; reason: string },
): Promise<boolean> {
  const { domainId, userId, sessionId } = lease
  const ids = [domainId, userId, sessionId]
  const rows =
    logged === undefined
      ? await db.hotOrBulk(RELEASE, ids)
      : await db.hotOrBulk(RELEASE_LOGGED, [...ids, ...valuesOf(logged.record), logged.reason])
  return rows.length === 1
}

/**
 * QUIT (RFC 1939 §6, UPDATE): deletes the marked messages and releases the lease, in one statement.
 * With nothing marked it only releases the lease.
 * @param uids of the marked messages
 * @param record for session_log, with the marked messages as an int4multirange
 * @returns `fenced`: the lease was no longer ours and nothing was deleted
 * @throws {Failure} STORAGE_IN_DOUBT: ask resolveCommit. Any other: nothing was deleted.
 */
export async function commitDeletes(
  db: Database,
  lease: Lease,
  uids: Int32Array,
  record?: SessionRecord & { deletedUids: string },
): Promise<'committed' | 'fenced'> {
  if (uids.length === 0) return (await releaseLease(db, lease)) ? 'committed' : 'fenced'
  const { domainId, userId, sessionId } = lease
  const ids = [domainId, userId, sessionId]
  const marked = [encodeNumbers(uids), record?.deletedUids ?? null]
  const values = [...ids, ...valuesOf(record), ...marked]
  const rows =
    uids.length <= HOT_DELETES_MAX ? await db.hotOrBulk(QUIT, values) : await db.bulk(QUIT, values)
  return rows.length === 1 ? 'committed' : 'fenced'
}

function valuesOf(record: SessionRecord | undefined): unknown[] {
  const { seconds = 0, client = null, tls = null, mechanism = null } = record ?? {}
  const { credentialId = null, fetched = 0, octets = 0, fetchedUids = null } = record ?? {}
  return [seconds, client, tls, mechanism, credentialId, fetched, octets, fetchedUids]
}

/**
 * What became of a QUIT whose answer was lost. Looking for the marked messages would lie while the
 * old backend still waits for a lock; deleting the lease row waits for it.
 * @throws {Failure} while the database is away or the QUIT still runs: ask again
 */
export async function resolveCommit(
  db: Database,
  lease: Lease,
): Promise<'committed' | 'nothing-deleted'> {
  const values = [lease.domainId, lease.userId, lease.sessionId]
  const released = await db.bulk(RELEASE, values)
  // The row was there, so that QUIT has not run; if it comes yet, it is fenced.
  if (released.length === 1) return 'nothing-deleted'
  const logged = await db.bulk(COMMITTED, values)
  return logged.length === 1 ? 'committed' : 'nothing-deleted'
}

/** INSERT INTO users makes no maildrop; the first delivery or login does. */
async function makeMaildrop(
  db: Database,
  { domainId, userId }: Lease,
  question: LoginQuestion,
): Promise<OpenedMaildrop | undefined> {
  await db.hotOrBulk(MAKE_MAILDROPS, [domainId, encodeNumbers([userId])])
  return await readMaildrop(db, domainId, userId, question)
}
