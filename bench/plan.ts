/** Which workloads there are, in the order in which a round does them. */

import type { Special } from './load/content.ts'
import type { Load } from './load/job.ts'
import type { NodeOptions } from './servers/popgres.ts'
import type { ExtraMaildrop } from './servers/popgres-mail.ts'

export interface Workload {
  name: string
  load: Load
  /** What an operation is. */
  unit: string
  /** Ordinary users that take part; cold-login: in each round others. */
  users: number
  atOnce: number
  needs?: Special
  /** Logging in is what is measured: variants that differ in it take part. */
  isLogin?: boolean
  /** Memory and the like: once is enough. */
  isOnce?: boolean
  /** Popgres on a node of its own, whose memory nothing else has stretched. */
  isMemory?: boolean
  /** Of one session, on a node for it alone. */
  isSession?: boolean
  /** One would take a core. */
  generators?: number
  /** On a node of its own on Popgres's database; nobody else has that. */
  node?: NodeOptions
  /** A maildrop that only Popgres has. */
  extra?: ExtraMaildrop
}

/** What the machine itself can do, measured next to what is compared with it. */
export interface Yardstick {
  name: 'bare-argon2' | 'durable-commit'
}

export const POLL_USERS = 1_000
export const COLD_USERS = 300
const FEW_USERS = 200
const IMPORTED = { localPart: 'imported', messages: 100_000, octets: 1_024, isImported: true }
const MILLION = { localPart: 'million', messages: 1_000_000, octets: 1_024, isImported: false }

const poll = { load: 'poll', unit: 'polls', users: POLL_USERS, atOnce: 32 } as const
const retr = { load: 'retr', unit: 'messages', users: 0, atOnce: 16, needs: 'delete' } as const
const big = { load: 'big-maildrop', unit: 'sessions', users: 0, atOnce: 1 } as const

export function planRound(workers: number): (Workload | Yardstick)[] {
  const away = (name: string, base: Workload, delayMs: number): Workload => ({
    ...base,
    name,
    node: { workers, delayMs },
  })
  const pollWith = (count: number): Workload => ({
    ...poll,
    name: `workers-${count}`,
    users: FEW_USERS,
    node: { workers: count },
  })
  const named = (name: Load, base: Omit<Workload, 'name'>): Workload => ({
    ...base,
    load: name,
    name,
  })
  const memory = { isOnce: true, isMemory: true } as const
  const session = { ...memory, isSession: true } as const
  const tls = { ...poll, generators: 2 } as const
  return [
    named('idle', { ...poll, unit: 'logins', ...memory }),
    named('idle-tls', { ...poll, unit: 'logins', ...memory }),
    named('big-maildrop-memory', { ...big, unit: 'listings', needs: 'big', ...session }),
    named('large-message-memory', { ...big, unit: 'messages', needs: 'large', ...session }),
    named('poll', { ...poll, isLogin: true }),
    named('poll-stat', poll),
    named('poll-tls', { ...tls, isLogin: true }),
    named('poll-tls-resumed', { ...tls, users: FEW_USERS }),
    named('cold-login', { ...poll, unit: 'logins', users: COLD_USERS, isLogin: true }),
    { name: 'bare-argon2' },
    named('retr', retr),
    named('retr-pipelined', retr),
    named('retr-dele', retr),
    named('quit', { ...retr, unit: 'sessions', atOnce: 1 }),
    { name: 'durable-commit' },
    named('large-message', { ...big, unit: 'messages', needs: 'large' }),
    named('big-maildrop', { ...big, needs: 'big' }),
    named('lmtp', { ...big, unit: 'messages', atOnce: 16, needs: 'deliver' }),
    named('mixed-day', { ...poll, unit: 'sessions', needs: 'deliver' }),
    ...[0, 1, 5].flatMap((delayMs) => {
      // No target speaks of the farthest.
      const times = { isOnce: delayMs === 5 }
      return [
        away(`poll-${delayMs}ms`, { ...poll, ...times, name: '', users: FEW_USERS }, delayMs),
        away(`retr-${delayMs}ms`, { ...retr, ...times, name: '' }, delayMs),
      ]
    }),
    ...[1, 2, 4].map(pollWith),
    { ...big, name: 'big-maildrop-imported', extra: IMPORTED, isOnce: true },
    { ...big, name: 'big-maildrop-million', extra: MILLION, isOnce: true },
  ]
}

export const isWorkload = (step: Workload | Yardstick): step is Workload => 'load' in step
