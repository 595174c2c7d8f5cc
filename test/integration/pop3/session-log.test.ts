/**
 * What session_log keeps of sessions over real sockets: who fetched and deleted what, one row a
 * session that did, written by the statement that ends the lease; a poll leaves none.
 */
import { randomBytes } from 'node:crypto'
import { sql } from 'kysely'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { DatabaseMeter } from '../../guard/database-meter.ts'
import { TestAuthority } from '../../support/certificates.ts'
import { longMessage, putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

const ALICE = 'alice@example.test'
const TEXTS = ['one', 'two', 'three', 'four'].map((word) => `A: b\r\n\r\n${word}\r\n`)

let database: TestDatabase
let meter: DatabaseMeter
let node: TestNode
let user: { domainId: number; userId: number }

beforeEach(async () => {
  database = await openTestDatabase()
  meter = await DatabaseMeter.open(database.url)
  user = await addUser(database.db, ALICE, { password: 'secret' })
  for (const text of TEXTS) await putMessage(database.db, user.domainId, [user.userId], text)
  const tls = await (await TestAuthority.create()).issue(['pop.example.test'])
  node = await startTestNode({ url: meter.url, tls })
})

afterEach(async () => {
  await node.stop()
  await meter.close()
  await database.close()
})

const login = (password = 'secret') => Pop3Client.login(node.address, ALICE, password)

const logged = () =>
  database.db.kysely.selectFrom('session_log').selectAll().orderBy('ended_at').execute()

/** The lease is given back when the server has closed, not when the client has. */
async function untilLogged(count: number) {
  for (const deadline = Date.now() + 20_000; Date.now() < deadline; ) {
    const rows = await logged()
    if (rows.length === count) return rows
  }
  throw new Error(`${count} rows were expected in session_log: ${JSON.stringify(await logged())}`)
}

async function quit(client: Pop3Client): Promise<void> {
  expect(await client.ask('QUIT')).toMatch(/^\+OK/)
  await client.closed
}

const octetsOf = (...numbers: number[]): number =>
  numbers.reduce((sum, number) => sum + (TEXTS[number - 1]?.length ?? 0), 0)

test('a session that fetched only leaves one row, by the statement that releases the lease', async () => {
  await quit(await login()) // the password is known from here on
  const { statements } = await meter.count(async () => {
    const client = await login()
    await client.retrieve('RETR 1')
    await client.retrieve('RETR 2')
    await client.retrieve('RETR 4')
    await client.retrieve('RETR 2')
    await quit(client)
  })
  expect(statements.filter((name) => /release|quit/.test(name))).toEqual(['lease-release-logged'])
  const [row, ...more] = await logged()
  expect(more).toEqual([])
  expect(row).toMatchObject({
    domain_id: user.domainId,
    user_id: user.userId,
    client: '127.0.0.1',
    tls: null,
    mechanism: 'password',
    credential_id: null,
    reason: 'quit',
    fetched: 3,
    deleted: 0,
    fetched_uids: '{[1,3),[4,5)}',
    deleted_uids: null,
  })
  expect(Number(row?.octets)).toBe(octetsOf(1, 2, 4, 2))
  expect(row?.began_at?.getTime()).toBeLessThanOrEqual(row?.ended_at.getTime() ?? 0)
})

test('a poll that changed nothing leaves no row, and no statement more', async () => {
  await quit(await login())
  const { statements } = await meter.count(async () => {
    const client = await login()
    await client.askMulti('UIDL')
    await client.askMulti('TOP 1 0')
    await quit(client)
  })
  expect(statements).toContain('lease-release')
  expect(statements).not.toContain('lease-release-logged')
  expect(await logged()).toEqual([])
})

test('TOP of more lines than there are has fetched the message', async () => {
  const client = await login()
  await client.askMulti('TOP 1 0')
  await client.askMulti('TOP 3 99999999')
  await quit(client)
  expect(await logged()).toMatchObject([{ fetched: 1, fetched_uids: '{[3,4)}' }])
})

test('what a session deleted and how it came in is told with the deletes', async () => {
  const { rows } = await sql<{ secret: string }>`
    select add_app_password(${ALICE}, 'phone') as secret`.execute(database.db.kysely)
  const client = await Pop3Client.connectTls(node.tlsAddress)
  await client.line()
  await client.ask(`USER ${ALICE}`)
  expect(await client.ask(`PASS ${rows[0]?.secret}`)).toMatch(/^\+OK/)
  await client.retrieve('RETR 1')
  for (const number of [1, 2, 4]) await client.ask(`DELE ${number}`)
  await quit(client)
  expect(await logged()).toMatchObject([
    {
      tls: 'TLSv1.3',
      credential_name: 'phone',
      credential_id: expect.stringMatching(/-/),
      reason: 'quit',
      fetched: 1,
      deleted: 3,
      fetched_uids: '{[1,2)}',
      deleted_uids: '{[1,3),[4,5)}',
    },
  ])
})

test('a session that breaks off after fetching is told of too, and why it ended', async () => {
  const gone = await login()
  await gone.retrieve('RETR 1')
  gone.socket.destroy()
  await untilLogged(1)
  const drained = await login()
  await drained.retrieve('RETR 2')
  await drained.ask('DELE 2')
  await node.stop()
  expect(await untilLogged(2)).toMatchObject([
    { reason: 'gone', fetched_uids: '{[1,2)}', deleted: 0 },
    { reason: 'drain', fetched_uids: '{[2,3)}', deleted: 0, deleted_uids: null },
  ])
})

test('a message that was cut off in the middle was not fetched', async () => {
  const long = longMessage(30_000_000)
  await putMessage(database.db, user.domainId, [user.userId], long)
  const client = await login()
  await client.retrieve('RETR 1')
  client.send('RETR 5\r\n')
  await client.line()
  client.socket.destroy()
  expect(await untilLogged(1)).toMatchObject([{ fetched: 1, fetched_uids: '{[1,2)}' }])
})

test('whose lease was taken away is told of too, and deletes nothing', async () => {
  for (const deletes of [false, true]) {
    const client = await login()
    await client.retrieve('RETR 1')
    if (deletes) await client.ask('DELE 1')
    await sql`select kick(${ALICE})`.execute(database.db.kysely)
    await client.ask('QUIT')
    await client.closed
  }
  expect(await untilLogged(2)).toMatchObject([
    { reason: 'quit', deleted: 0, deleted_uids: null },
    { reason: 'lease-lost', deleted: 0, deleted_uids: null },
  ])
})

test('of a user who was removed meanwhile nothing is kept', async () => {
  await quit(await login())
  const client = await login()
  await client.retrieve('RETR 1')
  await sql`select remove_user(${ALICE})`.execute(database.db.kysely)
  await client.ask('QUIT')
  await client.closed
  await node.untilLogged('connection closed')
  await node.stop()
  expect(await logged()).toEqual([])
})

test('a QUIT whose answer is lost while it is refused does not take its own fetches for a commit', async () => {
  const client = await login()
  await client.retrieve('RETR 1')
  await client.ask('DELE 1')
  const name = randomBytes(4).toString('hex')
  await database.db.kysely.schema.alterTable('trash').renameTo(name).execute()
  expect(await client.ask('QUIT')).toMatch(/^-ERR \[SYS\/TEMP\]/)
  await client.closed
  await database.db.kysely.schema.alterTable(name).renameTo('trash').execute()
  expect(await untilLogged(1)).toMatchObject([{ reason: 'quit-failed', fetched: 1, deleted: 0 }])
})
