/**
 * App passwords: made up by us with 120 random bits, so one fast digest is all that guards them,
 * and nobody's guess is worth an argon2. They are read from paper and screens: blanks, hyphens and
 * case do not count.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import type { Secret } from '../../../base/secret.ts'
import type { AppPassword } from '../../../storage/accounts.ts'

/** What add_app_password makes: 24 signs of base32. */
const FORM = /^[a-z2-7]{24}$/
/** LIMIT: with room for blanks; what is longer is a password of another kind. */
const TYPED_MAX_OCTETS = 64

/** @returns the one of `usable` that was typed; whatever has another form costs nothing */
export function findAppPassword(
  usable: readonly AppPassword[],
  typed: Secret,
): AppPassword | undefined {
  const octets = typed.reveal()
  if (usable.length === 0 || octets.length > TYPED_MAX_OCTETS) return undefined
  const secret = octets.toString('latin1').replaceAll(/[ -]/g, '').toLowerCase()
  if (!FORM.test(secret)) return undefined
  const digest = createHash('sha256').update(secret).digest()
  return usable.find((known) => timingSafeEqual(known.digest, digest))
}
