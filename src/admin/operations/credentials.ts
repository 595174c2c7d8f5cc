/**
 * What an operator does with the credentials that a user has besides its password: app passwords,
 * one for each device, and client certificates. An app password is made up here and shown once.
 */
import { createHash, X509Certificate } from 'node:crypto'
import { Networks } from '../../base/network.ts'
import { Secret } from '../../base/secret.ts'
import { selectScramUse } from '../../storage/accounts.ts'
import type { Database } from '../../storage/postgres/database.ts'
import {
  addAppPassword,
  addCertificate,
  type CredentialLimits,
  type CredentialRow,
  revokeCredential,
  selectCredentials,
} from '../../storage/tenants/credentials.ts'
import { formatAddress } from '../address.ts'
import { refused, refusing } from '../refusal.ts'
import { requireUser } from './users.ts'

export interface Credential {
  /** as the log has it */
  credentialId: string
  name: string
  kind: 'app-password' | 'certificate'
  /** null: never */
  expiresAt: Date | null
  isExpired: boolean
  /** CIDR; null: from everywhere */
  networks: string[] | null
  createdAt: Date
  /** to the hour; null: not yet */
  lastUsedAt: Date | null
}

/** As add_credential of migrations/0004_login_functions.sql has it. */
const CREDENTIALS_MAX = 50

export interface CreatedAppPassword {
  /** stored nowhere */
  secret: Secret
  /** SCRAM worked for every password until now: it does not for this one */
  isFirstWithoutScram: boolean
}

export async function createAppPassword(
  db: Database,
  address: string,
  name: string,
  limits: CredentialLimits,
): Promise<CreatedAppPassword> {
  const owner = await prepare(db, address, limits)
  const isFirstWithoutScram = (await selectScramUse(db)) === 'all'
  const secret = new Secret(await refusing(() => addAppPassword(db, owner, name, limits)))
  return { secret, isFirstWithoutScram }
}

/**
 * Lets the holder of the certificate's key log in by EXTERNAL. Who issued it does not matter; it
 * ends when it says so itself, or sooner.
 * @param certificate PEM or DER
 */
export async function bindCertificate(
  db: Database,
  address: string,
  name: string,
  certificate: Buffer,
  limits: CredentialLimits,
): Promise<void> {
  const { raw, validTo } = parseCertificate(certificate)
  const ends = new Date(validTo)
  const expiresAt = limits.expiresAt && limits.expiresAt < ends ? limits.expiresAt : ends
  const owner = await prepare(db, address, { ...limits, expiresAt })
  const digest = createHash('sha256').update(raw).digest()
  await refusing(() => addCertificate(db, owner, name, digest, { ...limits, expiresAt }))
}

export async function listCredentials(db: Database, address: string): Promise<Credential[]> {
  const { row } = await requireUser(db, address)
  const found = await selectCredentials(db, row.domainId, row.userId)
  return found.map(({ credentialId, name, kind, expiresAt, networks, createdAt, lastUsedAt }) => ({
    credentialId,
    name,
    kind,
    expiresAt: expiresAt ?? null,
    isExpired: expiresAt !== undefined && expiresAt.getTime() <= Date.now(),
    networks: networks ?? null,
    createdAt,
    lastUsedAt: lastUsedAt ?? null,
  }))
}

/** Ends the session that it opened. @returns what it was */
export async function removeCredential(
  db: Database,
  address: string,
  name: string,
): Promise<CredentialRow> {
  const { row, domainName } = await requireUser(db, address)
  const owner = formatAddress({ localPart: row.localPart, domainName })
  const found = await selectCredentials(db, row.domainId, row.userId)
  const removed = found.find((credential) => credential.name === name)
  if (removed === undefined || !(await revokeCredential(db, owner, name)))
    throw refused(
      `${owner} has no credential ${JSON.stringify(name)}: see "popgres credential list ${owner}"`,
    )
  return removed
}

/** What can be told before the database refuses it. @returns the address as it is kept */
async function prepare(
  db: Database,
  address: string,
  { expiresAt, networks }: CredentialLimits,
): Promise<string> {
  if (expiresAt !== undefined && expiresAt.getTime() <= Date.now())
    throw refused('it would have expired already: give a later date')
  const wrong = networks?.find((network) => !new Networks().add(network))
  if (wrong !== undefined)
    throw refused(`${JSON.stringify(wrong)} is not a network: write it like 192.0.2.0/24`)
  const { row, domainName } = await requireUser(db, address)
  const owner = formatAddress({ localPart: row.localPart, domainName })
  if (row.credentialCount >= CREDENTIALS_MAX)
    throw refused(`${owner} has ${CREDENTIALS_MAX} credentials, the most there may be: revoke one`)
  return owner
}

function parseCertificate(octets: Buffer): X509Certificate {
  try {
    return new X509Certificate(octets)
  } catch (error) {
    throw refused('this is not a certificate: give one as PEM or DER', error)
  }
}
