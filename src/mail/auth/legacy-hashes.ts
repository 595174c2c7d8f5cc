/**
 * bcrypt, as migrated hosts and pgcrypto's `crypt('…', gen_salt('bf'))` bring it. Such a hash is
 * verified once: after the first login that succeeds it is replaced by argon2id.
 *
 * The computation is JavaScript (bcryptjs) and runs in a thread of its own, as a hash of cost 12
 * keeps a core busy for a quarter of a second and would stall every session of the worker for as
 * long. bcryptjs takes text and encodes it as UTF-8; a password whose octets are not UTF-8 cannot
 * be handed over unchanged, so it is refused here (docs: such a user needs a new password, argon2id
 * takes any octets). NUL ends a password in crypt(3) but not in bcryptjs: refused too.
 */
import { isUtf8 } from 'node:buffer'
import { createRequire } from 'node:module'
import { Worker } from 'node:worker_threads'
import type { Secret } from '../../base/secret.ts'

/** bcrypt looks at no more than this of a password. */
const BCRYPT_PASSWORD_MAX_OCTETS = 72

/** LIMIT: each step doubles the time; cost 16 takes some 5 s, cost 31 would take days. */
const COST_MAX = 16

const FORM = /^\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}$/

/** The thread's whole program: verify what is asked, answer in order. */
const PROGRAM = `
const { parentPort, workerData } = require('node:worker_threads')
const { compareSync } = require(workerData)
parentPort.on('message', ({ id, stored, octets }) => {
  let isRight = false
  try { isRight = compareSync(Buffer.from(octets).toString('utf8'), stored) } catch {}
  parentPort.postMessage({ id, isRight })
})`

/** Whether the hash is one of $2a$, $2b$, $2y$ and cheap enough to be verified. */
export function isUsableBcrypt(stored: string): boolean {
  const cost = Number(FORM.exec(stored)?.[1])
  return cost >= 4 && cost <= COST_MAX
}

/** Whether bcrypt covers every octet: only then does a right answer prove the whole password. */
export function isWholeBcryptPassword(password: Secret): boolean {
  return password.reveal().length <= BCRYPT_PASSWORD_MAX_OCTETS
}

interface Pending {
  resolve(isRight: boolean): void
  reject(error: Error): void
}

let thread: Worker | undefined
const pending = new Map<number, Pending>()
let lastId = 0

function startThread(): Worker {
  const module = createRequire(import.meta.url).resolve('bcryptjs')
  const worker = new Worker(PROGRAM, { eval: true, workerData: module })
  const fail = (error: Error): void => {
    if (thread === worker) thread = undefined
    for (const { reject } of pending.values()) reject(error)
    pending.clear()
  }
  worker.on('message', ({ id, isRight }: { id: number; isRight: boolean }) => {
    pending.get(id)?.resolve(isRight)
    pending.delete(id)
    if (pending.size === 0) worker.unref()
  })
  worker.on('error', fail)
  worker.on('exit', () => fail(new Error('the bcrypt thread ended')))
  return worker
}

/**
 * @param stored a hash for which `isUsableBcrypt` is true
 * @returns whether the password is the one; of a longer one its first 72 octets, as crypt(3) does
 */
export function verifyBcrypt(stored: string, password: Secret): Promise<boolean> {
  const octets = password.reveal()
  if (!isUtf8(octets) || octets.includes(0)) return Promise.resolve(false)
  thread ??= startThread()
  const worker = thread
  const id = ++lastId
  return new Promise((resolve, reject) => {
    pending.set(id, { resolve, reject })
    worker.ref()
    worker.postMessage({ id, stored, octets })
  })
}
