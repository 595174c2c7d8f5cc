/**
 * A worker that does nothing for longer than its lease lasts: stopped, its event loop full, or cut
 * off from PostgreSQL without a word. Another node takes the maildrop over, and the older session
 * says nothing on it and deletes nothing any more. Each takes half a minute: all at once.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sql } from 'kysely'
import { describe, expect, type TestContext, test } from 'vitest'
import type { Pop3Client } from '../../support/pop3-client.ts'
import { openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { blockableLoop, blockLoop } from '../../torture/faults/means/blocked-loop.ts'
import { StatementLoss } from '../../torture/faults/means/statement-loss.ts'
import { until } from '../../torture/faults/means/until.ts'
import {
  addOwner,
  logIn,
  type NodeBehindProxy,
  type NodeChanges,
  type Owner,
  startBehindProxy,
  uidsIn,
} from './node-behind-proxy.ts'

/** Until others take a silent node for dead, and have noticed. */
const TAKEOVER_MS = 50_000
const LONG = { timeout: 120_000 }

/** Of one test: they run at the same time. */
class Scene {
  readonly #onTestFinished: TestContext['onTestFinished']

  constructor({ onTestFinished }: Pick<TestContext, 'onTestFinished'>) {
    this.#onTestFinished = onTestFinished
  }

  async openDatabase(): Promise<TestDatabase> {
    const database = await openTestDatabase()
    this.#onTestFinished(() => database.close())
    return database
  }

  async startNode({ url }: TestDatabase, changes?: NodeChanges): Promise<NodeBehindProxy> {
    const behind = await startBehindProxy(url, changes)
    this.#onTestFinished(() => behind.stop())
    return behind
  }

  async startHaltable(database: TestDatabase): Promise<[NodeBehindProxy, string]> {
    const directory = mkdtempSync(join(tmpdir(), 'popgres-halted-'))
    this.#onTestFinished(() => rmSync(directory, { recursive: true }))
    const nodeOptions = [blockableLoop(directory)]
    return [await this.startNode(database, { nodeOptions }), directory]
  }
}

/** Refused for now, or until time alone has set the maildrop free: of that nobody is told. */
async function logInAtLast(address: string, owner: Owner, refusal: string): Promise<Pop3Client> {
  let session: Pop3Client | undefined
  const attempt = async (): Promise<boolean> => {
    try {
      session = await logIn(address, owner)
    } catch (error) {
      if (!String(error).includes(refusal)) throw error
    }
    return session !== undefined
  }
  await until(`no ${refusal} any more`, attempt, TAKEOVER_MS)
  return session as Pop3Client
}

/** By the database's clock, at which others look. */
const SILENT_NODE = `select from nodes where heartbeat_at < now() - interval '7 s'`
/** Its name is that of whoever uses it where PgBouncer is between. */
const POOLED_CONNECTION = `select from pg_stat_activity where datname = current_database()
  and state = 'idle' and query like 'select s.session_id%'`

async function isThere({ db }: TestDatabase, query: string): Promise<boolean> {
  const { rows } = await sql.raw(query).execute(db.kysely)
  return rows.length > 0
}

/** @returns what ends it again */
type Halt = (behind: NodeBehindProxy, directory: string) => Promise<() => void>

const stopWorker: Halt = async ({ node }) => {
  const [worker = 0] = await node.crew(1)
  process.kill(worker, 'SIGSTOP')
  return () => process.kill(worker, 'SIGCONT')
}

const fillLoop: Halt = async ({ node }, directory) => {
  const [worker = 0] = await node.crew(1)
  return blockLoop(worker, directory)
}

const fallSilent: Halt = async ({ proxy }) => {
  proxy.stall()
  return () => proxy.heal()
}

describe.concurrent('for longer than', () => {
  test.for([
    ['its lease, a worker is stopped', stopWorker],
    ['its lease, the event loop of a worker is full', fillLoop],
    ['its lease, PostgreSQL is half-open', fallSilent],
  ] as const)('%s', LONG, async ([, halt], context) => {
    const scene = new Scene(context)
    const database = await scene.openDatabase()
    const alice = await addOwner(database, 'alice@halted.test', 2)
    const [one, directory] = await scene.startHaltable(database)
    const two = await scene.startNode(database)
    const older = await logIn(one.pop3, alice)
    expect(await older.ask('DELE 1')).toMatch(/^\+OK/)
    const goOn = await halt(one, directory)
    await expect(logIn(two.pop3, alice)).rejects.toThrow('[IN-USE]')

    const younger = await logInAtLast(two.pop3, alice, '[IN-USE]')
    older.send('STAT\r\nRETR 2\r\nQUIT\r\n')
    goOn()
    const said = (await older.closed).toString()
    expect(said).toMatch(/^-ERR \[SYS\/TEMP\] [^\r]*\r\n$/)
    expect(await uidsIn(database, 'trash', alice)).toEqual([])
    expect(await younger.ask('STAT')).toMatch(/^\+OK 2 /)
    expect(await younger.ask('DELE 2')).toMatch(/^\+OK/)
    expect(await younger.ask('QUIT')).toMatch(/^\+OK/)
    expect(await uidsIn(database, 'messages', alice)).toEqual([1])

    // Its node begins anew under another id first.
    const again = await logInAtLast(one.pop3, alice, '[SYS/TEMP]')
    expect(await again.ask('STAT')).toMatch(/^\+OK 1 /)
    expect(await again.ask('QUIT')).toMatch(/^\+OK/)
  })

  test.for([
    ['is away', ({ proxy }: NodeBehindProxy) => proxy.cut(true)],
    ['is half-open', ({ proxy }: NodeBehindProxy) => proxy.stall()],
  ] as const)(
    '30 s, a QUIT was committed and PostgreSQL %s: closed without a reply',
    LONG,
    async ([, goAway], context) => {
      const scene = new Scene(context)
      const database = await scene.openDatabase()
      const alice = await addOwner(database, 'alice@undecided.test', 2)
      const behind = await scene.startNode(database)
      const loss = new StatementLoss(behind.proxy)
      const session = await logIn(behind.pop3, alice)
      await session.ask('DELE 1')
      // There is a connection besides: it may be asked, and say nothing.
      await until('a beat', () => isThere(database, POOLED_CONNECTION))
      const lost = loss.next('lease-quit', 'after', () => goAway(behind))
      session.send('QUIT\r\n')
      await lost
      const from = performance.now()
      expect((await session.closed).toString()).toBe('')
      const seconds = (performance.now() - from) / 1_000
      await behind.node.record(/^QUIT stays undecided/)
      expect(await uidsIn(database, 'trash', alice)).toEqual([1])
      expect(Math.round(seconds)).toBeGreaterThanOrEqual(30)
      expect(seconds).toBeLessThan(40)
    },
  )

  test.for([
    ['is stopped', stopWorker],
    ['has a full event loop', fillLoop],
  ] as const)('a heartbeat, a worker %s: its sessions go on', async ([, halt], context) => {
    const scene = new Scene(context)
    const database = await scene.openDatabase()
    const alice = await addOwner(database, 'alice@halted.test', 2)
    const [one, directory] = await scene.startHaltable(database)
    const session = await logIn(one.pop3, alice)
    const goOn = await halt(one, directory)
    session.send('DELE 1\r\nQUIT\r\n')
    await until('no heartbeat for 7 s', () => isThere(database, SILENT_NODE))
    goOn()
    expect(await session.line()).toMatch(/^\+OK/)
    expect(await session.line()).toMatch(/^\+OK/)
    expect(await uidsIn(database, 'messages', alice)).toEqual([2])
  })
})
