/**
 * Password hashes as they are stored: what a migration brings is taken as it is, in the forms of
 * crypt(3) and with Dovecot's prefixes ({SSHA512}, {PLAIN.HEX}), and becomes argon2id at the first
 * login that succeeds. A hash that is cut, of an unknown scheme or dearer than the limit of its
 * scheme is unusable: nothing is computed, no password is right.
 */
import { Secret } from '../../../base/secret.ts'
import {
  computeArgon2,
  inSlowLane,
  isCurrentArgon2,
  isUsableArgon2,
  verifyArgon2,
} from '../argon2.ts'
import type { Asker } from '../hash-queue.ts'
import { parseCrypt } from './crypt.ts'
import { DIGEST_SCHEMES, parseDigest } from './digests.ts'
import { parsePbkdf2 } from './pbkdf2.ts'
import { parsePlain } from './plain.ts'

/** A hash that is understood and cheap enough to be verified. */
export interface StoredHash {
  verify(password: Secret): Promise<boolean>
  /** How much of a password it looks at; absent: all. */
  coversOctets?: number
  /** Verifying takes a thread for a while, so it waits in the slow lane. */
  isSlow?: boolean
}

/**
 * LIMIT: what a slow hash may cost, for people; the numbers stand beside each scheme. Whatever is
 * within takes some 0.3 s of a core of 2024, so that on one half as fast it still stays hidden in
 * the second that every refusal takes, and others do not wait long for their turn.
 */
export const SLOW_LIMITS =
  'argon2 128 MiB, and 256 MiB times passes; bcrypt cost 12; SHA-crypt 100,000 rounds; ' +
  'PBKDF2 500,000 rounds'

/** Dovecot takes any hash that begins with $ after any of these. */
const DOLLAR_SCHEMES: ReadonlySet<string> = new Set([
  ...['CRYPT', 'BLF-CRYPT', 'MD5', 'MD5-CRYPT', 'SHA256-CRYPT', 'SHA512-CRYPT'],
  ...['ARGON2I', 'ARGON2ID'],
])
const PLAIN_SCHEMES: ReadonlySet<string> = new Set(['PLAIN', 'CLEAR', 'CLEARTEXT'])

/** What is between the first two dollars → name for people. */
const DOLLAR_NAMES: ReadonlyMap<string, string> = new Map([
  ['argon2id', 'argon2id'],
  ['argon2i', 'argon2i'],
  ['2a', 'bcrypt'],
  ['2b', 'bcrypt'],
  ['2y', 'bcrypt'],
  ['6', 'sha512-crypt'],
  ['5', 'sha256-crypt'],
  ['1', 'md5-crypt'],
])

/** As `schemeOf` names them. */
export const KNOWN_SCHEMES: readonly string[] = [
  ...new Set(DOLLAR_NAMES.values()),
  'pbkdf2',
  ...[...DIGEST_SCHEMES.keys(), ...PLAIN_SCHEMES].map((name) => name.toLowerCase()),
]

const BRACES = /^\{([A-Z\d-]{3,24})(?:\.(HEX|B64|BASE64))?\}(.*)$/is

interface Parts {
  /** In upper case; empty: none was named. */
  scheme: string
  encoding: string | undefined
  text: string
}

function split(stored: string): Parts {
  const [, scheme = '', encoding, text = stored] = BRACES.exec(stored) ?? []
  return { scheme: scheme.toUpperCase(), encoding: encoding?.toUpperCase(), text }
}

/** @returns undefined if it is of no known scheme, cut, garbled, or costs too much to verify */
export function parseStoredHash(stored: string): StoredHash | undefined {
  const { scheme, encoding, text } = split(stored)
  const digest = DIGEST_SCHEMES.get(scheme)
  if (digest !== undefined) {
    // Without a suffix Dovecot tells the two apart by their length.
    const isHex = !digest.isSalted && text.length === 2 * digest.digestOctets
    const octets = decode(encoding ?? (isHex ? 'HEX' : 'B64'), text)
    return octets && parseDigest(digest, octets)
  }
  const octets = decode(encoding, text)
  if (octets === undefined) return undefined
  if (PLAIN_SCHEMES.has(scheme)) return parsePlain(octets)
  const decoded = octets.toString('latin1')
  if (scheme === 'PBKDF2') return parsePbkdf2(decoded)
  if (scheme === '' || DOLLAR_SCHEMES.has(scheme))
    return parseArgon2(decoded) ?? parseCrypt(decoded)
  return undefined
}

function decode(encoding: string | undefined, text: string): Buffer | undefined {
  if (encoding === undefined) return Buffer.from(text, 'utf8')
  if (encoding === 'HEX')
    return /^([\da-f]{2})*$/i.test(text) ? Buffer.from(text, 'hex') : undefined
  const octets = Buffer.from(text, 'base64')
  const isWhole = octets.toString('base64').replace(/=*$/, '') === text.replace(/=*$/, '')
  return isWhole ? octets : undefined
}

function parseArgon2(stored: string): StoredHash | undefined {
  if (!isUsableArgon2(stored)) return undefined
  return {
    isSlow: true,
    verify: (password) => computeArgon2(stored, password),
  }
}

/**
 * @param stored a hash, or as much of it as `storage/tenants/users.ts` selects: the braces and what
 *   follows them up to the second dollar
 * @returns its scheme for people, e.g. `argon2id`, `sha512-crypt`, `ssha`
 */
export function schemeOf(stored: string): string {
  const { scheme, text } = split(stored)
  const name = DOLLAR_NAMES.get(/^\$([^$]*)\$/.exec(text)?.[1] ?? '')
  const isDollar = scheme === '' || DOLLAR_SCHEMES.has(scheme)
  return (isDollar ? name : undefined) ?? (scheme.toLowerCase() || 'unknown')
}

/** @returns the password of {PLAIN} and its kin; undefined for hashes, which do not tell it */
export function plainPasswordOf(stored: string): Secret | undefined {
  const { scheme, encoding, text } = split(stored)
  const octets = PLAIN_SCHEMES.has(scheme) ? decode(encoding, text) : undefined
  return octets && new Secret(octets)
}

/** Whether a right answer proves every octet: bcrypt looks at the first 72. */
export function isWholePassword(stored: string, password: Secret): boolean {
  const covers = parseStoredHash(stored)?.coversOctets ?? Number.POSITIVE_INFINITY
  return password.reveal().length <= covers
}

/**
 * In no less time than one argon2id verification of today's parameters takes, its turn in the queue
 * included: beside any other hash runs one of a dummy.
 * @param dummy a hash of `makeDummyHash`
 * @returns whether the password is the one; undefined, at no cost, if the hash is unusable
 * @throws {Failure} AUTH_OVERLOADED
 */
export function verifyStored(
  stored: string,
  password: Secret,
  dummy: string,
  asker: Asker,
): Promise<boolean> | undefined {
  const hash = parseStoredHash(stored)
  if (hash === undefined) return undefined
  if (isCurrentArgon2(stored)) return verifyArgon2(stored, password, asker)
  return verifyBesideDummy(hash, password, dummy, asker)
}

async function verifyBesideDummy(
  hash: StoredHash,
  password: Secret,
  dummy: string,
  asker: Asker,
): Promise<boolean> {
  const verify = (): Promise<boolean> => hash.verify(password)
  const [isRight] = await Promise.all([
    hash.isSlow === true ? inSlowLane(asker, verify) : verify(),
    verifyArgon2(dummy, password, asker),
  ])
  return isRight
}
