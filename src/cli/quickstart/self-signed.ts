/**
 * A certificate of the node's own making, so that TLS works at once where nothing is configured. No
 * client trusts it before its user says so; it is kept from start to start, so that this is asked
 * once.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { generate } from 'selfsigned'
import { Failure } from '../../base/failure.ts'
import type { Log } from '../../base/log.ts'
import { Secret } from '../../base/secret.ts'
import { coversHost, openKeyPair } from '../../server/tls/key-pair.ts'
import { readOwnFile, replaceOwnFile } from '../embedded/private-files.ts'

const DAY_MS = 86_400_000
const VALID_DAYS = 365
const RENEWED_DAYS = 30
/** RFC 5280 appendix A.1, ub-common-name. */
const COMMON_NAME_MAX = 64

/** ensureSelfSigned now, and each day until it is stopped: a node may run for a year. */
export async function keepSelfSigned(
  directory: string,
  hostname: string,
  log: Log,
): Promise<{ files: { certFile: string; keyFile: string }; stop: () => void }> {
  const files = await ensureSelfSigned(directory, hostname)
  const timer = setInterval(() => {
    ensureSelfSigned(directory, hostname).catch((error) =>
      log.error({ error }, 'the self-signed TLS certificate cannot be renewed: tried again daily'),
    )
  }, DAY_MS).unref()
  return { files, stop: () => clearInterval(timer) }
}

/**
 * Makes certificate and key if they are missing, unusable, for another name, or expire within 30
 * days. A running node may call it again: the door sees changed files.
 * @param directory made if it is missing; of the process' own, see private-files.ts
 * @param hostname besides localhost and the loopback addresses
 */
export async function ensureSelfSigned(
  directory: string,
  hostname: string,
): Promise<{ certFile: string; keyFile: string }> {
  const certFile = join(directory, 'self-signed-cert.pem')
  const keyFile = join(directory, 'self-signed-key.pem')
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  if (!isGoodFor(hostname, certFile, keyFile)) {
    const { cert, private: key } = await makeCertificate(hostname)
    replaceOwnFile(keyFile, key, 0o600)
    replaceOwnFile(certFile, cert, 0o600)
  }
  return { certFile, keyFile }
}

function isGoodFor(hostname: string, certFile: string, keyFile: string): boolean {
  try {
    const chain = readOwnFile(certFile).text
    const { certificate } = openKeyPair({ chain, key: new Secret(readOwnFile(keyFile).text) })
    const end = Date.parse(certificate.validTo) - RENEWED_DAYS * DAY_MS
    return Date.now() < end && coversHost(certificate, hostname)
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === 'ENOENT'
    if (isMissing || (error instanceof Failure && error.code === 'TLS_CERTIFICATE')) return false
    throw error
  }
}

function makeCertificate(hostname: string): ReturnType<typeof generate> {
  const names = [...new Set([hostname.toLowerCase(), 'localhost'])]
  return generate([{ name: 'commonName', value: hostname.slice(0, COMMON_NAME_MAX) }], {
    keyType: 'ec',
    algorithm: 'sha256',
    // Clocks of clients differ.
    notBeforeDate: new Date(Date.now() - DAY_MS),
    notAfterDate: new Date(Date.now() + VALID_DAYS * DAY_MS),
    extensions: [
      { name: 'basicConstraints', cA: false, critical: true },
      { name: 'keyUsage', digitalSignature: true, critical: true },
      { name: 'extKeyUsage', serverAuth: true },
      {
        name: 'subjectAltName',
        altNames: [
          ...names.map((value) => ({ type: 2 as const, value })),
          { type: 7, ip: '127.0.0.1' },
          { type: 7, ip: '::1' },
        ],
      },
    ],
  })
}
