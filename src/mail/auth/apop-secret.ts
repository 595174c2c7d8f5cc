/**
 * APOP secrets. APOP needs the secret itself, which no password hash can give back, so it is opt-in
 * for each user, with a secret of its own that is stored encrypted under POPGRES_SECRET_KEY.
 *
 * Stored form: key id (4 octets of SHA-256 of the key), nonce (12), tag (16), ciphertext;
 * AES-256-GCM. Domain and user ids are authenticated along with it: a row copied to another user
 * does not decrypt. The key id tells "another key" from "damaged" and lets keys be changed one user
 * at a time.
 */
import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto'
import { assert } from '../../base/assert.ts'
import { Secret } from '../../base/secret.ts'

const CIPHER = 'aes-256-gcm'
const KEY_OCTETS = 32
const KEY_ID_OCTETS = 4
const NONCE_OCTETS = 12
const TAG_OCTETS = 16
const HEAD_OCTETS = KEY_ID_OCTETS + NONCE_OCTETS + TAG_OCTETS

function keyId(key: Secret): Buffer {
  assert(key.reveal().length === KEY_OCTETS, 'a secret key has 32 octets')
  return createHash('sha256').update(key.reveal()).digest().subarray(0, KEY_ID_OCTETS)
}

const boundTo = (domainId: number, userId: number): Buffer =>
  Buffer.from(`popgres apop ${domainId} ${userId}`, 'latin1')

/**
 * @param key 32 octets
 * @param secret what the user and the client share, any octets
 * @returns what `users.apop_secret` holds
 */
export function encryptApopSecret(
  key: Secret,
  domainId: number,
  userId: number,
  secret: Secret,
): Buffer {
  const nonce = randomBytes(NONCE_OCTETS)
  const cipher = createCipheriv(CIPHER, key.reveal(), nonce)
  cipher.setAAD(boundTo(domainId, userId))
  const ciphertext = Buffer.concat([cipher.update(secret.reveal()), cipher.final()])
  return Buffer.concat([keyId(key), nonce, cipher.getAuthTag(), ciphertext])
}

/** @returns undefined if it was encrypted under another key, for another user, or is damaged */
export function decryptApopSecret(
  key: Secret,
  domainId: number,
  userId: number,
  stored: Buffer,
): Secret | undefined {
  if (stored.length < HEAD_OCTETS || !isApopSecretOf(key, stored)) return undefined
  const nonce = stored.subarray(KEY_ID_OCTETS, KEY_ID_OCTETS + NONCE_OCTETS)
  const decipher = createDecipheriv(CIPHER, key.reveal(), nonce, { authTagLength: TAG_OCTETS })
  decipher.setAAD(boundTo(domainId, userId))
  decipher.setAuthTag(stored.subarray(KEY_ID_OCTETS + NONCE_OCTETS, HEAD_OCTETS))
  const text = decipher.update(stored.subarray(HEAD_OCTETS))
  try {
    return new Secret(Buffer.concat([text, decipher.final()]))
  } catch {
    return undefined
  }
}

/** Whether a stored secret names this key, so that "another key" can be told from "damaged". */
export function isApopSecretOf(key: Secret, stored: Buffer): boolean {
  return stored.subarray(0, KEY_ID_OCTETS).equals(keyId(key))
}

/**
 * RFC 1939 §7: MD5 over the timestamp, angle brackets included, followed by the secret.
 * @returns 32 hexadecimal digits in lower case
 */
export function apopDigest(timestamp: string, secret: Secret): string {
  return createHash('md5').update(timestamp, 'latin1').update(secret.reveal()).digest('hex')
}
