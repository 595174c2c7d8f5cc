/**
 * Hashes of crypt(3): bcrypt, SHA-crypt, MD5-crypt, as migrated hosts and pgcrypto's
 * `crypt('…', gen_salt('bf'))` bring them: what they look like and what they may cost. They are
 * computed in a thread of their own, see crypt-verifier.ts.
 */
import { isUtf8 } from 'node:buffer'
import { verifyInThread } from './crypt-verifier.ts'
import type { StoredHash } from './scheme.ts'

/** bcrypt looks at no more than this of a password. */
const BCRYPT_PASSWORD_MAX_OCTETS = 72

/** LIMIT: each step doubles the time; cost 12 takes some 0.3 s, cost 31 would take days. */
const BCRYPT_COST = { min: 4, max: 12 } as const

/** LIMIT: 100,000 rounds, which hardened systems have, take some 0.2 s. */
const SHA_ROUNDS = { min: 1_000, max: 100_000, default: 5_000 } as const

const BCRYPT = /^\$2[aby]\$(\d\d)\$[./A-Za-z\d]{53}$/
const SHA_256 = /^\$5\$(?:rounds=([1-9]\d{3,6})\$)?(?!rounds=)[!-#%-9;-~]{0,16}\$[./A-Za-z\d]{43}$/
const SHA_512 = /^\$6\$(?:rounds=([1-9]\d{3,6})\$)?(?!rounds=)[!-#%-9;-~]{0,16}\$[./A-Za-z\d]{86}$/
const MD5 = /^\$1\$[!-#%-9;-~]{0,8}\$[./A-Za-z\d]{22}$/

/** @returns undefined if it is none of these, is cut or garbled, or costs too much */
export function parseCrypt(stored: string): StoredHash | undefined {
  if (stored.startsWith('$2')) return parseBcrypt(stored)
  return isUsableSha(stored) || MD5.test(stored)
    ? { isSlow: true, verify: (password) => verifyInThread(stored, password) }
    : undefined
}

/**
 * bcryptjs takes text and encodes it as UTF-8; a password whose octets are not UTF-8 cannot be
 * handed over unchanged, so it is refused (docs: such a user needs a new password, argon2id takes
 * any octets). NUL ends a password in crypt(3) but not in bcryptjs: refused too.
 */
function parseBcrypt(stored: string): StoredHash | undefined {
  const cost = Number(BCRYPT.exec(stored)?.[1])
  if (!(cost >= BCRYPT_COST.min && cost <= BCRYPT_COST.max)) return undefined
  return {
    isSlow: true,
    coversOctets: BCRYPT_PASSWORD_MAX_OCTETS,
    verify: async (password) => {
      const octets = password.reveal()
      return isUtf8(octets) && !octets.includes(0) && verifyInThread(stored, password)
    },
  }
}

function isUsableSha(stored: string): boolean {
  const match = SHA_256.exec(stored) ?? SHA_512.exec(stored)
  if (match === null) return false
  const rounds = Number(match[1] ?? SHA_ROUNDS.default)
  return rounds >= SHA_ROUNDS.min && rounds <= SHA_ROUNDS.max
}
