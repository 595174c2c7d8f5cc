/**
 * Who an address belongs to, for a login and for a delivery. Names compare in any case (ASCII); the
 * credential itself is verified in mail/auth.
 */
import type { Database, Statement } from './database.ts'
import { decodeBoolean, decodeInt4, decodeInt8, decodeText, present } from './decode.ts'

/** Everything a login needs to know of an account. */
export interface LoginAccount {
  domainId: number
  userId: number
  domainName: string
  localPart: string
  passwordHash: string | undefined
  /** encrypted, see mail/auth/apop-secret.ts */
  apopSecret: Buffer | undefined
  /** the user or the whole domain */
  isSuspended: boolean
  /** changes when a credential changes; only ever compared */
  fingerprint: string
}

export interface Recipient {
  domainId: number
  userId: number
  domainName: string
  localPart: string
  isOverQuota: boolean
}

/**
 * SQL: the fingerprint of the row `u` of users. 64 bits of a hash, as decimal text: not secret, and
 * enough to notice a change; the credential is not proved by it.
 */
export const FINGERPRINT_SQL = `hashtextextended(coalesce(u.password_hash, '') || '/' ||
    coalesce(encode(u.apop_secret, 'hex'), ''), 0)::text`

// collate "C": the index's, so that case is ASCII's in every locale.
const ADDRESS_MATCHES = `d.name = lower($1::text collate "C")
    and lower(u.local_part) = lower($2::text collate "C")`

// By name, so it cannot name domain_id first: the one place where an address becomes ids.
export const LOGIN_ACCOUNT: Statement = {
  name: 'login-account',
  text: `select d.domain_id, u.user_id, d.name, u.local_part, u.password_hash, u.apop_secret,
    u.suspended or d.suspended, ${FINGERPRINT_SQL}
  from domains d join users u on u.domain_id = d.domain_id
  where ${ADDRESS_MATCHES}`,
}

export const RECIPIENT: Statement = {
  name: 'recipient',
  text: `select d.domain_id, u.user_id, d.name, u.local_part,
    coalesce(m.octets, 0) >= u.quota_octets
  from domains d join users u on u.domain_id = d.domain_id
    left join maildrops m on m.domain_id = d.domain_id and m.user_id = u.user_id
  where ${ADDRESS_MATCHES}`,
}

export const PASSWORD_HASH: Statement = {
  name: 'password-hash',
  text: `update users u set password_hash = $4::text
  where u.domain_id = $1 and u.user_id = $2 and u.password_hash = $3::text
  returning ${FINGERPRINT_SQL}`,
}

export const APOP_USER: Statement = {
  name: 'apop-user',
  text: 'select exists (select from users where apop_secret is not null)',
}

/** @returns undefined if there is no such user */
export async function selectLoginAccount(
  db: Database,
  domainName: string,
  localPart: string,
): Promise<LoginAccount | undefined> {
  if (hasNul(domainName) || hasNul(localPart)) return undefined
  const [row] = await db.hot(LOGIN_ACCOUNT, [domainName, localPart])
  if (row === undefined) return undefined
  const [, , , , passwordHash, apopSecret] = row
  return {
    domainId: decodeInt4(present(row, 0)),
    userId: decodeInt8(present(row, 1)),
    domainName: decodeText(present(row, 2)),
    localPart: decodeText(present(row, 3)),
    passwordHash: passwordHash ? decodeText(passwordHash) : undefined,
    apopSecret: apopSecret ? Buffer.from(apopSecret) : undefined,
    isSuspended: decodeBoolean(present(row, 6)),
    fingerprint: decodeText(present(row, 7)),
  }
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

/** Whether any user of any domain may log in by APOP: only then the greeting offers it. */
export async function existsApopUser(db: Database): Promise<boolean> {
  const [row] = await db.hot(APOP_USER, [])
  return row !== undefined && decodeBoolean(present(row, 0))
}

/**
 * @returns undefined if there is no such user; a suspended one still receives mail. `isOverQuota`
 *   is for an early no: what counts is decided when the message is delivered.
 */
export async function selectRecipient(
  db: Database,
  domainName: string,
  localPart: string,
): Promise<Recipient | undefined> {
  if (hasNul(domainName) || hasNul(localPart)) return undefined
  const [row] = await db.hot(RECIPIENT, [domainName, localPart])
  if (row === undefined) return undefined
  const isOverQuota = row[4]
  return {
    domainId: decodeInt4(present(row, 0)),
    userId: decodeInt8(present(row, 1)),
    domainName: decodeText(present(row, 2)),
    localPart: decodeText(present(row, 3)),
    isOverQuota: isOverQuota ? decodeBoolean(isOverQuota) : false,
  }
}

/** PostgreSQL's text cannot hold it, so no address has it. */
function hasNul(name: string): boolean {
  return name.includes('\0')
}
