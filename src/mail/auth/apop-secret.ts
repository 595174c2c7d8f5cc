/**
 * APOP. It needs the secret itself, which no password hash can give back, so it is opt-in for each
 * user, with a secret of its own that is stored sealed (base/keyring.ts) and bound to its user.
 */
import { createHash } from 'node:crypto'
import type { Secret } from '../../base/secret.ts'

/** What an APOP secret is sealed for. */
export const apopUse = (domainId: number, userId: number): string => `apop ${domainId} ${userId}`

/**
 * RFC 1939 §7: MD5 over the timestamp, angle brackets included, followed by the secret.
 * @returns 32 hexadecimal digits in lower case
 */
export function apopDigest(timestamp: string, secret: Secret): string {
  return createHash('md5').update(timestamp, 'latin1').update(secret.reveal()).digest('hex')
}
