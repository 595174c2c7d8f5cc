/**
 * What mail programs do all day: connect, log in, look, leave. Users take turns, so that nobody
 * meets himself. A poll lasts from the first octet of the connection to the reply to QUIT.
 */
import type { Endpoint } from '../../servers/server.ts'
import type { Pop3Client, TlsMemory } from '../pop3-client.ts'
import { quit, type Stage } from '../stage.ts'
import { withoutCertificate } from '../tls-session.ts'

export interface PollKind {
  hasUidl: boolean
  endpoint: Endpoint
  tlsMemoryOf?: (user: number) => TlsMemory
}

/** @param closed when the server, too, has closed */
export function poll(stage: Stage, kind: PollKind, user: number, closed: () => void): void {
  const began = performance.now()
  const { mailboxes, window } = stage
  const client = stage.connect(kind.endpoint, kind.tlsMemoryOf?.(user))
  const leave = (): void => {
    client.quit(() => {
      window.count(performance.now() - began)
      if (kind.endpoint.tls) window.sum('resumed', client.isResumed ? 1 : 0)
    }, closed)
  }
  stage.logIn(client, user, (passMs) => {
    window.note('loginMs', passMs)
    client.expectOk(() => {
      if (!kind.hasUidl) return leave()
      mailboxes.askUidl(client, user, mailboxes.contentsOf(user).messages, leave)
    }, mailboxes.statOf(user))
    client.write('STAT\r\n')
  })
}

/** Users take turns until the window is over; nobody comes again before having left. */
export function polls(stage: Stage, kind: PollKind): Promise<void>[] {
  const { users, atOnce } = stage.job
  const turns = turnsOf(users)
  return Array.from(
    { length: Math.min(atOnce, users.count) },
    () =>
      new Promise<void>((resolve) => {
        const next = (): void => {
          if (stage.window.isOver) {
            resolve()
            return
          }
          const user = turns.take()
          poll(stage, kind, user, () => {
            turns.giveBack(user)
            next()
          })
        }
        next()
      }),
  )
}

/** Whose turn it is, among those who are not logged in. */
export function turnsOf({ from, count }: { from: number; count: number }) {
  const waiting = Array.from({ length: count }, (_, at) => from + at)
  let first = 0
  return {
    take(): number {
      const user = waiting[first++]
      if (user === undefined) throw new Error('more connections at once than users')
      if (first === count) {
        waiting.splice(0, first)
        first = 0
      }
      return user
    },
    giveBack(user: number): void {
      waiting.push(user)
    },
  }
}

/** Each user once. */
export function pollEach(stage: Stage, kind: PollKind): Promise<void>[] {
  const { users, atOnce } = stage.job
  let turn = 0
  return Array.from(
    { length: atOnce },
    () =>
      new Promise<void>((resolve) => {
        const next = (): void => {
          if (turn === users.count || stage.window.isDue) resolve()
          else poll(stage, kind, users.from + turn++, next)
        }
        next()
      }),
  )
}

/** A TLS session for each user, the last that the server gave. */
export function rememberSessions(): (user: number) => TlsMemory {
  const memories = new Map<number, TlsMemory>()
  return (user) => {
    let memory = memories.get(user)
    if (memory === undefined) {
      const made: TlsMemory = {
        session: undefined,
        onSession: (session) => {
          made.session = withoutCertificate(session)
        },
      }
      memory = made
      memories.set(user, memory)
    }
    return memory
  }
}

/** A pass that takes more than this of the fastest one so far gained nothing. */
const NO_FASTER = 0.9
/** So many of them in a row: by chance a pass meets the workers that remember nobody yet. */
const PASSES_NO_FASTER = 3
const POLLS_MIN = 2_000
const PATIENCE_MS = 90_000

/** Polls everybody again and again until that gets no faster, and often enough. */
export async function warmUp(stage: Stage, kind: PollKind): Promise<void> {
  const { users, pollsMin = POLLS_MIN } = stage.job
  const start = performance.now()
  let fastest = Number.POSITIVE_INFINITY
  let noFaster = 0
  for (let polled = 0; performance.now() - start < PATIENCE_MS; ) {
    const began = performance.now()
    await Promise.all(pollEach(stage, kind))
    const took = performance.now() - began
    polled += users.count
    noFaster = took > fastest * NO_FASTER ? noFaster + 1 : 0
    fastest = Math.min(fastest, took)
    if (noFaster >= PASSES_NO_FASTER && polled >= pollsMin) return
  }
}

/**
 * Logs everybody in and falls silent. Everybody has been in and out before, a few at once,
 * so that what is in memory then and was not with nobody there are the sessions.
 */
export async function idle(
  stage: Stage,
  endpoint: Endpoint,
  onReady: (sessions: number) => Promise<void>,
): Promise<void> {
  await Promise.all(pollEach(stage, { hasUidl: false, endpoint }))
  await onReady(0)
  stage.window.begin()
  const clients = await openAll(stage, endpoint)
  stage.window.end()
  await onReady(clients.length)
  await Promise.all(clients.map(quit))
}

async function openAll(stage: Stage, endpoint: Endpoint): Promise<Pop3Client[]> {
  const { users, atOnce } = stage.job
  const clients: Pop3Client[] = []
  let turn = 0
  const opening = Array.from({ length: atOnce }, async () => {
    while (turn < users.count) {
      const user = users.from + turn++
      const began = performance.now()
      clients.push(await stage.openSession(endpoint, user))
      stage.window.count(performance.now() - began)
    }
  })
  await Promise.all(opening)
  return clients
}
