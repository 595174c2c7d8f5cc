/**
 * What an operator does with users. Each function is one operation, used alike by the command line
 * and by whatever else manages a server. Passwords come as Secret and leave as hashes only.
 *
 * APOP needs its secret in the clear, so it never is the password: it is a secret of its own,
 * stored encrypted under POPGRES_SECRET_KEY.
 */
import type { Secret } from '../../base/secret.ts'
import { encryptApopSecret } from '../../mail/auth/apop-secret.ts'
import { hashPassword } from '../../mail/auth/argon2.ts'
import type { Database } from '../../storage/database.ts'
import {
  deleteUser,
  insertUser,
  selectUser,
  selectUserList,
  type UserRow,
  updateUserCredentials,
  updateUserQuota,
  updateUserSuspended,
} from '../../storage/tenants/users.ts'
import { formatAddress, parseAddress } from '../address.ts'
import { checkPassword } from '../password.ts'
import { refused, refusing } from '../refusal.ts'
import { requireDomain } from './domains.ts'

export interface User {
  address: string
  passwordScheme: 'argon2id' | 'bcrypt' | null
  hasApop: boolean
  isSuspended: boolean
  /** The domain is suspended: the user cannot log in either. */
  isDomainSuspended: boolean
  quotaOctets: number | null
  messageCount: number
  octets: number
  hasSession: boolean
  createdAt: Date
}

/** A secret for APOP and the key that encrypts it; without a key there is no APOP. */
export interface ApopCredential {
  secret: Secret
  secretKey: Secret | undefined
}

/** @returns the address as it is kept */
export async function addUser(
  db: Database,
  address: string,
  user: { password: Secret; apop: ApopCredential | undefined; quotaOctets: number | undefined },
): Promise<string> {
  const { localPart, domainName } = parseAddress(address)
  checkPassword('password', user.password)
  const seal = user.apop && sealing(user.apop)
  const domain = await requireDomain(db, domainName)
  // Asked before hashing, so that a duplicate is told at once; the constraint has the last word.
  const taken = await selectUser(db, domain.domainId, localPart)
  if (taken !== undefined)
    throw refused(`${formatAddress({ localPart: taken.localPart, domainName })} exists already`)
  const passwordHash = await hashPassword(user.password)
  const row = { localPart, passwordHash, quotaOctets: user.quotaOctets }
  await refusing(() =>
    insertUser(db, domain.domainId, row, seal && ((userId) => seal(domain.domainId, userId))),
  )
  return formatAddress({ localPart, domainName })
}

export async function listUsers(db: Database, domainName: string): Promise<User[]> {
  const domain = await requireDomain(db, domainName)
  const rows = await selectUserList(db, domain.domainId)
  return rows.map((row) => toUser(row, domain.name, domain.isSuspended))
}

export async function showUser(db: Database, address: string): Promise<User> {
  const { row, domainName, isDomainSuspended } = await requireUser(db, address)
  return toUser(row, domainName, isDomainSuspended)
}

/** Ends the user's session. What is undefined stays; `apop: 'remove'` takes APOP away. */
export async function changeCredentials(
  db: Database,
  address: string,
  change: { password: Secret | undefined; apop: ApopCredential | 'remove' | undefined },
): Promise<void> {
  if (change.password !== undefined) checkPassword('password', change.password)
  const { apop } = change
  const seal = apop === undefined || apop === 'remove' ? undefined : sealing(apop)
  const { row } = await requireUser(db, address)
  const passwordHash = change.password && (await hashPassword(change.password))
  const apopSecret = apop === 'remove' ? null : seal?.(row.domainId, row.userId)
  await refusing(() =>
    updateUserCredentials(db, row.domainId, row.userId, { passwordHash, apopSecret }),
  )
}

/** @param quotaOctets undefined: no limit */
export async function changeQuota(
  db: Database,
  address: string,
  quotaOctets: number | undefined,
): Promise<void> {
  const { row } = await requireUser(db, address)
  await refusing(() => updateUserQuota(db, row.domainId, row.userId, quotaOctets))
}

/** Ends the user's session; mail is still accepted. */
export async function suspendUser(db: Database, address: string): Promise<void> {
  const { row } = await requireUser(db, address)
  await updateUserSuspended(db, row.domainId, row.userId, true)
}

export async function resumeUser(db: Database, address: string): Promise<void> {
  const { row } = await requireUser(db, address)
  await updateUserSuspended(db, row.domainId, row.userId, false)
}

/** With all messages, at once and for good. */
export async function removeUser(db: Database, address: string): Promise<void> {
  const { row, domainName } = await requireUser(db, address)
  await refusing(() => deleteUser(db, formatAddress({ localPart: row.localPart, domainName })))
}

/** @throws {Failure} OPERATION_REFUSED if there is none of that address, in any case */
export async function requireUser(
  db: Database,
  address: string,
): Promise<{ row: UserRow; domainName: string; isDomainSuspended: boolean }> {
  const { localPart, domainName } = parseAddress(address)
  const domain = await requireDomain(db, domainName)
  const row = await selectUser(db, domain.domainId, localPart)
  if (row === undefined)
    throw refused(
      `there is no user ${formatAddress({ localPart, domainName })}: ` +
        `see "popgres user list ${domainName}"`,
    )
  return { row, domainName: domain.name, isDomainSuspended: domain.isSuspended }
}

/** Checks key and secret before anything is written. */
function sealing(apop: ApopCredential): (domainId: number, userId: number) => Buffer {
  const { secret, secretKey } = apop
  if (secretKey === undefined)
    throw refused('APOP needs POPGRES_SECRET_KEY: set it (openssl rand -hex 32) on every node')
  checkPassword('APOP secret', secret)
  return (domainId, userId) => encryptApopSecret(secretKey, domainId, userId, secret)
}

function toUser(row: UserRow, domainName: string, isDomainSuspended: boolean): User {
  return {
    address: formatAddress({ localPart: row.localPart, domainName }),
    passwordScheme: row.passwordScheme ?? null,
    hasApop: row.hasApop,
    isSuspended: row.isSuspended,
    isDomainSuspended,
    quotaOctets: row.quotaOctets ?? null,
    messageCount: row.messageCount,
    octets: row.octets,
    hasSession: row.hasSession,
    createdAt: row.createdAt,
  }
}
