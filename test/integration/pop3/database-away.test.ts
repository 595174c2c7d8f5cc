/** A database that is away is told as such: [SYS/TEMP], never an empty maildrop, never a false +OK. */
import { sql } from 'kysely'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { Failure } from '../../../src/base/failure.ts'
import { putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { TcpProxy } from '../../support/tcp-proxy.ts'

let database: TestDatabase
let proxy: TcpProxy
let node: TestNode
let user: { domainId: number; userId: number }

const put = (text: string) =>
  putMessage(database.db, user.domainId, [user.userId], `A: b\r\n\r\n${text}\r\n`)

beforeEach(async () => {
  database = await openTestDatabase()
  const url = new URL(database.url)
  proxy = await TcpProxy.open(Number(url.port))
  url.hostname = '127.0.0.1'
  url.port = String(proxy.port)
  node = await startTestNode({ url: url.toString() })
  user = await addUser(database.db, 'alice@example.test', { password: 'secret' })
  for (const text of ['one', 'two']) await put(text)
})

afterEach(async () => {
  await node.stop()
  await proxy.close()
  await database.close()
})

test('a login is told [SYS/TEMP], and works when the database is back', async () => {
  proxy.cut(true)
  const client = await Pop3Client.connect(node.address)
  expect(await client.line()).toMatch(/^\+OK/)
  await client.ask('USER alice@example.test')
  expect(await client.ask('PASS secret')).toMatch(/^-ERR \[SYS\/TEMP\]/)
  await client.ask('USER nobody@example.test')
  expect(await client.ask('PASS secret')).toMatch(/^-ERR \[SYS\/TEMP\]/)
  proxy.heal()
  await client.ask('USER alice@example.test')
  expect(await client.ask('PASS secret')).toMatch(/^\+OK/)
  expect(await client.ask('STAT')).toMatch(/^\+OK 2 /)
  await client.ask('QUIT')
})

test.each(['LIST', 'UIDL', 'LIST 1', 'UIDL 2', 'RETR 1', 'TOP 1 0', 'DELE 1'])(
  '%s is told [SYS/TEMP] and works when the database is back',
  async (command) => {
    // A shorter list has come with the login.
    for (let count = 2; count < 101; count++) await put('more')
    const client = await Pop3Client.login(node.address, 'alice@example.test', 'secret')
    proxy.cut(true)
    expect(await client.ask(command)).toMatch(/^-ERR \[SYS\/TEMP\]/)
    expect(await client.ask('STAT')).toMatch(/^\+OK 101 /)
    proxy.heal()
    const { status, raw } = await client.askMulti(command === 'UIDL' ? command : 'LIST')
    expect(status).toMatch(/^\+OK/)
    expect(raw.toString()).toMatch(/^1 [^\r]*\r\n2 [^\r]*\r\n([^\r]+\r\n){99}$/)
    client.socket.destroy()
    await client.closed
  },
)

test('the list of a short maildrop needs no database after the login', async () => {
  const client = await Pop3Client.login(node.address, 'alice@example.test', 'secret')
  proxy.cut(true)
  for (const command of ['LIST', 'UIDL'])
    expect((await client.askMulti(command)).raw.toString()).toMatch(/^1 \S+\r\n2 \S+\r\n$/)
  expect(await client.ask('RETR 1')).toMatch(/^-ERR \[SYS\/TEMP\]/)
  client.socket.destroy()
  await client.closed
})

test('away and back is logged once each, and without the password of the database', async () => {
  proxy.cut(true)
  await node.keeper.beat()
  await node.keeper.beat()
  proxy.heal()
  await node.keeper.beat()
  await node.keeper.beat()
  const lines = node.logged.join('')
  expect(lines.match(/the database does not answer/g)).toHaveLength(1)
  expect(lines.match(/the database is back/g)).toHaveLength(1)
  const { password } = new URL(database.url)
  if (password !== '') expect(lines).not.toContain(password)
})

test('a connection that breaks in the packet in which it became ready harms nothing', async () => {
  const { db } = node
  const field = (code: string, text: string) => `${code}${text}\0`
  const fields = `${field('S', 'FATAL')}${field('C', '57P01')}${field('M', 'terminating')}\0`
  const fatal = Buffer.from(`E\0\0\0\0${fields}`, 'latin1')
  fatal.writeInt32BE(fatal.length - 1, 1)
  const readyForQuery = Buffer.from('Z\0\0\0\u0005I', 'latin1')
  proxy.cut(false)
  proxy.onAnswer = (chunk) =>
    chunk.subarray(-readyForQuery.length).equals(readyForQuery)
      ? Buffer.concat([chunk, fatal])
      : chunk
  const broken = { name: 'test_broken', text: 'select 1' }
  for (let i = 0; i < 5; i++) {
    await db.bulk(broken, []).catch((error: unknown) => expect(error).toBeInstanceOf(Failure))
    await sql`select 1`.execute(db.kysely).catch((error: unknown) => {
      expect(error).toBeInstanceOf(Failure)
    })
    await db.hot(broken, []).catch((error: unknown) => expect(error).toBeInstanceOf(Failure))
  }
  proxy.heal()
  proxy.cut(false)
  await node.keeper.beat()
  await node.keeper.beat()
  const client = await Pop3Client.login(node.address, 'alice@example.test', 'secret')
  expect(await client.ask('STAT')).toMatch(/^\+OK 2 /)
  await client.ask('QUIT')
})
