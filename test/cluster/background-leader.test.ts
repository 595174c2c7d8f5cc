/**
 * One of all nodes does the background work: who has the row in `leaders`. It is killed, and another
 * takes over; it is frozen, and does nothing when it wakes up. And what an open session was shown
 * stays until the session has ended.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { sql } from 'kysely'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { BackgroundTimes } from '../../src/cluster/background.ts'
import { putMessage } from '../support/mail.ts'
import { NodeProcess } from '../support/node-process.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../support/postgres.ts'
import { servingUrl } from '../support/postgres-setup.ts'

const SCRIPT = fileURLToPath(new URL('../support/background-process.mjs', import.meta.url))
const TIMES: BackgroundTimes = {
  leaseMs: 1_500,
  renewMs: 300,
  nodesMs: 60_000,
  loginsMs: 60_000,
  retentionMs: 100,
  expiryMs: 100,
  sessionLogMs: 60_000,
}
const WAIT_MS = 20_000
const ROUNDS = 8
const PASSWORD = 'a password for leaders'
const OURS = 'this node does it for all from now on'
const ANOTHERS = 'another node does it from now on'

let database: TestDatabase
let processes: BackgroundProcess[]
let nodes: NodeProcess[]
let pop3: TestNode | undefined

beforeEach(async () => {
  database = await openTestDatabase()
  processes = []
  nodes = []
})

afterEach(async () => {
  for (const each of processes) await each.kill('SIGKILL')
  for (const node of nodes) await node.destroy()
  await pop3?.stop()
  pop3 = undefined
  await database.close()
})

class BackgroundProcess {
  readonly child: ChildProcess
  readonly messages: string[] = []
  readonly #exited: Promise<unknown>
  readonly #lines = new EventEmitter()

  constructor() {
    this.child = spawn(process.execPath, [SCRIPT, JSON.stringify(TIMES)], {
      env: { PATH: process.env.PATH, DATABASE_URL: servingUrl(database.url) },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    if (this.child.stdout === null) throw new Error('it has no output')
    createInterface({ input: this.child.stdout }).on('line', (line) => {
      this.messages.push(JSON.parse(line).msg)
      this.#lines.emit('line')
    })
    this.#exited = new Promise((resolve) => this.child.once('close', resolve))
    processes.push(this)
  }

  /** Resolves when it has logged that. */
  async logged(message: string): Promise<void> {
    const signal = AbortSignal.timeout(WAIT_MS)
    while (!this.messages.includes(message)) await once(this.#lines, 'line', { signal })
  }

  async kill(signal: NodeJS.Signals): Promise<void> {
    this.child.kill(signal)
    await this.#exited
  }
}

/** Asks again and again, until it is so. */
async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + WAIT_MS
  while (!(await isSo()))
    if (performance.now() > deadline) throw new Error(`not within ${WAIT_MS} ms: ${what}`)
}

async function leaderPid(): Promise<number | undefined> {
  const row = await database.db.kysely.selectFrom('leaders').select('pid').executeTakeFirst()
  return row?.pid
}

/** @returns which of them leads */
async function leaderOf(some: readonly BackgroundProcess[]): Promise<BackgroundProcess> {
  let found: BackgroundProcess | undefined
  await until('one of them leads', async () => {
    const pid = await leaderPid()
    found = some.find(({ child }) => child.pid === pid)
    return found !== undefined
  })
  return found as BackgroundProcess
}

interface Owner {
  domainId: number
  userId: number
}

/** Adds a message that has expired. */
async function putOld({ domainId, userId }: Owner): Promise<void> {
  await putMessage(database.db, domainId, [userId], 'Subject: old\r\n\r\n')
  await sql`update messages set received_at = now() - interval '2 days'
    where domain_id = ${domainId} and user_id = ${userId}`.execute(database.db.kysely)
}

async function isInTrash({ domainId, userId }: Owner, count: number): Promise<boolean> {
  const rows = await database.db.kysely
    .selectFrom('trash')
    .select('uid')
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .execute()
  return rows.length === count
}

/** So often that a second who works as well would be seen at it. */
async function expireOneByOne(owner: Owner): Promise<void> {
  for (let count = 1; count <= ROUNDS; count++) {
    await putOld(owner)
    await until('the leader expires', () => isInTrash(owner, count))
  }
}

