/**
 * The program of the thread in which crypt(3) hashes are computed: answers, in order, whether an
 * octet string is the password of a stored hash. Forms and costs were looked at before (crypt.ts).
 * It is JavaScript as it stands, because a thread starts from a file that Node can read.
 *
 * bcrypt is bcryptjs, which takes text and encodes it as UTF-8. SHA-crypt follows Ulrich Drepper's
 * specification (2007, public domain), MD5-crypt Poul-Henning Kamp's for FreeBSD, from which the
 * former took its loop. Both are ours: the packages for them take text only, or are wrong for
 * passwords of 32, 64, 96, … octets.
 */
import { createHash, timingSafeEqual } from 'node:crypto'
import { parentPort } from 'node:worker_threads'
import { compareSync } from 'bcryptjs'

const DIGITS = './0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const MD5_MAGIC = Buffer.from('$1$')
const MD5_ROUNDS = 1000
const SHA_ROUNDS = 5000

/**
 * @param {string} algorithm
 * @param {readonly Uint8Array[]} parts
 */
function digestOf(algorithm, parts) {
  const hash = createHash(algorithm)
  for (const part of parts) hash.update(part)
  return hash.digest()
}

/**
 * The loop that makes it slow.
 * @param {string} algorithm
 * @param {Buffer} digest
 * @param {Buffer} password
 * @param {Buffer} salt
 * @param {number} rounds
 */
function stir(algorithm, digest, password, salt, rounds) {
  let stirred = digest
  for (let round = 0; round < rounds; round++) {
    const [first, last] = round % 2 === 0 ? [stirred, password] : [password, stirred]
    const parts = [first]
    if (round % 3 !== 0) parts.push(salt)
    if (round % 7 !== 0) parts.push(password)
    parts.push(last)
    stirred = digestOf(algorithm, parts)
  }
  return stirred
}

/**
 * The binary digits of a length, the lowest first: for 1 the one, for 0 the other.
 * @param {number} length
 * @param {Uint8Array} one
 * @param {Uint8Array} other
 */
function byBits(length, one, other) {
  return [...length.toString(2)].reverse().map((bit) => (bit === '1' ? one : other))
}

/**
 * @param {string} algorithm
 * @param {Buffer} password
 * @param {Buffer} salt
 * @param {number} rounds
 */
function shaCrypt(algorithm, password, salt, rounds) {
  const { length } = password
  const b = digestOf(algorithm, [password, salt, password])
  const bits = byBits(length, b, password)
  const a = digestOf(algorithm, [password, salt, Buffer.alloc(length, b), ...bits])
  const p = Buffer.alloc(length, digestOf(algorithm, Array(length).fill(password)))
  const s = Buffer.alloc(salt.length, digestOf(algorithm, Array(16 + (a[0] ?? 0)).fill(salt)))
  const digest = stir(algorithm, a, p, s, rounds)
  // Octets i, i + third, i + 2 third, turned once more with each i: one way or the other.
  const third = Math.floor(digest.length / 3)
  const turn = algorithm === 'sha512' ? 1 : 2
  const groups = Array.from({ length: third }, (_, i) =>
    [0, 1, 2].map((k) => i + third * ((k + turn * i) % 3)),
  )
  return encode(digest, [...groups, algorithm === 'sha512' ? [63] : [31, 30]])
}

/**
 * @param {Buffer} password
 * @param {Buffer} salt
 */
function md5Crypt(password, salt) {
  const { length } = password
  const b = digestOf('md5', [password, salt, password])
  const bits = length === 0 ? [] : byBits(length, Buffer.alloc(1), password.subarray(0, 1))
  const a = digestOf('md5', [password, MD5_MAGIC, salt, Buffer.alloc(length, b), ...bits])
  const digest = stir('md5', a, password, salt, MD5_ROUNDS)
  return encode(digest, [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5], [11]])
}

/**
 * @param {Buffer} digest
 * @param {readonly number[][]} groups places of octets, the highest first: of n octets one digit
 *   more, the lowest first
 */
function encode(digest, groups) {
  let text = ''
  for (const group of groups) {
    let value = group.reduce((sum, place) => (sum << 8) | (digest[place] ?? 0), 0)
    for (const _ of [0, ...group]) {
      text += DIGITS[value & 63]
      value >>= 6
    }
  }
  return text
}

/**
 * @param {string} stored
 * @param {Buffer} password
 */
function isPasswordOf(stored, password) {
  const [, id = '', ...rest] = stored.split('$')
  if (id.startsWith('2')) return compareSync(password.toString('utf8'), stored)
  const [saltText = '', text = ''] = rest.slice(-2)
  const salt = Buffer.from(saltText, 'latin1')
  const rounds = rest.length === 3 ? Number(rest[0]?.slice('rounds='.length)) : SHA_ROUNDS
  const algorithm = id === '5' ? 'sha256' : 'sha512'
  const computed =
    id === '1' ? md5Crypt(password, salt) : shaCrypt(algorithm, password, salt, rounds)
  return timingSafeEqual(Buffer.from(computed), Buffer.from(text))
}

parentPort?.on('message', ({ id, stored, octets }) => {
  let isRight = false
  try {
    isRight = isPasswordOf(stored, Buffer.from(octets))
  } catch {
    // bcryptjs throws at a form that it does not know: nobody's hash
  }
  parentPort?.postMessage({ id, isRight })
})
