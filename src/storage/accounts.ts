/**
 * Who an address belongs to, for a login; for a delivery see tenants/recipients.ts. Names compare
 * in any case (ASCII); the credential itself is verified in mail/auth. Who is about to open the
 * maildrop gets its counters and a short list of messages by OPEN, and the account from the
 * statement that takes the lease.
 */
import { assert } from '../base/assert.ts'
import { packedSnapshotSql, type Snapshot, unpackSnapshot } from './messages.ts'
import type { Database, Statement } from './postgres/database.ts'
import {
  decodeBoolean,
  decodeInt4,
  decodeInt8,
  decodeText,
  decodeUuid,
  present,
} from './postgres/decode.ts'
import type { RawRow } from './postgres/raw-connection.ts'
import { askByName, domainIdSql } from './tenants/domain-ids.ts'
import { decodeThrottles, noticeSql, type ThrottleCounts, throttlesSql } from './throttles.ts'

/** An app password that may be used now, from where the peer is. */
export interface AppPassword {
  credentialId: string
  /** SHA-256 of the secret. */
  digest: Buffer
  /** last_used_at is less than an hour old, so it need not be written. */
  isUseRecorded: boolean
}

/** Everything a login needs to know of an account. */
export interface LoginAccount {
  domainId: number
  userId: number
  domainName: string
  localPart: string
  passwordHash: string | undefined
  /** encrypted, see mail/auth/apop-secret.ts */
  apopSecret: Buffer | undefined
  /** encrypted, see mail/auth/proofs/scram.ts */
  scramKeys: Buffer | undefined
  /** false: only app passwords, certificates and tokens open the maildrop */
  isMainPasswordAllowed: boolean
  appPasswords: AppPassword[]
  /** the user or the whole domain */
  isSuspended: boolean
  /** changes when a credential changes; only ever compared */
  fingerprint: string
  /** seconds between logins; 0: no delay */
  loginDelaySeconds: number
  /** undefined: never */
  expireDays: number | undefined
  /** what a login meets while the maildrop is open elsewhere */
  secondLogin: 'refuse' | 'wait' | 'take-over'
  /** the user logged in from the peer's network lately */
  isKnownNetwork: boolean
  /** and that is written down well enough for today */
  isNetworkNoted: boolean
}

/** The maildrop as a login finds it. The snapshot is what has a uid below `nextUid`. */
export interface Counters {
  messageCount: number
  octets: number
  nextUid: number
  /** a message's derived unique-id is `<uidValidity>.<uid>` */
  uidValidity: number
  hasUniqueIds: boolean
  /** undefined: it is too long to come along, see `selectSnapshot` */
  snapshot: Snapshot | undefined
}

/**
 * SQL: the fingerprint of the row `u` of users. 64 bits of a hash, as decimal text: not secret, and
 * enough to notice a change; the credential is not proved by it. Of apop_secret only the nonce is
 * in it: that is fresh for each secret, and stays when the same one is sealed under another key
 * (Keyring.reseal), which must end no session. Derived SCRAM keys are no change either.
 */
export const FINGERPRINT_SQL = `hashtextextended(coalesce(u.password_hash, '') || '/' ||
    coalesce(encode(substring(u.apop_secret from 5 for 12), 'hex'), 'none') || '/' ||
    u.main_password_allowed::text, 0)::text`

/**
 * SQL: whether the address of the rows `d` and `u` is the one in two parameters. collate "C": the
 * index's, so that case is ASCII's in every locale.
 */
export const addressSql = (domainName: string, localPart: string): string =>
  `d.name = lower(${domainName}::text collate "C")
    and lower(u.local_part) = lower(${localPart}::text collate "C")`

/** SQL: whether the row `c` of credentials has not expired; never null. */
export const IS_UNEXPIRED_SQL = '(c.expires_at is null or c.expires_at > now())'

/**
 * SQL: whether the row `c` of credentials may be used now, from the address in `parameter` (null: a
 * Unix socket, which is in no network).
 */
