/**
 * A PostgreSQL that has run out of something: connections, disk, or that is just starting. Clients are
 * told to come again, senders too, nothing is lost, and it works again without a restart.
 */
import { once } from 'node:events'
import { createServer, type Server } from 'node:net'
import { sql } from 'kysely'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { Secret } from '../../../src/base/secret.ts'
import { type Database, openDatabase } from '../../../src/storage/postgres/database.ts'
import { openLmtp, sendMail, startTestLmtp, type TestLmtp } from '../../support/lmtp.ts'
import { loginSoon } from '../../support/login-soon.ts'
import { putMessage } from '../../support/mail.ts'
import { isPooled } from '../../support/pgbouncer.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { SERVING_ROLE, servingUrl } from '../../support/postgres-setup.ts'

const USER = 'alice@example.test'

let database: TestDatabase
let node: TestNode
let delivering: Database
let lmtp: TestLmtp

const open = (url: string): Database =>
  openDatabase({ url: new Secret(url), applicationName: 'popgres test', connectionsMax: 3 })

const run = (text: string) => sql.raw(text).execute(database.db.kysely)

beforeEach(async () => {
  database = await openTestDatabase()
  const user = await addUser(database.db, USER, { password: 'secret' })
  await putMessage(database.db, user.domainId, [user.userId], 'A: b\r\n\r\none\r\n')
  node = await startTestNode({ url: database.url })
  delivering = open(servingUrl(database.url))
  lmtp = await startTestLmtp(delivering)
})

afterEach(async () => {
  await node.stop()
  await lmtp.stop()
  await delivering.close()
  await database.close()
})

/** @returns what it is told that should have been told +OK */
async function refusedLogin(): Promise<string> {
  const client = await Pop3Client.connect(node.address)
  await client.line()
  await client.ask(`USER ${USER}`)
  const reply = await client.ask('PASS secret')
  client.socket.destroy()
  return reply
}

// Behind a pooler its own connections are all there are: who comes waits for one of them.
test.skipIf(isPooled)('out of connections: [SYS/TEMP] and 451, until there are some', async () => {
  const [{ name } = { name: '' }] = (
    await sql<{ name: string }>`select current_database() as name`.execute(database.db.kysely)
  ).rows
  await run(`alter database ${name} connection limit 0`)
  await run(`select pg_terminate_backend(pid) from pg_stat_activity
    where usename = '${SERVING_ROLE}' and datname = '${name}'`)
  await node.untilLogged('a database connection broke')
  // The first may still go into a connection that is no more.
  for (const _ of [1, 2]) expect(await refusedLogin()).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect(await node.untilLogged('STORAGE_UNAVAILABLE')).toContain('a command failed')
  await delivering.ping().catch(() => undefined)
  await expect(delivering.ping()).rejects.toMatchObject({
    message: `the database does not answer: too many connections for database "${name}"`,
  })
  const sender = await openLmtp(lmtp)
  await sender.ask('MAIL FROM:<>')
  expect(await sender.ask(`RCPT TO:<${USER}>`)).toMatch(/^451 4\.3\.0 /)
  await run(`alter database ${name} connection limit -1`)
  expect(await sender.ask(`RCPT TO:<${USER}>`)).toMatch(/^250 /)
  sender.destroy()
  expect(await (await loginSoon(node.address, USER, 'secret')).ask('STAT')).toMatch(/^\+OK 1 /)
})

/** As PostgreSQL says it when a table cannot grow. */
async function fill(table: string): Promise<void> {
  await run(`create or replace function full() returns trigger language plpgsql as $$ begin
    raise exception 'could not extend file "base/5/16384": No space left on device'
      using errcode = 'disk_full'; end $$`)
  await run(`create trigger disk_is_full before insert on ${table} execute function full()`)
}

test('disk full: a login is told [SYS/TEMP]', async () => {
  await fill('sessions')
  expect(await refusedLogin()).toMatch(/^-ERR \[SYS\/TEMP\]/)
  await run('drop trigger disk_is_full on sessions')
  expect(await (await loginSoon(node.address, USER, 'secret')).ask('STAT')).toMatch(/^\+OK 1 /)
})

test('disk full: QUIT is told [SYS/TEMP], and has deleted nothing', async () => {
  const client = await loginSoon(node.address, USER, 'secret')
  await client.ask('DELE 1')
  await fill('session_log')
  expect(await client.ask('QUIT')).toMatch(/^-ERR \[SYS\/TEMP\]/)
  await run('drop trigger disk_is_full on session_log')
  const again = await loginSoon(node.address, USER, 'secret')
  expect(await again.ask('STAT')).toMatch(/^\+OK 1 /)
})

test.each(['messages', 'bodies'])(
  'disk full at %s: DATA is told 451, nothing is kept',
  async (table) => {
    const sender = await openLmtp(lmtp)
    await fill(table)
    const message = Buffer.from(`Subject: x\r\n\r\n${'x'.repeat(1_000)}\r\n`)
    expect(await sendMail(sender, '', [USER], message)).toEqual([expect.stringMatching(/^451 /)])
    await run(`drop trigger disk_is_full on ${table}`)
    expect(await sendMail(sender, '', [USER], message)).toEqual([expect.stringMatching(/^250 /)])
    sender.destroy()
    expect(await (await loginSoon(node.address, USER, 'secret')).ask('STAT')).toMatch(/^\+OK 2 /)
  },
)

test('starting up: what a server says before anybody gets in is no doubt', async () => {
  const server = await serverThatSays('57P03', 'the database system is starting up')
  const address = server.address()
  const port = typeof address === 'object' ? address?.port : 0
  const db = open(`postgres://u@127.0.0.1:${port}/d`)
  const ping = { name: 'test-ping', text: 'select 1' }
  for (const door of [() => db.hot(ping, []), () => db.bulk(ping, []), () => db.ping()])
    await expect(door()).rejects.toMatchObject({
      code: 'STORAGE_UNAVAILABLE',
      message: 'the database does not answer: the database system is starting up',
    })
  await db.close()
  server.close()
})

async function serverThatSays(sqlState: string, message: string): Promise<Server> {
  const fields = Buffer.from(`SFATAL\0VFATAL\0C${sqlState}\0M${message}\0\0`, 'latin1')
  const refusal = Buffer.concat([Buffer.from('E....'), fields])
  refusal.writeUInt32BE(refusal.length - 1, 1)
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.once('data', () => socket.end(refusal))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}
