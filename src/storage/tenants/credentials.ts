/**
 * App passwords and client certificates: for a login the statement that finds a certificate's
 * owner (app passwords come with the account, see accounts.ts), for operators ordinary queries and
 * the SQL functions that docs/sql.md documents.
 */
import { sql } from 'kysely'
import { isUsableSql, USE_IS_RECORDED_SQL } from '../accounts.ts'
import type { Database, Statement } from '../postgres/database.ts'
import {
  decodeBoolean,
  decodeInt4,
  decodeInt8,
  decodeText,
  decodeUuid,
  present,
} from '../postgres/decode.ts'

export interface CertificateOwner {
  domainId: number
  userId: number
  domainName: string
  localPart: string
  credentialId: string
  /** last_used_at is less than an hour old, so it need not be written */
  isUseRecorded: boolean
}

export interface CredentialRow {
  credentialId: string
  kind: 'app-password' | 'certificate'
  name: string
  expiresAt: Date | undefined
  /** CIDR; undefined: from everywhere */
  networks: string[] | undefined
  createdAt: Date
  /** to the hour */
  lastUsedAt: Date | undefined
}

/** What may restrict a new credential. */
export interface CredentialLimits {
  expiresAt: Date | undefined
  /** addresses or CIDR */
  networks: readonly string[] | undefined
}

// By the certificate, so it cannot name domain_id first: like LOGIN_ACCOUNT. A user once, however
// often it has it. LIMIT: owners.
export const CERTIFICATE_OWNERS: Statement = {
  name: 'certificate-owners',
  text: `select distinct on (d.domain_id, u.user_id)
    d.domain_id, u.user_id, d.name, u.local_part, c.credential_id,
    ${USE_IS_RECORDED_SQL}
  from credentials c
    join users u on u.domain_id = c.domain_id and u.user_id = c.user_id
    join domains d on d.domain_id = c.domain_id
  where c.digest = $1::bytea and c.kind = 'certificate' and ${isUsableSql('$2')}
  order by d.domain_id, u.user_id, c.name limit 100`,
}

export const CREDENTIAL_USED: Statement = {
  name: 'credential-used',
  text: `update credentials c set last_used_at = now()
  where c.domain_id = $1 and c.user_id = $2 and c.credential_id = $3::uuid
    and (c.last_used_at is null or c.last_used_at <= now() - interval '1 hour')`,
}

/**
 * Whose certificate it is, if it may be used now and from there.
 * @param digest SHA-256 of its DER
 * @param client an IP address; undefined: a Unix socket
 */
export async function selectCertificateOwners(
  db: Database,
  digest: Buffer,
  client: string | undefined,
): Promise<CertificateOwner[]> {
  const rows = await db.hotOrBulk(CERTIFICATE_OWNERS, [digest, client ?? null])
  return rows.map((row) => ({
    domainId: decodeInt4(present(row, 0)),
    userId: decodeInt8(present(row, 1)),
    domainName: decodeText(present(row, 2)),
    localPart: decodeText(present(row, 3)),
    credentialId: decodeUuid(present(row, 4)),
    isUseRecorded: decodeBoolean(present(row, 5)),
  }))
}

/** Writes at most once an hour. */
export async function recordCredentialUse(
  db: Database,
  domainId: number,
  userId: number,
  credentialId: string,
): Promise<void> {
  await db.hot(CREDENTIAL_USED, [domainId, userId, credentialId])
}

/** @returns the secret, which is stored nowhere */
export async function addAppPassword(
  db: Database,
  address: string,
  name: string,
  { expiresAt, networks }: CredentialLimits,
): Promise<string> {
  const { rows } = await sql<{ secret: string }>`select add_app_password(${address}, ${name},
    ${expiresAt ?? null}, ${cidrs(networks)}) as secret`.execute(db.kysely)
  return rows[0]?.secret ?? ''
}

/** @param digest SHA-256 of its DER */
export async function addCertificate(
  db: Database,
  address: string,
  name: string,
  digest: Buffer,
  { expiresAt, networks }: CredentialLimits,
): Promise<void> {
  await sql`select add_credential(${address}, 'certificate', ${name}, ${digest},
    ${expiresAt ?? null}, ${cidrs(networks)})`.execute(db.kysely)
}

/** One that another server had, whatever became of its secret. */
export interface KnownCredential extends CredentialLimits {
  kind: 'app-password' | 'certificate'
  name: string
  digest: Buffer
}

/** A name that the user has already stays as it is. */
export async function insertCredentials(
  db: Database,
  { domainId, userId }: { domainId: number; userId: number },
  credentials: readonly KnownCredential[],
): Promise<void> {
  if (credentials.length === 0) return
  await db.kysely
    .insertInto('credentials')
    .values(
      credentials.map(({ kind, name, digest, expiresAt, networks }) => ({
        domain_id: domainId,
        user_id: userId,
        ...{ kind, name, digest },
        expires_at: expiresAt ?? null,
        networks: sql<string[] | null>`${cidrs(networks)}`,
      })),
    )
    .onConflict((conflict) => conflict.doNothing())
    .execute()
}

/** In the order of their names. */
export async function selectCredentials(
  db: Database,
  domainId: number,
  userId: number,
): Promise<CredentialRow[]> {
  const rows = await db.kysely
    .selectFrom('credentials')
    .select(['credential_id', 'kind', 'name', 'expires_at', 'created_at', 'last_used_at'])
    .select(sql<string[] | null>`networks::text[]`.as('networks'))
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .orderBy('name')
    .execute()
  return rows.map((row) => ({
    credentialId: row.credential_id,
    kind: row.kind,
    name: row.name,
    expiresAt: row.expires_at ?? undefined,
    networks: row.networks ?? undefined,
    createdAt: row.created_at,
    lastUsedAt: row.last_used_at ?? undefined,
  }))
}

/** Ends the session that it opened. @returns false: the user has none of that name */
export async function revokeCredential(
  db: Database,
  address: string,
  name: string,
): Promise<boolean> {
  const { rows } = await sql<{
    was_there: boolean
  }>`select revoke_credential(${address}, ${name}) as was_there`.execute(db.kysely)
  return rows[0]?.was_there === true
}

/** The cast takes host bits away, which cidr does not allow. */
function cidrs(networks: readonly string[] | undefined) {
  const texts = networks === undefined ? null : [...networks]
  return sql`${texts}::inet[]::cidr[]`
}
