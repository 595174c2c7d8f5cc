/** {PBKDF2} as Dovecot writes it: `$1$salt$rounds$hash`, PBKDF2-HMAC-SHA-1 (RFC 8018 §5.2). */
import { pbkdf2, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'
import type { StoredHash } from './scheme.ts'

/** LIMIT: half a million rounds take some 0.1 s, 0.3 s without SHA instructions. */
const ROUNDS_MAX = 500_000

/** The salt is used as it is written; the hash is hexadecimal. */
const FORM = /^\$1\$([!-#%-~]{1,64})\$([1-9]\d{0,6})\$([\da-f]{40})$/i

const derive = promisify(pbkdf2)

/** @returns undefined if it is cut or garbled, or costs too much */
export function parsePbkdf2(text: string): StoredHash | undefined {
  const [, salt, digits, hex] = FORM.exec(text) ?? []
  const rounds = Number(digits)
  if (salt === undefined || hex === undefined || rounds > ROUNDS_MAX) return undefined
  const hash = Buffer.from(hex, 'hex')
  return {
    isSlow: true,
    verify: async (password) =>
      timingSafeEqual(await derive(password.reveal(), salt, rounds, hash.length, 'sha1'), hash),
  }
}
