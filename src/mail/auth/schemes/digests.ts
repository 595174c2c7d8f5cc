/**
 * Plain and salted digests, as LDAP (RFC 2307) and Dovecot store them: {SHA}, {SSHA}, {SHA256}, … A
 * salt follows its digest. They cost nothing to try, which is why they go at the next login.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { StoredHash } from './scheme.ts'

export interface DigestScheme {
  algorithm: string
  digestOctets: number
  isSalted: boolean
}

const scheme = (algorithm: string, digestOctets: number, isSalted = false): DigestScheme => ({
  algorithm,
  digestOctets,
  isSalted,
})

/** By name. */
export const DIGEST_SCHEMES: ReadonlyMap<string, DigestScheme> = new Map([
  ['PLAIN-MD5', scheme('md5', 16)],
  ['LDAP-MD5', scheme('md5', 16)],
  ['SMD5', scheme('md5', 16, true)],
  ['SHA', scheme('sha1', 20)],
  ['SHA1', scheme('sha1', 20)],
  ['SSHA', scheme('sha1', 20, true)],
  ['SHA256', scheme('sha256', 32)],
  ['SSHA256', scheme('sha256', 32, true)],
  ['SHA512', scheme('sha512', 64)],
  ['SSHA512', scheme('sha512', 64, true)],
])

/** @param octets the digest, and the salt */
export function parseDigest(
  { algorithm, digestOctets, isSalted }: DigestScheme,
  octets: Buffer,
): StoredHash | undefined {
  if (isSalted ? octets.length <= digestOctets : octets.length !== digestOctets) return undefined
  const digest = octets.subarray(0, digestOctets)
  const salt = octets.subarray(digestOctets)
  return {
    verify: async (password) => {
      const computed = createHash(algorithm).update(password.reveal()).update(salt).digest()
      return timingSafeEqual(computed, digest)
    },
  }
}
