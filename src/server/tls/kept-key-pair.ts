/**
 * A certificate and its key as they were last found in files or in the database. They are read
 * again only when they have changed; what cannot be used leaves the ones before it in use.
 */
import { readFile, stat } from 'node:fs/promises'
import { Failure } from '../../base/failure.ts'
import type { Keyring } from '../../base/keyring.ts'
import { Secret } from '../../base/secret.ts'
import type { StoredCertificate } from '../../storage/certificates.ts'
import { type KeyPair, type OpenedKeyPair, openKeyPair } from './key-pair.ts'

export interface KeptKeyPair {
  /** Of the files or the row, usable or not. */
  version: string
  /** undefined: it never could be used. */
  opened: OpenedKeyPair | undefined
}

export interface PemFiles {
  cert: string
  key: string
}

/**
 * @param tell is called, once for each version, with what is wrong and whether another stays
 * @returns `kept` if nothing has changed
 */
export async function keep(
  kept: KeptKeyPair | undefined,
  version: string,
  read: () => KeyPair | Promise<KeyPair>,
  tell: (reason: string, hasOther: boolean) => void,
): Promise<KeptKeyPair> {
  if (kept?.version === version) return kept
  try {
    return { version, opened: openKeyPair(await read()) }
  } catch (error) {
    const opened = kept?.opened
    tell((error as Error).message, opened !== undefined)
    return { version, opened }
  }
}

/** @returns what changes when one of the files does; undefined: neither is there */
export async function versionOf(files: PemFiles): Promise<string | undefined> {
  const [cert, key] = await Promise.all([fileVersion(files.cert), fileVersion(files.key)])
  return cert === undefined && key === undefined ? undefined : `${cert} ${key}`
}

async function fileVersion(file: string): Promise<string | undefined> {
  try {
    const { ino, size, mtimeMs } = await stat(file)
    return `${ino}/${size}/${mtimeMs}`
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return code === 'ENOENT' || code === 'ENOTDIR' ? undefined : code
  }
}

/** @throws errors of node:fs */
export async function readPemFiles(files: PemFiles): Promise<KeyPair> {
  const [chain, key] = await Promise.all([readFile(files.cert, 'utf8'), readFile(files.key)])
  return { chain, key: new Secret(key) }
}

/** What the private key of a host is sealed for, see base/keyring.ts. */
export function certificateUse(hostName: string): string {
  return `certificate ${hostName}`
}

export function rowVersion(row: StoredCertificate): string {
  // The nonce is in a sealed key's first octets: sealed anew, it is tried anew.
  return `${row.version} ${row.privateKey.toString('hex', 0, 16)}`
}

/** @throws {Failure} TLS_CERTIFICATE, if this node does not have the key that sealed it */
export function unsealRow(row: StoredCertificate, keyring: Keyring | undefined): KeyPair {
  if (keyring === undefined)
    throw new Failure('TLS_CERTIFICATE', 'its private key is sealed: set POPGRES_SECRET_KEY')
  const found = keyring.open(certificateUse(row.hostName), row.privateKey)
  if (found.kind === 'opened') return { chain: row.chain, key: found.secret }
  throw new Failure(
    'TLS_CERTIFICATE',
    found.kind === 'other-key'
      ? 'its private key was sealed with a POPGRES_SECRET_KEY that this node does not have'
      : 'its sealed private key is damaged: add the certificate again',
  )
}
