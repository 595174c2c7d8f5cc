/** What the generator is asked to do and what it answers, as JSON between two processes. */
import type { Endpoint } from '../servers/server.ts'
import type { Seed } from './content.ts'

export type Load =
  | 'warm-up'
  | 'poll'
  | 'poll-stat'
  | 'poll-tls'
  | 'poll-tls-resumed'
  | 'cold-login'
  | 'retr'
  | 'retr-pipelined'
  | 'retr-dele'
  | 'quit'
  | 'big-maildrop'
  | 'big-maildrop-memory'
  | 'large-message'
  | 'large-message-memory'
  | 'idle'
  | 'idle-tls'
  | 'lmtp'
  | 'mixed-day'

export interface Job {
  load: Load
  pop3: Endpoint
  pop3s?: Endpoint
  lmtp?: Endpoint
  seed: Seed
  /** Ordinary users that it may log in. */
  users: { from: number; count: number }
  /** Connections, never more. */
  atOnce: number
  /** Measured; work of a fixed amount ends when it is done. */
  seconds: number
  warmUpSeconds: number
  /** warm-up: fewer polls are not enough. */
  pollsMin?: number
  /** TLS polls: it has a part of the users, and waits for the other generators. */
  isShared?: boolean
  /** retr-dele: how many of them; default: all. */
  deleteUsers?: number
  /** big-maildrop: whose, if not the usual one's. */
  bigUser?: { localPart: string; messages: number; octets: number }
}

export interface JobResult {
  operations: number
  /** In which they were done. */
  seconds: number
  /** Of messages, as the protocol counts them: unstuffed. */
  octets: number
  /** Outside of those seconds as well: what the database was asked belongs to all of them. */
  operationsInAll: number
  octetsInAll: number
  /** POP3 sessions in all. */
  sessions: number
  latencyMs: { p50: number; p99: number }
  /** Medians of what a load takes apart: `quitMs`, `listMs`; or counts: `resumed`. */
  details: Record<string, number>
  /** Of the generator itself in those seconds. */
  cpuSeconds: number
}

/** Moments at which the caller looks at the server. */
export interface JobWatcher {
  onBegin?: () => void
  onEnd?: () => void
  /** So many sessions are open and silent; the promise says when to go on. */
  onReady?: (sessions: number) => Promise<void>
}

export type FromGenerator =
  | { kind: 'begin' }
  | { kind: 'end' }
  | { kind: 'ready'; sessions: number }
  | { kind: 'result'; result: JobResult }
  | { kind: 'failed'; why: string }

export type ToGenerator = { kind: 'job'; job: Job } | { kind: 'go' }
