/**
 * A client that logs in and does what the seed says: lists, fetches, marks, takes marks back, stalls, and
 * ends by QUIT, by QUIT without waiting for the answer, or by going away.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { Pop3Client } from '../../support/pop3-client.ts'
import type { Node } from '../cluster.ts'
import type { Random } from '../random.ts'
import { ReaderSession } from './session.ts'
import { MAILDROPS, PASSWORD, Patience, type Stage, visitNodes } from './stage.ts'

/** Who was refused does not come again at once. */
const REFUSED_MS = 400

export async function runReader(stage: Stage, random: Random): Promise<void> {
  await visitNodes(stage, random, 80, (node, { pop3 }) => connection(stage, random, node, pop3))
}

async function connection(
  stage: Stage,
  random: Random,
  node: Node,
  address: string,
): Promise<void> {
  const { history } = stage
  const client = await Pop3Client.connect(address)
  const patience = new Patience(random, client.socket)
  try {
    await client.line()
    patience.greeted()
    const maildrop = random.pick(MAILDROPS)
    await client.ask(`USER ${maildrop}`)
    const session = stage.nextNumber()
    history.note({ type: 'login', session, maildrop, node: node.name })
    const reply = await client.ask(`PASS ${PASSWORD}`)
    history.note({ type: 'login-told', session, reply })
    if (reply.startsWith('+OK')) {
      await spend(new ReaderSession(history, client, session), random, stage.stopping)
    } else {
      if (random.chance(0.5)) await client.ask('QUIT')
      await delay(random.integer(20, REFUSED_MS))
    }
  } finally {
    patience.end()
    client.socket.destroy()
  }
}

/** Messages that a session may leave behind which deletes the most. */
const KEPT_MAX = 60

async function spend(session: ReaderSession, random: Random, stopping: AbortSignal): Promise<void> {
  try {
    if (random.chance(0.4)) await session.stat()
    // A poll, as most logins are.
    if (random.chance(0.2)) return await end(session, random)
    await session.list()
    for (let left = random.integer(1, 12); left > 0 && !stopping.aborted; left--) {
      await step(session, random, stopping)
      if (random.chance(0.3)) await delay(random.integer(0, 120))
    }
    await end(session, random)
  } finally {
    session.leave()
  }
}

async function step(session: ReaderSession, random: Random, stopping: AbortSignal): Promise<void> {
  const { numbers } = session
  const dice = random.next()
  if (dice < 0.05) return await session.stat()
  if (dice < 0.1) return await session.list()
  if (dice < 0.14) return await session.reset()
  if (dice < 0.18) return await session.noop()
  if (dice < 0.21) return await stall(session, random, stopping)
  if (numbers.length === 0) return await session.noop()
  const number = random.pick(numbers)
  if (dice < 0.5) return await session.retrieve(number)
  if (dice < 0.6) return await session.top(number)
  // As a client does that keeps nothing on the server: fetched, then marked.
  if (dice < 0.75) await session.retrieve(number)
  await session.mark(number)
}

async function stall(session: ReaderSession, random: Random, stopping: AbortSignal): Promise<void> {
  // Long enough to be overtaken where its node has lost the database.
  if (random.chance(0.08)) return await rest(random.integer(20_000, 45_000), stopping)
  if (random.chance(0.7)) return await delay(random.integer(200, 3_000))
  // Stops reading in the middle of what is coming.
  await session.retrieveDeaf(random.integer(100, 2_000), random)
}

/** As long, or until the run comes to its end. */
function rest(ms: number, stopping: AbortSignal): Promise<void> {
  return delay(ms, undefined, { signal: stopping }).catch(() => {})
}

async function end(session: ReaderSession, random: Random): Promise<void> {
  const dice = random.next()
  if (dice < 0.6) {
    await session.quit()
    return
  }
  if (dice < 0.7) {
    // A maildrop that only grows is one of long lists, and the history holds them all.
    const many = Math.max(3, session.numbers.length - KEPT_MAX)
    return await session.markAndQuit(random.sample(session.numbers, many))
  }
  if (dice < 0.75) return await session.quitAndGo()
  if (dice < 0.85) return await session.quitAndGo(random.integer(0, 12))
  if (dice < 0.9) return await session.halfClose()
  // Gone without a word: `leave` follows.
}

/** After the faults: how long it takes until the maildrop can be opened and left by QUIT. */
export async function recover(stage: Stage, maildrop: string, limitMs: number): Promise<void> {
  const { history } = stage
  const startedAt = history.now()
  let reply = 'no node runs'
  let isThrough = false
  while (!isThrough && history.now() - startedAt < limitMs) {
    for (const node of stage.cluster.nodes) {
      if (node.addresses === undefined || isThrough) continue
      try {
        const client = await Pop3Client.connect(node.addresses.pop3)
        const patience = setTimeout(() => client.socket.destroy(), limitMs)
        try {
          await client.line()
          await client.ask(`USER ${maildrop}`)
          const session = stage.nextNumber()
          history.note({ type: 'login', session, maildrop, node: node.name })
          reply = await client.ask(`PASS ${PASSWORD}`)
          history.note({ type: 'login-told', session, reply })
          if (!reply.startsWith('+OK')) continue
          const reader = new ReaderSession(history, client, session)
          try {
            await reader.stat()
            await reader.list()
            reply = await reader.quit()
            isThrough = reply.startsWith('+OK')
          } finally {
            reader.leave()
          }
        } finally {
          clearTimeout(patience)
          client.socket.destroy()
        }
      } catch (error) {
        reply = String(error)
      }
    }
    if (!isThrough) await delay(250)
  }
  history.note({ type: 'recovered', maildrop, tookMs: history.now() - startedAt, reply })
}
