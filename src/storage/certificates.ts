/**
 * Host names: which domain each belongs to, and its TLS certificate. A handshake asks by the name
 * in the client's hello; the rest is for operators, ordinary queries through Kysely.
 */
import { sql } from 'kysely'
import type { Database, Statement } from './postgres/database.ts'
import { decodeText, present } from './postgres/decode.ts'

export interface StoredCertificate {
  /** its own, or the wildcard above */
  hostName: string
  /** PEM */
  chain: string
  /** encrypted, see server/tls/certificates.ts */
  privateKey: Buffer
  /** changes when the row is written; only ever compared */
  version: string
}

export interface TlsHost {
  certificate: StoredCertificate | undefined
  /** the domain that the name itself is bound to */
  domainName: string | undefined
}

// By name: whose it is, is the question. "*" sorts before all that a name may begin with, so that
// a certificate of the very name comes first.
export const TLS_HOST: Statement = {
  name: 'tls-host',
  text: `select c.host_name, c.chain, c.private_key, extract(epoch from c.updated_at)::text, d.name
  from (select 1) as always
    left join (
      select host_name, chain, private_key, updated_at from certificates
      where host_name in ($1::text, $2::text) order by host_name desc limit 1
    ) as c on true
    left join domain_hosts as h on h.host_name = $1::text
    left join domains as d on d.domain_id = h.domain_id`,
}

/** @param hostName in lower case; @param wildcard that would cover it, e.g. `*.example.com` */
export async function selectTlsHost(
  db: Database,
  hostName: string,
  wildcard: string,
): Promise<TlsHost> {
  const [row = []] = await db.hotOrBulk(TLS_HOST, [hostName, wildcard])
  const [certificateHost, , , , domainName] = row
  return {
    certificate: certificateHost
      ? {
          hostName: decodeText(certificateHost),
          chain: decodeText(present(row, 1)),
          privateKey: Buffer.from(present(row, 2)),
          version: decodeText(present(row, 3)),
        }
      : undefined,
    domainName: domainName ? decodeText(domainName) : undefined,
  }
}

/** @returns false: it replaced another; @throws {Failure} STORAGE_REFUSED */
export async function putCertificate(
  db: Database,
  hostName: string,
  chain: string,
  privateKey: Buffer,
): Promise<boolean> {
  const values = { chain, private_key: privateKey, updated_at: sql<Date>`clock_timestamp()` }
  const { is_new: isNew } = await db.kysely
    .insertInto('certificates')
    .values({ host_name: hostName, ...values })
    .onConflict((conflict) => conflict.column('host_name').doUpdateSet(values))
    .returning(sql<boolean>`xmax = 0`.as('is_new'))
    .executeTakeFirstOrThrow()
  return isNew
}

export async function hasCertificates(db: Database): Promise<boolean> {
  const found = await db.kysely
    .selectFrom('certificates')
    .select('host_name')
    .limit(1)
    .executeTakeFirst()
  return found !== undefined
}

/** In the order of their names, without the keys. */
export async function selectCertificates(
  db: Database,
): Promise<{ hostName: string; chain: string; updatedAt: Date }[]> {
  const rows = await db.kysely
    .selectFrom('certificates')
    .select(['host_name', 'chain', 'updated_at'])
    .orderBy('host_name')
    .execute()
  return rows.map((row) => ({
    hostName: row.host_name,
    chain: row.chain,
    updatedAt: row.updated_at,
  }))
}

/** @returns false: there was none */
export async function deleteCertificate(db: Database, hostName: string): Promise<boolean> {
  const { numDeletedRows } = await db.kysely
    .deleteFrom('certificates')
    .where('host_name', '=', hostName)
    .executeTakeFirstOrThrow()
  return numDeletedRows > 0n
}

/** @throws {Failure} STORAGE_REFUSED, constraint domain_hosts_host_name_key or domain_hosts_pkey */
export async function insertDomainHost(
  db: Database,
  domainId: number,
  hostName: string,
): Promise<void> {
  await db.kysely
    .insertInto('domain_hosts')
    .values({ domain_id: domainId, host_name: hostName })
    .execute()
}

/** Of all domains, in the order of the host names. */
export async function selectDomainHosts(
  db: Database,
): Promise<{ hostName: string; domainName: string }[]> {
  const rows = await db.kysely
    .selectFrom('domain_hosts as h')
    .innerJoin('domains as d', 'd.domain_id', 'h.domain_id')
    .select(['h.host_name', 'd.name'])
    .orderBy('h.host_name')
    .execute()
  return rows.map((row) => ({ hostName: row.host_name, domainName: row.name }))
}

/** @returns false: there was none */
export async function deleteDomainHost(
  db: Database,
  domainId: number,
  hostName: string,
): Promise<boolean> {
  const { numDeletedRows } = await db.kysely
    .deleteFrom('domain_hosts')
    .where('domain_id', '=', domainId)
    .where('host_name', '=', hostName)
    .executeTakeFirstOrThrow()
  return numDeletedRows > 0n
}
