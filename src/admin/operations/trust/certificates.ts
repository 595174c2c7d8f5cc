/**
 * TLS certificates that all nodes share through the database. One is looked at before it is stored:
 * what a node could not use, or clients would not accept, is refused here in words.
 */
import { isFailure } from '../../../base/failure.ts'
import type { Keyring } from '../../../base/keyring.ts'
import { certificateUse } from '../../../server/tls/kept-key-pair.ts'
import {
  coversHost,
  type KeyPair,
  openKeyPair,
  readCertificate,
} from '../../../server/tls/key-pair.ts'
import {
  deleteCertificate,
  putCertificate,
  selectCertificates,
} from '../../../storage/certificates.ts'
import type { Database } from '../../../storage/postgres/database.ts'
import { parseDomainName } from '../../address.ts'
import { refused, refusing } from '../../refusal.ts'

export interface Certificate {
  /** Whom clients ask for; `*.example.com` is for any name right below. */
  hostName: string
  expiresAt: Date
  isExpired: boolean
  addedAt: Date
}

/**
 * Adds the certificate or replaces the one before it; running nodes use it within seconds.
 * @param keyring seals the private key
 */
export async function addCertificate(
  db: Database,
  keyring: Keyring | undefined,
  hostName: string,
  pair: KeyPair,
): Promise<{ certificate: Certificate; isNew: boolean }> {
  const host = parseCertificateHost(hostName)
  if (keyring === undefined)
    throw refused(
      'the private key is stored encrypted: set POPGRES_SECRET_KEY, to the same on all nodes',
    )
  const chain = certificatesIn(pair.chain)
  const certificate = openUsable(host, { ...pair, chain })
  const sealed = keyring.seal(certificateUse(host), pair.key)
  const isNew = await refusing(() => putCertificate(db, host, chain, sealed))
  return { certificate: { hostName: host, ...certificate, addedAt: new Date() }, isNew }
}

export async function listCertificates(db: Database): Promise<Certificate[]> {
  const rows = await selectCertificates(db)
  return rows.map(({ hostName, chain, updatedAt }) => ({
    hostName,
    ...expiryOf(Date.parse(readCertificate(chain).validTo)),
    addedAt: updatedAt,
  }))
}

/** @returns the name as it was kept */
export async function removeCertificate(db: Database, hostName: string): Promise<string> {
  const host = parseCertificateHost(hostName)
  if (!(await deleteCertificate(db, host)))
    throw refused(`there is no certificate for ${host}: see "popgres certificate list"`)
  return host
}

/** The chain is stored as it is: a private key or words in the same file must not come along. */
function certificatesIn(pem: string): string {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  return blocks.map((block) => `${block}\n`).join('')
}

function openUsable(host: string, pair: KeyPair): { expiresAt: Date; isExpired: boolean } {
  try {
    const { certificate } = openKeyPair(pair)
    if (!coversHost(certificate, host)) {
      const names = certificate.subjectAltName?.replaceAll('DNS:', '') ?? 'no name'
      throw refused(`the certificate is not for ${host} but for ${names}`)
    }
    const expiry = expiryOf(Date.parse(certificate.validTo))
    if (expiry.isExpired) throw refused(`the certificate has expired, on ${certificate.validTo}`)
    return expiry
  } catch (error) {
    throw isFailure(error, 'TLS_CERTIFICATE') ? refused(error.message, error) : error
  }
}

function expiryOf(expires: number): { expiresAt: Date; isExpired: boolean } {
  return { expiresAt: new Date(expires), isExpired: expires <= Date.now() }
}

/** @throws {Failure} OPERATION_REFUSED */
function parseCertificateHost(text: string): string {
  return text.startsWith('*.') ? `*.${parseDomainName(text.slice(2))}` : parseDomainName(text)
}