export const isUsableSql = (parameter: string): string =>
  `${IS_UNEXPIRED_SQL}
      and (c.networks is null or coalesce(${parameter}::inet <<= any (c.networks), false))`

/** SQL: whether the last use of the row `c` of credentials is told well enough. */
export const USE_IS_RECORDED_SQL = `coalesce(c.last_used_at > now() - interval '1 hour', false)`

/**
 * SQL: what `toAccount` takes, of the rows `d` of domains and `u` of users.
 * @param appPasswords an aggregate of PACKED_APP_PASSWORD
 */
export const accountSql = (fingerprint: string, appPasswords: string): string =>
  `d.domain_id, u.user_id, d.name, u.local_part, u.password_hash, u.apop_secret,
      u.suspended or d.suspended, ${fingerprint}, u.main_password_allowed, u.scram_keys,
      coalesce(u.login_delay_seconds, d.login_delay_seconds),
      coalesce(u.expire_days, d.expire_days), d.second_login, ${appPasswords}`

/** SQL: the row `c` of credentials, 49 octets: id, digest, whether the use is recorded. */
export const PACKED_APP_PASSWORD = `uuid_send(c.credential_id) || c.digest ||
          boolsend(${USE_IS_RECORDED_SQL})`

/**
 * SQL: `key = value` as the end of a select of the one row with that key, read so that the index is
 * walked from its end: under an old snapshot the dead versions of a row that changes often stay,
 * and the living one is behind them all.
 */
export const newestSql = (key: string, value: string): string =>
  `${key} between ${value} and ${value} order by ${key} desc limit 1`

/** LIMIT: messages of a snapshot that comes with the counters: 800 octets. */
const SHORT_MESSAGES_MAX = 100

// One row comes back for an unknown user too, and says which id the name has: see domain-ids.ts.
export const LOGIN_ACCOUNT: Statement = {
  name: 'login-account',
  text: `select ${throttlesSql('$6')}, ${domainIdSql('$2')}, a.*
  from (select 1) one left join lateral (
    select ${noticeSql('$5', '$1', 'u.user_id')},
      ${accountSql(
        FINGERPRINT_SQL,
        `(select string_agg(${PACKED_APP_PASSWORD}, '')
        from credentials c where c.domain_id = $1 and c.user_id = u.user_id
          and c.kind = 'app-password' and ${isUsableSql('$4')})`,
      )}
    from domains d join users u on u.domain_id = d.domain_id
    where u.domain_id = $1 and d.domain_id = $1 and ${addressSql('$2', '$3')}
  ) a on true`,
}

// Of who is known by ids already: neither users nor domains are read again.
export const OPEN: Statement = {
  name: 'maildrop-open',
  text: `select ${throttlesSql('$4')},
    ${noticeSql('$3', '$1', '$2')},
    m.message_count, m.octets, m.next_uid, m.uid_validity, m.has_unique_ids,
    case when m.message_count between 1 and ${SHORT_MESSAGES_MAX} then (
      select ${packedSnapshotSql('desc')}
      from (
        select g.uid, g.octets from messages g where g.domain_id = $1 and g.user_id = $2
        order by g.uid desc limit m.message_count) newest) end
  from maildrops m where m.domain_id = $1 and ${newestSql('m.user_id', '$2')}`,
}

export const PASSWORD_HASH: Statement = {
  name: 'password-hash',
  text: `update users u set password_hash = $4::text, scram_keys = null
  where u.domain_id = $1 and u.user_id = $2 and u.password_hash = $3::text
  returning ${FINGERPRINT_SQL}`,
}

export const SCRAM_KEYS: Statement = {
  name: 'scram-keys',
  text: `update users u set scram_keys = $4::bytea
  where u.domain_id = $1 and u.user_id = $2 and u.password_hash = $3::text`,
}

export const APOP_USER: Statement = {
  name: 'apop-user',
  text: 'select exists (select 1 from users where apop_secret is not null)',
}

