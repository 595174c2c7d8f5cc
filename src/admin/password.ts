/**
 * Which passwords can be set, and how one is made up. A password that no client could send is
 * refused here: PASS takes the rest of one line (RFC 1939 §7), and a line has 255 octets
 * (RFC 2449 §4), of which "PASS " and CRLF take seven.
 */
import { randomInt } from 'node:crypto'
import { Secret } from '../base/secret.ts'
import { refused } from './refusal.ts'

const PASSWORD_MAX_OCTETS = 248
/** NIST SP 800-63B wants eight characters at least. */
export const SHORT_BELOW = 8
/** No 0/O, 1/l/I: it is read aloud and typed. 20 of 57 signs are more than 116 bits. */
const SIGNS = '23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'
const GENERATED_LENGTH = 20

/** @throws {Failure} OPERATION_REFUSED, without the password in it */
export function checkPassword(what: 'password' | 'APOP secret', secret: Secret): void {
  const octets = secret.reveal()
  if (octets.length === 0) throw refused(`the ${what} is empty`)
  if (octets.length > PASSWORD_MAX_OCTETS)
    throw refused(`the ${what} is longer than ${PASSWORD_MAX_OCTETS} octets`)
  if (octets.some((octet) => octet < 0x20 || octet === 0x7f))
    throw refused(`the ${what} has control characters in it`)
}

/** Taken all the same: whose password it is may have been decided elsewhere. */
export function isShort(secret: Secret): boolean {
  return [...secret.reveal().toString('utf8')].length < SHORT_BELOW
}

export function generatePassword(): Secret {
  const signs = Array.from({ length: GENERATED_LENGTH }, () => SIGNS[randomInt(SIGNS.length)])
  return new Secret(signs.join(''))
}
