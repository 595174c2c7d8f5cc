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
import type { RawRow } from './postgres/raw-connection.ts'

export interface Lease {
  domainId: number
  userId: number
  sessionId: string
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
// which says whether the lease is ours, and what the account is.
export const ACQUIRE: Statement = {
  name: 'lease-acquire',
  text: `with entitled as (
    select ${accountSql('$6::text', ITS_APP_PASSWORD)}
    from users u join domains d on d.domain_id = u.domain_id
      left join credentials c on c.domain_id = $1 and c.user_id = $2
        and c.credential_id = $8::uuid and ${isUsableSql('$9')}
    where u.domain_id = $1 and d.domain_id = $1 and u.user_id = $2
      and ${addressSql('$10', '$11')}
      and not u.suspended and not d.suspended and ${FINGERPRINT_SQL} = $6
      and ($8::uuid is null or c.kind is not null)
  ), taken as (
    insert into sessions as s (domain_id, user_id, session_id, node_id, client, since,
      credential_id)
    select $1, $2, $3::uuid, $4::uuid, $7::text, now(), $8::uuid from entitled
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
  text: `delete from last_logins where logged_in_at <= now() - interval '1 day'`,
}

export const RELEASE: Statement = {
  name: 'lease-release',
  text: `delete from sessions where domain_id = $1 and user_id = $2 and session_id = $3::uuid
  returning 1`,
}

// All or nothing, and only while the lease is ours. The row in session_log is written by the same
// transaction: by it a commit whose answer was lost is recognised.
export const QUIT: Statement = {
  name: 'lease-quit',
  text: `with held as (
    delete from sessions where domain_id = $1 and user_id = $2 and session_id = $3::uuid
    returning 1
  ), gone as (
    delete from messages
    where domain_id = $1 and user_id = $2 and uid = any ($4::integer[])
      and exists (select 1 from held)
    returning uid, octets, body_id, prefix, unique_id, received_at
  ), kept as (
    insert into trash (domain_id, user_id, uid, octets, body_id, prefix, unique_id, received_at,
      session_id, deleted_at)
    select $1, $2, uid, octets, body_id, prefix, unique_id, received_at, $3::uuid, now()
    from gone
  ), counted as (
    update maildrops
    set message_count = message_count - (select count(*) from gone)::integer,
      octets = octets - (select coalesce(sum(octets), 0) from gone)::bigint
    where domain_id = $1 and user_id = $2 and exists (select 1 from held)
  ), logged as (
    insert into session_log (domain_id, user_id, session_id, ended_at, deleted)
    select $1, $2, $3::uuid, now(), (select count(*) from gone)::integer from held
  )
  select 1 from held`,
}

export const COMMITTED: Statement = {
  name: 'lease-committed',
  text: `select 1 from session_log
  where domain_id = $1 and user_id = $2 and session_id = $3::uuid`,
}

/** LIMIT: a QUIT with more marks would keep the pipeline's other sessions waiting. */
const HOT_DELETES_MAX = 200

/**
 * Takes the maildrop for a session and looks the account up, in one round trip. `in-use`: another
 * session has it (or a row lock did not go away within 50 ms); `credential-changed`: since it was
 * verified, the credential was changed or the user suspended or removed.
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
  const [{ kind, account }, seen] = await Promise.all([
    askForLease(db, request, question),
    readMaildrop(db, domainId, userId, question),
  ])
  const isOurs = kind === 'acquired'
  const opened = seen ?? (isOurs ? await makeMaildrop(db, request, question) : undefined)
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

async function askForLease(
  db: Database,
  request: LeaseRequest,
  { domainName, localPart, client: address }: LoginQuestion,
): Promise<{ kind: LeaseOutcome['kind']; account: RawRow | undefined }> {
  const { domainId, userId, sessionId, nodeId, deadNodeIds, fingerprint, client } = request
  const dead = `{${deadNodeIds.join(',')}}`
  const by = [request.credentialId ?? null, address ?? null, domainName, localPart]
  const values = [domainId, userId, sessionId, nodeId, dead, fingerprint, client, ...by]
  try {
    const [row] = await db.hot(ACQUIRE, values)
    if (row === undefined) return { kind: 'credential-changed', account: undefined }
    const kind = decodeBoolean(present(row, 0)) ? 'acquired' : 'in-use'
    return { kind, account: row.slice(1) }
  } catch (error) {
    if (isFailure(error, 'STORAGE_CONFLICT')) return { kind: 'in-use', account: undefined }
    throw error
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
  await db.bulk(SWEEP_LAST_LOGINS, [])
}

/** @returns false: the lease was no longer ours */
export async function releaseLease(db: Database, lease: Lease): Promise<boolean> {
  const { domainId, userId, sessionId } = lease
  const rows = await db.hotOrBulk(RELEASE, [domainId, userId, sessionId])
  return rows.length === 1
}

/**
 * QUIT (RFC 1939 §6, UPDATE): deletes the marked messages and releases the lease, in one statement.
 * With nothing marked it only releases the lease.
 * @param uids of the marked messages
 * @returns `fenced`: the lease was no longer ours and nothing was deleted
 * @throws {Failure} STORAGE_IN_DOUBT: ask resolveCommit. Any other: nothing was deleted.
 */
export async function commitDeletes(
  db: Database,
  lease: Lease,
  uids: Int32Array,
): Promise<'committed' | 'fenced'> {
  if (uids.length === 0) return (await releaseLease(db, lease)) ? 'committed' : 'fenced'
  const values = [lease.domainId, lease.userId, lease.sessionId, encodeNumbers(uids)]
  const rows =
    uids.length <= HOT_DELETES_MAX ? await db.hotOrBulk(QUIT, values) : await db.bulk(QUIT, values)
  return rows.length === 1 ? 'committed' : 'fenced'
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