export const SCRAM_SALT_KEY: Statement = {
  name: 'scram-salt-key',
  text: `select key from shared_keys where purpose = 'scram salt'`,
}

export const SCRAM_USE: Statement = {
  name: 'scram-use',
  text: `select exists (select 1 from users where scram_keys is not null),
    not exists (
      select 1 from users
      where password_hash is not null and scram_keys is null and main_password_allowed)
    and not exists (select 1 from credentials where kind = 'app-password')
    and not exists (select 1 from old_servers)`,
}

/** An address, and from where it is asked for. */
export interface LoginQuestion {
  domainName: string
  localPart: string
  /** an IP address; undefined: a Unix socket */
  client: string | undefined
  /** as known_networks has it, see mail/auth/source.ts */
  network: string
  /** of mail/auth/throttle.ts */
  throttleKeys: readonly string[]
}

export interface LoginLookup {
  /** undefined: there is no such user */
  account: LoginAccount | undefined
  throttles: ThrottleCounts
}

/** What OPEN tells. */
export interface OpenedMaildrop {
  counters: Counters
  notice: NetworkNotice
  throttles: ThrottleCounts
}

type NetworkNotice = Pick<LoginAccount, 'isKnownNetwork' | 'isNetworkNoted'>

/** One statement, whether there is such a user or not; two if the domain is new to this process. */
export async function lookUpLogin(db: Database, question: LoginQuestion): Promise<LoginLookup> {
  const { domainName, localPart, client, network, throttleKeys } = question
  assert(!hasNul(domainName) && !hasNul(localPart), 'what is looked up can be an address')
  const values = [domainName, localPart, client ?? null, network, throttleKeys]
  const { lookup } = await askByName(db, domainName, async (domainId) => {
    const [row] = await db.hotOrBulk(LOGIN_ACCOUNT, [domainId ?? null, ...values])
    assert(row !== undefined, 'a row comes back for an unknown user too')
    return { domainId: row[1] ? decodeInt4(row[1]) : undefined, lookup: toLookup(row) }
  })
  return lookup
}

function toLookup([throttles, , notice, ...account]: RawRow): LoginLookup {
  return {
    account: account[0] ? toAccount(account, toNotice(notice)) : undefined,
    throttles: decodeThrottles(throttles),
  }
}

/** @returns undefined if the user has no maildrop yet */
export async function readMaildrop(
  db: Database,
  domainId: number,
  userId: number,
  { network, throttleKeys }: LoginQuestion,
): Promise<OpenedMaildrop | undefined> {
  const [row] = await db.hotOrBulk(OPEN, [domainId, userId, network, throttleKeys])
  return (
    row && {
      counters: toCounters(row.slice(2)),
      notice: toNotice(row[1]),
      throttles: decodeThrottles(row[0]),
    }
  )
}

/** As a peer on a Unix socket. @returns undefined if there is no such user */
export async function selectLoginAccount(
  db: Database,
  domainName: string,
  localPart: string,
): Promise<LoginAccount | undefined> {
  if (hasNul(domainName) || hasNul(localPart)) return undefined
  const nowhere = { client: undefined, network: '', throttleKeys: [] }
  return (await lookUpLogin(db, { domainName, localPart, ...nowhere })).account
}

/** @param row of accountSql */
export function toAccount(row: RawRow, notice: NetworkNotice): LoginAccount {
  const [, , , , passwordHash, apopSecret, , , , scramKeys, , expireDays, , appPasswords] = row
  const days = expireDays ? decodeInt4(expireDays) : 0
  return {
    domainId: decodeInt4(present(row, 0)),
    userId: decodeInt8(present(row, 1)),
    domainName: decodeText(present(row, 2)),
    localPart: decodeText(present(row, 3)),
    passwordHash: passwordHash ? decodeText(passwordHash) : undefined,
    apopSecret: apopSecret ? Buffer.from(apopSecret) : undefined,
    isSuspended: decodeBoolean(present(row, 6)),
    fingerprint: decodeText(present(row, 7)),
    isMainPasswordAllowed: decodeBoolean(present(row, 8)),
    scramKeys: scramKeys ? Buffer.from(scramKeys) : undefined,
    loginDelaySeconds: decodeInt4(present(row, 10)),
    expireDays: days === 0 ? undefined : days,
    secondLogin: decodeText(present(row, 12)) as LoginAccount['secondLogin'],
    appPasswords: appPasswords ? unpackAppPasswords(appPasswords) : [],
    ...notice,
  }
}

