/**
 * The thread in which crypt(3) hashes are computed. They are JavaScript: a bcrypt hash of cost 12
 * keeps a core busy for a quarter of a second and would stall every session of the worker for as
 * long. The thread's program is crypt-thread.js.
 */
import { Worker } from 'node:worker_threads'
import type { Secret } from '../../../base/secret.ts'

/**
 * LIMIT: who tries passwords decides how long they are, and each round of SHA-crypt goes over the
 * whole of one. No person's is longer; libxcrypt takes up to 512.
 */
const PASSWORD_MAX_OCTETS = 256

interface Pending {
  resolve(isRight: boolean): void
  reject(error: Error): void
}

let thread: Worker | undefined
const pending = new Map<number, Pending>()
let lastId = 0

function startThread(): Worker {
  const worker = new Worker(new URL('./crypt-thread.js', import.meta.url))
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
  worker.on('exit', () => fail(new Error('the thread of crypt hashes ended')))
  return worker
}

/**
 * @param stored bcrypt, SHA-crypt or MD5-crypt, of a form and cost that were looked at (crypt.ts)
 * @returns whether the password is the one; as crypt(3) does it, of bcrypt the first 72 octets
 */
export function verifyInThread(stored: string, password: Secret): Promise<boolean> {
  const octets = password.reveal()
  if (octets.length > PASSWORD_MAX_OCTETS) return Promise.resolve(false)
  thread ??= startThread()
  const worker = thread
  const id = ++lastId
  return new Promise((resolve, reject) => {
    pending.set(id, { resolve, reject })
    worker.ref()
    worker.postMessage({ id, stored, octets })
  })
}
