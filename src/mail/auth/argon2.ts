/**
 * argon2id: how passwords are stored. All hashing of a process waits in a bounded queue (see
 * hash-queue.ts), slow old hashes in one of their own. The parameters are OWASP's (19 MiB, two
 * passes, one lane: about 30 ms a core). Stored hashes may carry other parameters, brought by a
 * migration; they are verified within limits and hashed anew at the next login, so that in the end
 * every login costs the same.
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
 * LIMIT: the time that it takes must stay hidden in the delay of a refusal (see SLOW_LIMITS in
 * schemes/scheme.ts). PHP's default, 64 MiB and four passes, is just within: some 0.25 s.
 */
const MEMORY_MAX_KIB = 131_072
const WORK_MAX_KIB = 262_144
const LANES_MAX = 16

const FORM = /^\$argon2id?\$v=19\$([a-z\d=,]{11,24})\$[A-Za-z\d+/]{11,86}\$[A-Za-z\d+/]{16,86}$/

/**
 * LIMIT: at most 3 at once, as they run in libuv's four threads and names are resolved there too (a
 * slow hash may be the fourth, but never for long). 512 take three threads some 5 s; who waits
 * longer than 15 s has a client that gave up.
 */
const QUEUE = { waitingMax: 512, deadlineMs: 15_000 } as const
const CONCURRENCY_MIN = 2
const CONCURRENCY_MAX = 3
/** LIMIT: slow hashes one by one, so that they leave the cores and the queue to the others. */
const SLOW_CONCURRENCY = 1

/** Who hashes on the operator's behalf, not on a peer's. */
const OPERATOR: Asker = { source: '', domain: '' }

/** What was computed in this process since its start, wrong and dummy ones included. */
const counts = { hashed: 0, verified: 0 }
const concurrency = Math.min(Math.max(availableParallelism(), CONCURRENCY_MIN), CONCURRENCY_MAX)
const queue = new HashQueue({ concurrency, ...QUEUE, name: 'argon2' })
const slowQueue = new HashQueue({ concurrency: SLOW_CONCURRENCY, ...QUEUE, name: 'slow' })

export function argon2Counts(): { hashed: number; verified: number } {
  return { ...counts }
}

/**
 * @param asker who waits in turn with others
 * @returns the hash as PHC text, `$argon2id$v=19$m=…,t=…,p=…$salt$hash`
 * @throws {Failure} AUTH_OVERLOADED
 */
export function hashPassword(password: Secret, asker = OPERATOR): Promise<string> {
  return queue.run(asker, async () => {
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

/**
 * @param stored a hash for which `isUsableArgon2` is true
 * @returns whether the password is the one
 * @throws {Failure} AUTH_OVERLOADED
 */
export function verifyArgon2(stored: string, password: Secret, asker = OPERATOR): Promise<boolean> {
  return queue.run(asker, () => computeArgon2(stored, password))
}

/**
 * Runs the verification of a slow hash, of whatever kind, when it is its turn among those.
 * @throws {Failure} AUTH_OVERLOADED
 */
export function inSlowLane<T>(asker: Asker, work: () => Promise<T>): Promise<T> {
  return slowQueue.run(asker, work)
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

/** What verifying costs, for who has no hash. @throws {Failure} AUTH_OVERLOADED */
export async function spendPassword(password: Secret, asker: Asker): Promise<void> {
  await verifyArgon2(makeDummyHash(), password, asker)
}

/** A hash that no password has, for users who are unknown: salt and hash are random. */
export function makeDummyHash(): string {
  return serialize(randomBytes(SALT_OCTETS), randomBytes(HASH_OCTETS))
}
