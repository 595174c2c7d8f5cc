/**
 * Names and passwords in SASL messages: strict UTF-8, bounded, and prepared by SASLprep (RFC 4013),
 * so that one name or password typed on two keyboards is one sequence of octets.
 */
import { isUtf8 } from 'node:buffer'
import saslprep from '@mongodb-js/saslprep'
import { Secret } from '../../base/secret.ts'

/** LIMIT: the longest address there is (RFC 5321 §4.5.3.1): 64 octets, "@", 253 octets. */
export const NAME_MAX_OCTETS = 318

/** What SASLprep leaves alone: all of ASCII but its controls, which it prohibits. */
const PRINTABLE_ASCII = /^[\x20-\x7e]*$/

/** @returns undefined for what is longer, or not UTF-8 */
export function textOf(octets: Buffer, maxOctets: number): string | undefined {
  return octets.length <= maxOctets && isUtf8(octets) ? octets.toString('utf8') : undefined
}

/**
 * @param name as the client sent it, decoded
 * @returns the name prepared by SASLprep; undefined if it is too long, cannot be prepared, or
 *   nothing is left of it
 */
export function preparedName(name: string): string | undefined {
  if (Buffer.byteLength(name) > NAME_MAX_OCTETS) return undefined
  return prepared(name) || undefined
}

/**
 * The passwords that may be meant by one that was sent. The first is the one to hash and to derive
 * keys from. Where SASLprep changes what was sent, that comes second: it was hashed as it is if it
 * came from a system without SASLprep, or was set before there was one here. How many there are
 * depends on what was sent alone, so trying both tells nobody whether the user exists.
 */
export function passwordForms(sent: Secret): readonly [Secret, ...Secret[]] {
  const octets = sent.reveal()
  const text = textOf(octets, octets.length)
  // RFC 4013 §2.3, §2.5: emoji and controls cannot be prepared. They are taken as they are.
  const form = text && prepared(text)
  return !form || form === text ? [sent] : [new Secret(form), sent]
}

/** RFC 4013 for stored strings. @returns undefined for what it prohibits */
function prepared(text: string): string | undefined {
  if (PRINTABLE_ASCII.test(text)) return text
  try {
    return saslprep(text)
  } catch {
    // It throws for what is prohibited, and for what it maps to nothing.
    return undefined
  }
}
