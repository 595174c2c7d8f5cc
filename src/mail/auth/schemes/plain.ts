/** {PLAIN}: the password itself. Compared by digest, so that neither length nor place is told. */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { StoredHash } from './scheme.ts'

const digestOf = (octets: Buffer): Buffer => createHash('sha256').update(octets).digest()

/** @returns undefined for an empty one: nobody logs in without a password */
export function parsePlain(octets: Buffer): StoredHash | undefined {
  if (octets.length === 0) return undefined
  const digest = digestOf(octets)
  return { verify: async (password) => timingSafeEqual(digestOf(password.reveal()), digest) }
}