async function addOwner(address: string): Promise<Owner> {
  const owner = await addUser(database.db, address, { password: PASSWORD })
  await sql`update domains set expire_days = 1`.execute(database.db.kysely)
  return owner
}

describe('the background work', () => {
  test('is done by one; when it is killed, another takes over and goes on', async () => {
    const ada = await addOwner('ada@leader.test')
    const both = [new BackgroundProcess(), new BackgroundProcess()]
    const first = await leaderOf(both)
    const second = both.find((each) => each !== first) as BackgroundProcess
    await expireOneByOne(ada)
    await first.logged('moved expired messages to the trash')
    expect(first.messages).toContain(OURS)
    expect(second.messages).toEqual([])

    await first.kill('SIGKILL')
    expect(await leaderPid()).toBe(first.child.pid)
    await putOld(ada)
    expect(await leaderOf([second])).toBe(second)
    await until('the next one expires', () => isInTrash(ada, ROUNDS + 1))
    await second.logged(OURS)
  })

  test('is another one’s while the leader is frozen, and stays so when it wakes up', async () => {
    const ada = await addOwner('ada@frozen.test')
    const both = [new BackgroundProcess(), new BackgroundProcess()]
    const first = await leaderOf(both)
    const second = both.find((each) => each !== first) as BackgroundProcess
    first.child.kill('SIGSTOP')
    await leaderOf([second])
    first.child.kill('SIGCONT')
    await first.logged(ANOTHERS)
    const before = first.messages.length
    await expireOneByOne(ada)
    expect(await leaderPid()).toBe(second.child.pid)
    expect(first.messages.slice(before)).toEqual([])
  })

  test('is given up in order: the row is gone before the process is', async () => {
    const one = new BackgroundProcess()
    await leaderOf([one])
    await one.kill('SIGTERM')
    expect(await leaderPid()).toBe(undefined)
  })

  test('leaves what an open session was shown until it has ended', async () => {
    const ada = await addOwner('ada@shown.test')
    const bob = await addOwner('bob@shown.test')
    for (let count = 0; count < 2; count++) await putOld(ada)
    pop3 = await startTestNode({ url: database.url })
    const client = await Pop3Client.login(pop3.address, 'ada@shown.test', PASSWORD)
    const listed = (await client.askMulti('LIST')).raw.toString()
    expect(listed).toBe('1 16\r\n2 16\r\n')

    await leaderOf([new BackgroundProcess()])
    // Twice: the second began after the first, so one has passed by the open maildrop wholly.
    for (const count of [1, 2]) {
      await putOld(bob)
      await until('others expire', () => isInTrash(bob, count))
    }
    expect(await client.ask('STAT')).toBe('+OK 2 32')
    for (const number of [1, 2])
      expect((await client.retrieve(`RETR ${number}`)).toString()).toBe('Subject: old\r\n\r\n')
    expect(await client.ask('DELE 1')).toMatch(/^\+OK/)
    expect(await client.ask('QUIT')).toMatch(/^\+OK/)
    await until('the rest expires after QUIT', () => isInTrash(ada, 2))
  })
})

test('of two whole nodes: kill -9 of the one with the row, and the other does it', async () => {
  const start = (): NodeProcess => {
    const env = { DATABASE_URL: servingUrl(database.url), POPGRES_WORKERS: '1' }
    const node = new NodeProcess({ env })
    nodes.push(node)
    return node
  }
  const first = start()
  await first.record(OURS)
  expect(await leaderPid()).toBe(first.pid)
  const second = start()
  await second.addresses()
  first.child.kill('SIGKILL')
  await first.exited
  expect(await leaderPid()).toBe(first.pid)
  // The database's clock decides, so the test moves the row: half a minute has passed.
  await sql`update leaders set renewed_at = renewed_at - interval '31 s'`.execute(
    database.db.kysely,
  )
  await second.record(OURS)
  expect(await leaderPid()).toBe(second.pid)
  expect(await second.stop()).toMatchObject({ status: 0 })
  expect(await leaderPid()).toBe(undefined)
})
