/**
 * What an operator does with users. Each function is one operation, used alike by the command line
 * and by whatever else manages a server. Passwords come as Secret and leave as hashes only.
 *
 * APOP needs its secret in the clear, so it never is the password: it is a secret of its own,
 * stored encrypted under POPGRES_SECRET_KEY.
 */
import type { Keyring } from '../../base/keyring.ts'
import type { Secret } from '../../base/secret.ts'
import { apopUse } from '../../mail/auth/apop-secret.ts'
import { hashPassword } from '../../mail/auth/argon2.ts'
import { deriveSealedKeys, type ScramOwner } from '../../mail/auth/proofs/scram.ts'
import { schemeOf } from '../../mail/auth/schemes/scheme.ts'
import { passwordForms } from '../../protocol/sasl/text.ts'
import type { Database } from '../../storage/postgres/database.ts'
import {
  deleteUser,
  insertUser,
  type SealedCredentials,
  selectUser,
  selectUserList,
  type UserRow,
  updateMainPasswordAllowed,
  updateUserCredentials,
  updateUserQuota,
  updateUserSuspended,
} from '../../storage/tenants/users.ts'
import { formatAddress, parseAddress } from '../address.ts'
import { refuseHeld } from '../held.ts'
import { checkPassword } from '../password.ts'
import { refused, refusing } from '../refusal.ts'
import { requireDomain } from './domains.ts'

export interface User {
  address: string
  /** For example `argon2id`, `ssha512`; null: no password. */
  passwordScheme: string | null
  hasApop: boolean
  hasScram: boolean
  /** False: only app passwords, certificates and tokens open the maildrop. */
  isMainPasswordAllowed: boolean
  /** App passwords and certificates. */
  credentialCount: number
  isSuspended: boolean
  /** The domain is suspended: the user cannot log in either. */
  isDomainSuspended: boolean
  quotaOctets: number | null
  quotaMessages: number | null
  messageCount: number
  octets: number
  /** In the trash: what can be undone. Counts against no quota. */
  trashCount: number
  trashOctets: number
  hasSession: boolean
  createdAt: Date
}

/** With a keyring, SCRAM keys are derived from each password that is set. */
export interface NewCredentials {
  password: Secret
  /** Needs a keyring. */
  apopSecret: Secret | undefined
  quotaOctets: number | undefined
  /** Seals them; undefined: no APOP, no SCRAM. */
  keyring: Keyring | undefined
}

/** @returns the address as it is kept */
export async function addUser(
  db: Database,
  address: string,
  user: NewCredentials,
): Promise<string> {
  const { localPart, domainName } = parseAddress(address)
  const { apopSecret, quotaOctets, keyring } = user
  checkPassword('password', user.password)
  checkApop(apopSecret, keyring)
  const [password] = passwordForms(user.password)
  const domain = await requireDomain(db, domainName)
  // Asked before hashing, so that a duplicate is told at once; the constraint has the last word.
  const taken = await selectUser(db, domain.domainId, localPart)
  if (taken !== undefined)
    throw refused(`${formatAddress({ localPart: taken.localPart, domainName })} exists already`)
  const passwordHash = await hashPassword(password)
  await refusing(() =>
    insertUser(db, domain.domainId, { localPart, passwordHash, quotaOctets }, (userId) =>
      seal(
        db,
        keyring,
        { ...domain, domainName, localPart, userId, passwordHash },
        password,
        apopSecret,
      ),
    ),
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
  change: {
    password: Secret | undefined
    apop: Secret | 'remove' | undefined
    keyring: Keyring | undefined
  },
): Promise<void> {
  const { keyring, apop } = change
  if (change.password !== undefined) checkPassword('password', change.password)
  const apopSecret = apop === 'remove' ? undefined : apop
  checkApop(apopSecret, keyring)
  const { row, domainName } = await requireUser(db, address)
  const [password] = change.password === undefined ? [] : passwordForms(change.password)
  const passwordHash = password && (await hashPassword(password))
  const sealed = await seal(db, keyring, { ...row, domainName, passwordHash }, password, apopSecret)
  await refusing(() =>
    updateUserCredentials(db, row.domainId, row.userId, {
      passwordHash,
      scramKeys: sealed.scramKeys,
      apopSecret: apop === 'remove' ? null : sealed.apopSecret,
    }),
  )
}

/**
 * Whether the password itself opens the maildrop, or only app passwords, certificates and tokens
 * do. Ends the user's session.
 */
export async function allowMainPassword(
  db: Database,
  address: string,
  isAllowed: boolean,
): Promise<void> {
  const { row } = await requireUser(db, address)
  await updateMainPasswordAllowed(db, row.domainId, row.userId, isAllowed)
}

/** What is missing stays; undefined: no limit. */
export async function changeQuota(
  db: Database,
  address: string,
  quota: { octets?: number | undefined; messages?: number | undefined },
): Promise<void> {
  const { row } = await requireUser(db, address)
  await refusing(() => updateUserQuota(db, row.domainId, row.userId, quota))
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

/**
 * With all messages, at once and for good.
 * @throws {Failure} OPERATION_REFUSED under a legal hold
 */
export async function removeUser(db: Database, address: string): Promise<void> {
  const { row, domainName } = await requireUser(db, address)
  await refuseHeld(db, row.domainId, row.userId)
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

/** Before anything is written. */
function checkApop(secret: Secret | undefined, keyring: Keyring | undefined): void {
  if (secret === undefined) return
  if (keyring === undefined)
    throw refused('APOP needs POPGRES_SECRET_KEY: set it (openssl rand -hex 32) on every node')
  checkPassword('APOP secret', secret)
}

/** What is stored sealed of a user's credentials; all of it is bound to the user's id. */
async function seal(
  db: Database,
  keyring: Keyring | undefined,
  owner: Omit<ScramOwner, 'passwordHash'> & { passwordHash: string | undefined },
  password: Secret | undefined,
  apopSecret: Secret | undefined,
): Promise<SealedCredentials> {
  const { domainId, userId, passwordHash } = owner
  if (keyring === undefined) return {}
  const scramKeys =
    password && passwordHash !== undefined
      ? await deriveSealedKeys(db, keyring, { ...owner, passwordHash }, password)
      : undefined
  return {
    scramKeys,
    apopSecret: apopSecret && keyring.seal(apopUse(domainId, userId), apopSecret),
  }
}

function toUser(row: UserRow, domainName: string, isDomainSuspended: boolean): User {
  return {
    address: formatAddress({ localPart: row.localPart, domainName }),
    passwordScheme: row.hashHead === undefined ? null : schemeOf(row.hashHead),
    hasApop: row.hasApop,
    hasScram: row.hasScram,
    isMainPasswordAllowed: row.isMainPasswordAllowed,
    credentialCount: row.credentialCount,
    isSuspended: row.isSuspended,
    isDomainSuspended,
    quotaOctets: row.quotaOctets ?? null,
    quotaMessages: row.quotaMessages ?? null,
    messageCount: row.messageCount,
    octets: row.octets,
    trashCount: row.trashCount,
    trashOctets: row.trashOctets,
    hasSession: row.hasSession,
    createdAt: row.createdAt,
  }
}
