/**
 * The supervisor and its workers on one database: what the death of a worker costs, and what a start
 * that cannot succeed says.
 */
import { createServer } from 'node:net'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { loginSoon } from '../support/login-soon.ts'
import { NodeProcess } from '../support/node-process.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../support/postgres.ts'
import { servingUrl } from '../support/postgres-setup.ts'
import { isRunning, processesWith } from '../support/processes.ts'

const PASSWORD = 'a password for workers'

let database: TestDatabase
let nodes: NodeProcess[]

beforeEach(async () => {
  database = await openTestDatabase()
  nodes = []
})

afterEach(async () => {
  for (const node of nodes) await node.destroy()
  await database.close()
})

function start(env: Record<string, string> = {}): NodeProcess {
  const node = new NodeProcess({ env: { DATABASE_URL: servingUrl(database.url), ...env } })
  nodes.push(node)
  return node
}

/** Which process has the session, by the address of its row. */
async function workerOf(user: number): Promise<number> {
  const row = await database.db.kysely
    .selectFrom('sessions')
    .innerJoin('nodes', 'nodes.node_id', 'sessions.node_id')
    .where('sessions.user_id', '=', user)
    .select('nodes.pid')
    .executeTakeFirstOrThrow()
  return row.pid
}

test('kill -9 of a worker: its maildrops are free at once, other sessions live on, another worker comes', async () => {
  const alice = await addUser(database.db, 'alice@workers.test', { password: PASSWORD })
  const bob = await addUser(database.db, 'bob@workers.test', { password: PASSWORD })
  const node = start()
  const { pop3 } = await node.addresses()
  const first = await Pop3Client.login(pop3, 'alice@workers.test', PASSWORD)
  const victim = await workerOf(alice.userId)
  // One that is stopped accepts nothing: the next connection is another worker's.
  process.kill(victim, 'SIGSTOP')
  const other = await Pop3Client.login(pop3, 'bob@workers.test', PASSWORD)
  expect(await workerOf(bob.userId)).not.toBe(victim)

  const from = node.records.length
  process.kill(victim, 'SIGKILL')
  await first.closed
  await node.record(/leases of a worker that ended are free/, from)
  const again = await Pop3Client.login(pop3, 'alice@workers.test', PASSWORD)
  expect(await again.ask('QUIT')).toMatch(/^\+OK/)
  expect(await other.ask('STAT')).toBe('+OK 0 0')
  await node.record('a worker serves', from)
  expect((await node.crew(2)).every(isRunning)).toBe(true)
})

test('a worker that dies again and again comes back after a pause that doubles', async () => {
  const node = start({ POPGRES_WORKERS: '1' })
  let { worker } = await node.record('a worker serves')
  const pauses: unknown[] = []
  for (let death = 1; death <= 3; death++) {
    const from = node.records.length
    process.kill(Number(worker), 'SIGKILL')
    pauses.push((await node.record(/^a worker has ended/, from)).pauseMs)
    worker = (await node.record('a worker serves', from)).worker
  }
  const [shortest] = pauses as number[]
  expect(pauses).toEqual([shortest, (shortest ?? 0) * 2, (shortest ?? 0) * 4])
})

test('after an end in order no row of the node is left, and no process', async () => {
  const { userId } = await addUser(database.db, 'carol@workers.test', { password: PASSWORD })
  const node = start()
  const { pop3 } = await node.addresses()
  const client = await Pop3Client.login(pop3, 'carol@workers.test', PASSWORD)
  const worker = await workerOf(userId)
  const ended = node.stop()
  expect(await client.line()).toMatch(/^-ERR \[SYS\/TEMP\]/)
  client.socket.end()
  expect(await ended).toEqual({ status: 0, signal: null })
  expect(isRunning(worker)).toBe(false)
  expect(processesWith(`main.js serve`).filter(({ pid }) => pid === node.pid)).toEqual([])
  const count = async (table: 'nodes' | 'sessions'): Promise<number> =>
    (await database.db.kysely.selectFrom(table).selectAll().execute()).length
  expect([await count('nodes'), await count('sessions')]).toEqual([0, 0])
})

test.each(['POPGRES_POP3_LISTEN', 'POPGRES_LMTP_LISTEN'])(
  'a port that is taken is told in one line with its setting, and the node ends: %s',
  async (setting) => {
    const taken = createServer()
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
    const address = taken.address()
    const port = typeof address === 'object' ? address?.port : 0
    // Also where the database is away, and the node would otherwise wait for it.
    for (const env of [{}, { DATABASE_URL: 'postgres://popgres@127.0.0.1:1/popgres' }]) {
      const node = start({ ...env, [setting]: `127.0.0.1:${port}` })
      expect((await node.exited).status).toBe(1)
      expect(node.stderr).toMatch(/^popgres: .*\n$/)
      expect(node.stderr).toContain(`127.0.0.1:${port}`)
      expect(node.stderr).toContain(setting)
      const inLog = node.records.map((record) => JSON.stringify(record)).join('\n')
      expect(inLog).not.toMatch(/EADDRINUSE|cannot listen/)
    }
    taken.close()
  },
)

test('a worker that was declared dead goes on under another id, and its log lines name that one', async () => {
  await addUser(database.db, 'erin@workers.test', { password: PASSWORD })
  const node = start({ POPGRES_WORKERS: '1' })
  const { pop3 } = await node.addresses()
  const { node: firstId } = await node.record('a worker serves')
  await database.db.kysely.deleteFrom('nodes').execute()
  const dead = await node.record(/^this node was declared dead/)
  expect(dead.node).toBe(firstId)
  const from = node.records.length
  const client = await loginSoon(pop3, 'erin@workers.test', PASSWORD)
  await client.ask('QUIT')
  const [row] = await database.db.kysely.selectFrom('nodes').select('node_id').execute()
  expect(row?.node_id).not.toBe(firstId)
  await node.record('connection closed', from)
  const later = node.records.slice(from).filter(({ pid }) => pid === dead.pid)
  expect(later.length).toBeGreaterThan(0)
  expect(later.map((record) => record.node)).toEqual(later.map(() => row?.node_id))
})

test('with DATABASE_URL the hints say that administration needs it too', async () => {
  const node = start()
  await node.addresses()
  await node.stop()
  expect(node.stderr).toMatch(/another terminal.*DATABASE_URL/)
  expect(node.stderr).toContain('Ctrl-C stops everything')
})

test('a database without the schema is refused with what to do', async () => {
  const empty = await openTestDatabase(true)
  try {
    const node = start({ DATABASE_URL: empty.url })
    expect((await node.exited).status).toBe(1)
    expect(node.stderr).toContain('popgres migrate')
  } finally {
    await empty.close()
  }
})
