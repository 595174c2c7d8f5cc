/** RETR of large messages: byte for byte, bounded memory, nothing held, and no false ending. */
import { createHash } from 'node:crypto'
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { longMessage, putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await openTestDatabase()
})
afterAll(() => database.close())
beforeEach(async () => {
  node = await startTestNode({ url: database.url })
})
afterEach(() => node.stop())

let count = 0
async function newUser(): Promise<{ name: string; domainId: number; userId: number }> {
  const name = `reader${++count}@example.test`
  return { name, ...(await addUser(database.db, name, { password: 'secret' })) }
}

const digest = (content: Buffer) => createHash('sha256').update(content).digest('hex')

test.each([1, 8_096, 8_097, 259_000, 259_200, 1_000_000])(
  'a message of about %i octets comes back byte for byte, and TOP is its beginning',
  async (octets) => {
    const { name, domainId, userId } = await newUser()
    const content = longMessage(octets)
    await putMessage(database.db, domainId, [userId], content)
    const session = await Pop3Client.login(node.address, name, 'secret')
    expect(await session.ask('LIST 1')).toBe(`+OK 1 ${content.length}`)
    const whole = await session.retrieve('RETR 1')
    expect(whole.length).toBe(content.length)
    expect(digest(whole)).toBe(digest(content))
    expect(digest(await session.retrieve('TOP 1 99999999'))).toBe(digest(content))
    const top = await session.retrieve('TOP 1 3')
    expect(content.subarray(0, top.length).equals(top)).toBe(true)
    expect(top.toString('latin1').split('\r\n').length).toBe(
      Math.min(6, content.toString('latin1').split('\r\n').length),
    )
    await session.ask('QUIT')
  },
)

test('a chunk that is missing ends the connection: no terminator, no -ERR after +OK', async () => {
  const { name, domainId, userId } = await newUser()
  const { bodyId } = await putMessage(database.db, domainId, [userId], longMessage(900_000))
  await database.db.kysely
    .deleteFrom('body_chunks')
    .where('domain_id', '=', domainId)
    .where('body_id', '=', bodyId)
    .where('seq', '=', 50)
    .execute()
  const session = await Pop3Client.login(node.address, name, 'secret')
  session.send('RETR 1\r\nNOOP\r\n')
  expect(await session.line()).toMatch(/^\+OK/)
  const rest = (await session.closed).toString('latin1')
  expect(rest).not.toContain('\r\n.\r\n')
  expect(rest).not.toMatch(/\r\n[-+](ERR|OK)/)
})

test('a message whose length is wrong is refused before anything of it was sent', async () => {
  const { name, domainId, userId } = await newUser()
  const { bodyId } = await putMessage(database.db, domainId, [userId], 'A: b\r\n\r\nbody\r\n')
  await database.db.kysely
    .updateTable('body_chunks')
    .set({ data: Buffer.from('A: b\r\n\r\n') })
    .where('domain_id', '=', domainId)
    .where('body_id', '=', bodyId)
    .execute()
  const session = await Pop3Client.login(node.address, name, 'secret')
  expect(await session.ask('RETR 1')).toMatch(/^-ERR/)
  expect(await session.ask('NOOP')).toMatch(/^\+OK/)
  await session.ask('QUIT')
})

test('a message that was removed by another is refused, and its number stays', async () => {
  const { name, domainId, userId } = await newUser()
  const first = await putMessage(database.db, domainId, [userId], 'A: b\r\n\r\none\r\n')
  await putMessage(database.db, domainId, [userId], 'A: b\r\n\r\ntwo\r\n')
  const session = await Pop3Client.login(node.address, name, 'secret')
  await session.ask('LIST 1')
  await database.db.kysely
    .deleteFrom('messages')
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .where('uid', '=', first.uids[0] ?? 0)
    .execute()
  expect(await session.ask('RETR 1')).toMatch(/^-ERR/)
  expect((await session.retrieve('RETR 2')).toString()).toContain('two')
  await session.ask('QUIT')
})

test('200 clients that stop reading a 25 MB message cost little and hold nothing', async () => {
  const readers = 200
  const domainId = (await newUser()).domainId
  const hash = await passwordHashOf('reader1@example.test')
  const rows = await database.db.kysely
    .insertInto('users')
    .values(
      Array.from({ length: readers }, (_, i) => ({
        domain_id: domainId,
        local_part: `stalled${i}`,
        password_hash: hash,
      })),
    )
    .returning('user_id')
    .execute()
  const userIds = rows.map((row) => Number(row.user_id))
  await putMessage(database.db, domainId, userIds, longMessage(25_000_000))
  const before = process.memoryUsage()
  const clients: Pop3Client[] = []
  for (let first = 0; first < readers; first += 20) {
    await node.keeper.beat()
    clients.push(...(await Promise.all([...Array(20).keys()].map((i) => stall(first + i)))))
  }
  await node.keeper.beat()
  // The node is not held up: another login and a whole fetch go through beside them.
  const { name, domainId: d, userId } = await newUser()
  await putMessage(database.db, d, [userId], longMessage(1_000_000))
  const session = await Pop3Client.login(node.address, name, 'secret')
  expect((await session.retrieve('RETR 1')).length).toBeGreaterThan(1_000_000)
  await session.ask('QUIT')
  const after = process.memoryUsage()
  const grown = (after.rss - before.rss) / readers
  console.log(`memory of a stalled RETR (client side included): ${Math.round(grown / 1024)} KiB`)
  expect(grown).toBeLessThan(3 * 1_048_576)
  // What a login leaves to be written afterwards ends by itself; what a reader held would not.
  while ((await busyBackends()) > 0);
  for (const client of clients) client.socket.destroy()
  await Promise.all(clients.map((client) => client.closed))
})

/** Logs in, asks for the message and reads no further than its first line. */
async function stall(i: number): Promise<Pop3Client> {
  const client = await Pop3Client.connect(node.address)
  await client.line()
  client.send(`USER stalled${i}@example.test\r\nPASS secret\r\n`)
  await client.line()
  expect(await client.line()).toMatch(/^\+OK/)
  client.send('RETR 1\r\n')
  expect(await client.line()).toMatch(/^\+OK/)
  client.socket.pause()
  return client
}

async function busyBackends(): Promise<number> {
  const { rows } = await sql`
    select from pg_stat_activity
    where datname = current_database() and pid <> pg_backend_pid() and state <> 'idle'
  `.execute(database.db.kysely)
  return rows.length
}

async function passwordHashOf(address: string): Promise<string> {
  const row = await database.db.kysely
    .selectFrom('users')
    .select('password_hash')
    .where('local_part', '=', address.split('@')[0] ?? '')
    .executeTakeFirstOrThrow()
  return row.password_hash ?? ''
}
