/**
 * What SCRAM-SHA-256 (RFC 5802 §3, RFC 7677) keeps in place of a password. It is derived whenever
 * the password is at hand, and stored sealed (base/keyring.ts): who reads StoredKey can try
 * passwords at a small fraction of argon2's cost, and who reads ServerKey can play the server.
 */
import {
  createHash,
  createHmac,
  pbkdf2 as pbkdf2WithCallback,
  randomBytes,
  timingSafeEqual,
} from 'node:crypto'
import { promisify } from 'node:util'
import { Secret } from '../../base/secret.ts'
import { passwordForms } from '../../protocol/sasl/text.ts'

export interface ScramKeys {
  salt: Buffer
  iterations: number
  storedKey: Buffer
  serverKey: Buffer
}

/**
 * Of PBKDF2, and the client pays them at each login: 10 ms of a computer, up to some 0.1 s of an
 * old phone that polls all day. Four times what RFC 7677 §4 asks for at least. More would be
 * felt before it helped: stolen keys are of no use without POPGRES_SECRET_KEY.
 */
export const SCRAM_ITERATIONS = 16_384
const SALT_OCTETS = 16
const HASH_OCTETS = 32

/** LIMIT: of what is stored. Nobody imports keys, but a row may be written by hand. */
const ITERATIONS_MAX = 1_000_000
const KEY = '([A-Za-z0-9+/]{43}=)'
const STORED = new RegExp(
  `^SCRAM-SHA-256\\$([1-9]\\d{3,6}):([A-Za-z0-9+/]{8,88}={0,2})\\$${KEY}:${KEY}$`,
)

const pbkdf2 = promisify(pbkdf2WithCallback)

/** What SCRAM keys are sealed for. */
export const scramUse = (domainId: number, userId: number): string => `scram ${domainId} ${userId}`

/**
 * RFC 5802 §3, of the password prepared by SASLprep if it can be. The work is done outside the
 * event loop.
 * @param salt see `inventedSalt`
 */
export async function deriveScramKeys(
  password: Secret,
  salt: Buffer,
  iterations = SCRAM_ITERATIONS,
): Promise<ScramKeys> {
  const [prepared] = passwordForms(password)
  const salted = await pbkdf2(prepared.reveal(), salt, iterations, HASH_OCTETS, 'sha256')
  const clientKey = hmac(salted, 'Client Key')
  return { salt, iterations, storedKey: sha256(clientKey), serverKey: hmac(salted, 'Server Key') }
}

/**
 * The salt of an address. It is shown whether or not there is such a user, so what the exchange
 * shows does not change when a user comes, gets keys or a new password, nor with the secret key.
 * It is as good as a random one: nobody else has it, and nobody can foretell it.
 * @param saltKey 32 octets that only nodes know
 * @param name the address, in the form in which two spellings of it are one
 */
export function inventedSalt(saltKey: Buffer, name: string): Buffer {
  return hmac(saltKey, name).subarray(0, SALT_OCTETS)
}

/** Keys that no proof fits, to be verified for who has none. */
export function inventedScramKeys(saltKey: Buffer, name: string): ScramKeys {
  return {
    salt: inventedSalt(saltKey, name),
    iterations: SCRAM_ITERATIONS,
    storedKey: randomBytes(HASH_OCTETS),
    serverKey: randomBytes(HASH_OCTETS),
  }
}

/**
 * @param authMessage RFC 5802 §3, AuthMessage
 * @returns ServerSignature, to be sent to the client; undefined: the proof is wrong
 */
export function verifyScramProof(
  { storedKey, serverKey }: ScramKeys,
  authMessage: string,
  clientProof: Buffer,
): Buffer | undefined {
  if (clientProof.length !== HASH_OCTETS) return undefined
  const signature = hmac(storedKey, authMessage)
  const clientKey = Buffer.from(signature.map((octet, i) => octet ^ (clientProof[i] ?? 0)))
  return timingSafeEqual(sha256(clientKey), storedKey) ? hmac(serverKey, authMessage) : undefined
}

/** @returns the text form of RFC 5803, as a secret that is to be sealed */
export function serializeScramKeys({ salt, iterations, storedKey, serverKey }: ScramKeys): Secret {
  const [saltText, stored, server] = [salt, storedKey, serverKey].map((b) => b.toString('base64'))
  return new Secret(`SCRAM-SHA-256$${iterations}:${saltText}$${stored}:${server}`)
}

/** @returns undefined for what is not the text form of RFC 5803, or beyond its limits here */
export function parseScramKeys(text: Secret): ScramKeys | undefined {
  const match = STORED.exec(text.reveal().toString('latin1'))
  if (match === null) return undefined
  const [, iterationsText, ...fields] = match
  const iterations = Number(iterationsText)
  const octets = fields.map((field) => Buffer.from(field, 'base64'))
  const [salt, storedKey, serverKey] = octets
  const isCanonical = octets.every((field, index) => field.toString('base64') === fields[index])
  if (!isCanonical || iterations > ITERATIONS_MAX || !salt || !storedKey || !serverKey)
    return undefined
  return { salt, iterations, storedKey, serverKey }
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text, 'utf8').digest()
}

function sha256(octets: Buffer): Buffer {
  return createHash('sha256').update(octets).digest()
}
