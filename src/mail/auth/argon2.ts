/**
 * argon2id: how passwords are stored. All hashing of a process goes through one bounded queue (see
 * hash-queue.ts). The parameters are OWASP's (19 MiB, two passes, one lane: about 30 ms a core).
 * Stored hashes may carry other parameters, brought by a migration; they are verified within limits
 * and hashed anew at the next login, so that in the end every login costs the same.
 */
import { randomBytes } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { argon2id, hash, verify } from 'argon2'
import { Failure } from '../../base/failure.ts'
import type { Secret } from '../../base/secret.ts'
import { type Asker, HashQueue } from './hash-queue.ts'

const PARAMETERS = { memoryCost: 19_456, timeCost: 2, parallelism: 1 } as const
const SALT_OCTETS = 16
/** How every hash begins that we make; any other is hashed anew at the next login. */
export const CURRENT_ARGON2_START =
  `$argon2id$v=19$m=${PARAMETERS.memoryCost},t=${PARAMETERS.timeCost},` +
  `p=${PARAMETERS.parallelism}$`
const HASH_OCTETS = 32

/**
 * LIMIT: a stored hash must not be able to kill the worker. 1 GiB and four passes is the largest
 * preset in use elsewhere (libsodium's "sensitive").
 */
const MEMORY_MAX_KIB = 1_048_576
const WORK_MAX_KIB = 4 * MEMORY_MAX_KIB
const LANES_MAX = 16

const FORM = /^\$argon2id?\$v=19\$([a-z\d=,]{11,24})\$[A-Za-z\d+/]{11,86}\$[A-Za-z\d+/]{16,86}$/

/**
 * LIMIT: at most 3 at once, as they run in libuv's four threads and names are resolved there too (a
 * dummy beside another hash is a fourth or more, but never for long). 512 take three threads some
 * 5 s; who waits longer than 15 s has a client that gave up.
 */
const QUEUE = { waitingMax: 512, deadlineMs: 15_000 } as const
const CONCURRENCY_MIN = 2
const CONCURRENCY_MAX = 3

/** Who hashes on the operator's behalf, not on a peer's. */
const OPERATOR: Asker = { source: '', domain: '' }

/** What was computed in this process since its start, wrong and dummy ones included. */
const counts = { hashed: 0, verified: 0 }
let queue: HashQueue | undefined

/**
 * Runs any password hashing, argon2 or older, in this process's one queue.
 * @throws {Failure} AUTH_OVERLOADED
 */
export function inHashQueue<T>(asker: Asker, work: () => Promise<T>): Promise<T> {
  const cores = availableParallelism()
  const concurrency = Math.min(Math.max(cores, CONCURRENCY_MIN), CONCURRENCY_MAX)
  queue ??= new HashQueue({ concurrency, ...QUEUE })
  return queue.run(asker, work)
}

export function argon2Counts(): { hashed: number; verified: number } {
  return { ...counts }
}

/**
 * @param asker who waits in turn with others
 * @returns the hash as PHC text, `$argon2id$v=19$m=…,t=…,p=…$salt$hash`
 * @throws {Failure} AUTH_OVERLOADED
 */
export function hashPassword(password: Secret, asker = OPERATOR): Promise<string> {
  return inHashQueue(asker, async () => {
    counts.hashed += 1
    const salt = randomBytes(SALT_OCTETS)
    // Raw, as the package writes m, p, t, and the reference implementation reads only m, t, p.
    const options = { ...PARAMETERS, type: argon2id, hashLength: HASH_OCTETS, salt } as const
    return serialize(salt, await hash(password.reveal(), { ...options, raw: true }))
  })
}

function serialize(salt: Buffer, digest: Buffer): string {
  const [saltText, digestText] = [salt, digest].map((octets) =>
    octets.toString('base64').replaceAll('=', ''),
  )
  return `${CURRENT_ARGON2_START}${saltText}$${digestText}`
}

interface Parameters {
  memoryKib: number
  passes: number
  lanes: number
}

/** @param stored PHC text; its parameters in any order, as not all writers agree on one */
function parseParameters(stored: string): Parameters | undefined {
  const items = FORM.exec(stored)?.[1]?.split(',') ?? []
  const values = new Map<string, number>()
  for (const item of items) {
    const [, name, digits] = /^([mtp])=([1-9]\d{0,7})$/.exec(item) ?? []
    if (name === undefined || values.has(name)) return undefined
    values.set(name, Number(digits))
  }
  const [memoryKib, passes, lanes] = [values.get('m'), values.get('t'), values.get('p')]
  if (memoryKib === undefined || passes === undefined || lanes === undefined) return undefined
  return { memoryKib, passes, lanes }
}

/** Whether the hash is well formed and its parameters are within our limits. */
export function isUsableArgon2(stored: string): boolean {
  const parameters = parseParameters(stored)
  if (parameters === undefined) return false
  const { memoryKib, passes, lanes } = parameters
  if (memoryKib > MEMORY_MAX_KIB || memoryKib * passes > WORK_MAX_KIB) return false
  return lanes <= LANES_MAX && memoryKib >= 8 * lanes
}

/** Whether the hash is of the kind and has the parameters that we hash with. */
export function isCurrentArgon2(stored: string): boolean {
  return stored.startsWith(CURRENT_ARGON2_START) && isUsableArgon2(stored)
}

/** Whether verifying takes at least as long as with the parameters that we hash with. */
export function isDearArgon2(stored: string): boolean {
  const parameters = parseParameters(stored)
  if (parameters === undefined) return false
  const { memoryKib, passes, lanes } = parameters
  const { memoryCost, timeCost, parallelism } = PARAMETERS
  return (memoryKib * passes) / lanes >= (memoryCost * timeCost) / parallelism
}

/**
 * @param stored a hash for which `isUsableArgon2` is true
 * @returns whether the password is the one
 * @throws {Failure} AUTH_OVERLOADED
 */
export function verifyArgon2(stored: string, password: Secret, asker = OPERATOR): Promise<boolean> {
  return inHashQueue(asker, () => computeArgon2(stored, password))
}

/**
 * Runs a verification of another kind and, in the same turn and at the same time, one of today's
 * parameters whose answer is not wanted: so cheap ones take as long as all.
 * @param dummy a hash from `makeDummyHash`
 * @returns what `work` returns, when both have ended
 * @throws {Failure} AUTH_OVERLOADED
 */
export function verifyBesideDummy(
  work: () => Promise<boolean>,
  dummy: string,
  password: Secret,
  asker: Asker,
): Promise<boolean> {
  return inHashQueue(asker, async () => {
    const [isRight] = await Promise.all([work(), computeArgon2(dummy, password)])
    return isRight
  })
}

/** Takes no turn: for work that has one. */
export async function computeArgon2(stored: string, password: Secret): Promise<boolean> {
  counts.verified += 1
  try {
    return await verify(stored, password.reveal())
  } catch (error) {
    // The form was checked, so what is left is memory that could not be had.
    throw new Failure('AUTH_OVERLOADED', 'argon2 could not run', error)
  }
}

/** A hash that no password has, for users who are unknown: salt and hash are random. */
export function makeDummyHash(): string {
  return serialize(randomBytes(SALT_OCTETS), randomBytes(HASH_OCTETS))
}
