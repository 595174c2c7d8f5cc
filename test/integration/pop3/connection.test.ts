/** What a connection owes its peer besides replies: an end in time, order, and no growth. */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { loginSoon } from '../../support/login-soon.ts'
import { longMessage, putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await openTestDatabase()
  const { domainId, userId } = await addUser(database.db, 'alice@example.test', {
    password: 'secret',
  })
  await putMessage(database.db, domainId, [userId], 'A: b\r\n\r\none\r\n')
  await putMessage(database.db, domainId, [userId], longMessage(2_000_000))
  await putMessage(database.db, domainId, [userId], 'A: b\r\n\r\nthree\r\n')
})
afterAll(() => database.close())
afterEach(() => node.stop())

const login = () => Pop3Client.login(node.address, 'alice@example.test', 'secret')

const leases = async () =>
  (await database.db.kysely.selectFrom('sessions').selectAll().execute()).length

test('autologout closes a silent connection without a word and without UPDATE', async () => {
  node = await startTestNode({ url: database.url, autologoutMs: 1_000 })
  const session = await login()
  await session.ask('DELE 1')
  expect((await session.closed).toString()).toBe('')
  while ((await leases()) > 0);
  const next = await login()
  expect(await next.ask('STAT')).toMatch(/^\+OK 3 /)
  await next.ask('QUIT')
})

test('autologout ends a peer that stopped reading, and its lease', async () => {
  node = await startTestNode({ url: database.url, autologoutMs: 1_000 })
  const session = await login()
  session.socket.pause()
  session.send('RETR 2\r\n'.repeat(20))
  while ((await leases()) > 0);
  await node.untilLogged('"reason":"idle"')
  session.socket.destroy()
})

test('a peer that sends all and closes its side gets every reply, and QUIT counts', async () => {
  node = await startTestNode({ url: database.url })
  const client = await Pop3Client.connect(node.address)
  client.send('USER alice@example.test\r\nPASS secret\r\nSTAT\r\nRETR 2\r\nRETR 3\r\nQUIT\r\n')
  client.socket.end()
  const all = (await client.closed).toString('latin1')
  expect(all).toMatch(/three\r\n\.\r\n\+OK pop\.example\.test POP3 server signing off[^\r]*\r\n$/)
  expect(all.length).toBeGreaterThan(2_000_000)
})

test('a peer that closes its side without QUIT deletes nothing', async () => {
  node = await startTestNode({ url: database.url })
  const client = await Pop3Client.connect(node.address)
  client.send('USER alice@example.test\r\nPASS secret\r\nDELE 1\r\nDELE 2\r\n')
  client.socket.end()
  expect((await client.closed).toString()).toMatch(/message 2 deleted\r\n$/)
  const next = await login()
  expect(await next.ask('STAT')).toMatch(/^\+OK 3 /)
  await next.ask('QUIT')
})

test('a session that we end is over though the peer keeps its side open', async () => {
  node = await startTestNode({ url: database.url, limits: { sessionsPerDomain: 1 } })
  const client = await Pop3Client.connect(node.address, true)
  client.send(`USER alice@example.test\r\nPASS secret\r\n${'WHAT\r\n'.repeat(10)}`)
  await node.untilLogged('"login"')
  while ((await leases()) > 0);
  // The place is given back a moment after the lease.
  const next = await loginSoon(node.address, 'alice@example.test', 'secret')
  expect(node.logged.join('')).not.toContain('connection closed')
  for (const each of [client, next]) each.socket.destroy()
})

test('replies of pipelined commands keep their order around messages of every size', async () => {
  node = await startTestNode({ url: database.url })
  const session = await login()
  session.send('NOOP\r\nRETR 1\r\nTOP 2 1\r\nRETR 2\r\nNOOP\r\nRETR 3\r\nLIST 1\r\nQUIT\r\n')
  session.socket.end()
  const all = (await session.closed).toString('latin1')
  const order = [...all.matchAll(/^(\+OK[^\r]*|one|three|\.)\r?$/gm)].map((m) => m[1])
  expect(order.map((line) => line?.replace(/(?<=[ (])\d+/g, 'n'))).toEqual([
    '+OK',
    '+OK n octets',
    'one',
    '.',
    '+OK top of message follows',
    '.',
    '+OK n octets',
    '.',
    '+OK',
    '+OK n octets',
    'three',
    '.',
    '+OK n n',
    '+OK pop.example.test POP3 server signing off (n messages left)',
  ])
})

test('where passwords may not come in the clear, USER is refused and CAPA is silent about it', async () => {
  node = await startTestNode({ url: database.url, plaintextAuth: 'never' })
  const client = await Pop3Client.connect(node.address)
  await client.line()
  expect((await client.askMulti('CAPA')).raw.toString()).not.toMatch(/^USER/m)
  expect(await client.ask('USER alice@example.test')).toMatch(/^-ERR/)
  expect(await client.ask('PASS secret')).toMatch(/^-ERR/)
  client.socket.destroy()
})

test('what is read ahead is given back when the session ends', async () => {
  node = await startTestNode({ url: database.url })
  const before = node.budget.available
  const session = await login()
  await session.retrieve('RETR 1')
  session.socket.destroy()
  while ((await leases()) > 0);
  expect(node.budget.available).toBe(before)
})

test('greetings show a timestamp only where APOP works, each time another', async () => {
  node = await startTestNode({ url: database.url, isApopOffered: true })
  const greetings = await Promise.all(
    [1, 2, 3].map(async () => {
      const client = await Pop3Client.connect(node.address)
      const line = await client.line()
      client.socket.destroy()
      return line
    }),
  )
  for (const line of greetings) expect(line).toMatch(/ <[^<>@\s]+@pop\.example\.test>$/)
  expect(new Set(greetings).size).toBe(3)
})