/** @param field of noticeSql */
function toNotice(field: Buffer | null | undefined): NetworkNotice {
  return { isKnownNetwork: field != null, isNetworkNoted: field != null && decodeBoolean(field) }
}

function toCounters(row: RawRow): Counters {
  const [messageCount, packed] = [decodeInt4(present(row, 0)), row[5]]
  return {
    messageCount,
    octets: decodeInt8(present(row, 1)),
    nextUid: decodeInt4(present(row, 2)),
    uidValidity: decodeInt8(present(row, 3)),
    hasUniqueIds: decodeBoolean(present(row, 4)),
    snapshot: packed || messageCount === 0 ? unpackSnapshot(packed, 'desc') : undefined,
  }
}

const PACKED_OCTETS = 16 + 32 + 1

function unpackAppPasswords(packed: Buffer): AppPassword[] {
  const count = packed.length / PACKED_OCTETS
  assert(Number.isInteger(count), 'app passwords are packed whole')
  return Array.from({ length: count }, (_, index) => {
    const at = index * PACKED_OCTETS
    return {
      credentialId: decodeUuid(packed.subarray(at, at + 16)),
      digest: Buffer.from(packed.subarray(at + 16, at + 48)),
      isUseRecorded: packed[at + 48] === 1,
    }
  })
}

/**
 * Replaces a hash that has just been verified, unless somebody else was faster.
 * @returns the account's new fingerprint; undefined if the hash is no longer `oldHash`
 */
export async function updatePasswordHash(
  db: Database,
  domainId: number,
  userId: number,
  oldHash: string,
  newHash: string,
): Promise<string | undefined> {
  const [row] = await db.hotOrBulk(PASSWORD_HASH, [domainId, userId, oldHash, newHash])
  return row && decodeText(present(row, 0))
}

/** Keeps keys that were derived from the password of `passwordHash`, if that is still the one. */
export async function updateScramKeys(
  db: Database,
  domainId: number,
  userId: number,
  passwordHash: string,
  scramKeys: Buffer,
): Promise<void> {
  await db.hotOrBulk(SCRAM_KEYS, [domainId, userId, passwordHash, scramKeys])
}

/** Of what the salt of every address is made: the same on all nodes, for good. */
export async function selectScramSaltKey(db: Database): Promise<Buffer> {
  const [row = []] = await db.hotOrBulk(SCRAM_SALT_KEY, [])
  return Buffer.from(present(row, 0))
}

/**
 * For whom SCRAM works, in all domains: for nobody, for some, or for every password that there is.
 * While a domain migrates there are others that nobody here knows yet. A client that prefers SCRAM
 * often tries nothing else, so some are not enough to offer it to all.
 */
export async function selectScramUse(db: Database): Promise<'none' | 'some' | 'all'> {
  const [row = []] = await db.hotOrBulk(SCRAM_USE, [])
  if (!decodeBoolean(present(row, 0))) return 'none'
  return decodeBoolean(present(row, 1)) ? 'all' : 'some'
}

/** Whether any user of any domain may log in by APOP: only then the greeting offers it. */
export async function existsApopUser(db: Database): Promise<boolean> {
  const [row] = await db.hotOrBulk(APOP_USER, [])
  return row !== undefined && decodeBoolean(present(row, 0))
}

/** PostgreSQL's text cannot hold it, so no address has it. */
export function hasNul(name: string): boolean {
  return name.includes('\0')
}
