/**
 * What another server kept of a user's password: taken over as it is if logins can be verified by
 * it, turned into a password if it is one ({PLAIN}), else refused with what is wrong.
 */
import { Secret } from '../../base/secret.ts'
import {
  KNOWN_SCHEMES,
  parseStoredHash,
  plainPasswordOf,
  SLOW_LIMITS,
  schemeOf,
} from '../../mail/auth/schemes/scheme.ts'
import { checkPassword } from '../password.ts'
import { refused } from '../refusal.ts'

/** As crypt(3) and its kin write it ($2y$…, $6$…, $argon2id$…), or as LDAP and Dovecot do. */
const LOOKS_LIKE_HASH = /^(?:\$[0-9a-z][0-9a-z-]*\$|\{[A-Z][A-Z0-9.-]+\})/

export interface StoredCredential {
  /** To be hashed. */
  password: Secret | undefined
  hash: string | undefined
}

/**
 * @param hash empty if there is a password
 * @throws {Failure} OPERATION_REFUSED with the reason, which repeats neither
 */
export function parseCredential(hash: string, password: string): StoredCredential {
  if (hash !== '' && password !== '') throw refused('has both a password and a hash: keep one')
  if (hash === '' && password === '') throw refused('has neither a password nor a hash')
  checkHash(hash)
  // Whoever brings {PLAIN} brings the password: it is not stored like that, even for a while.
  const plain = password === '' ? plainPasswordOf(hash) : new Secret(password)
  if (plain !== undefined) checkPassword('password', plain)
  if (LOOKS_LIKE_HASH.test(password))
    throw refused(
      'the password looks like a hash: put it into the column hash ' +
        '(a password that only looks so is set by "popgres user add")',
    )
  return { password: plain, hash: plain === undefined ? hash : undefined }
}

/** @throws {Failure} OPERATION_REFUSED unless it is empty or can be verified */
function checkHash(hash: string): void {
  if (hash === '' || parseStoredHash(hash) !== undefined) return
  const scheme = schemeOf(hash)
  throw refused(
    KNOWN_SCHEMES.includes(scheme)
      ? `the ${scheme} hash is cut or garbled, or its cost is higher than is verified here: ` +
          `at most ${SLOW_LIMITS}`
      : `the hash is of no known scheme: known are ${KNOWN_SCHEMES.join(', ')}, ` +
          'as crypt(3) writes them or with a {SCHEME} before',
  )
}
