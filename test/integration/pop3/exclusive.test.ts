/** RFC 1939 §4: the maildrop is exclusive, and free again whichever way a session ends. */
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { longMessage, putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase
let one: TestNode
let two: TestNode
let user: { domainId: number; userId: number }
let name = ''
let count = 0

beforeAll(async () => {
  database = await openTestDatabase()
  one = await startTestNode({ url: database.url })
  two = await startTestNode({ url: database.url })
})

afterAll(async () => {
  await Promise.all([one.stop(), two.stop()])
  await database.close()
})

beforeEach(async () => {
  name = `user${++count}@example.test`
  user = await addUser(database.db, name, { password: 'secret' })
  await putMessage(database.db, user.domainId, [user.userId], 'A: b\r\n\r\none\r\n')
  await putMessage(database.db, user.domainId, [user.userId], 'A: b\r\n\r\ntwo\r\n')
})

afterEach(() => vi.restoreAllMocks())

const login = (node: TestNode) => Pop3Client.login(node.address, name, 'secret')

/** Resolves when no lease is left on the user's maildrop: the row is the lease. */
async function untilFree(): Promise<void> {
  for (const deadline = Date.now() + 10_000; Date.now() < deadline; ) {
    const rows = await database.db.kysely
      .selectFrom('sessions')
      .select('session_id')
      .where('domain_id', '=', user.domainId)
      .where('user_id', '=', user.userId)
      .execute()
    if (rows.length === 0) return
  }
  throw new Error('the lease is still held')
}

test('a second login is told [IN-USE], on the same node and on another', async () => {
  const first = await login(one)
  await expect(login(one)).rejects.toThrow('-ERR [IN-USE]')
  await expect(login(two)).rejects.toThrow('-ERR [IN-USE]')
  expect(await first.ask('STAT')).toMatch(/^\+OK 2 /)
  expect(await first.ask('QUIT')).toMatch(/^\+OK/)
  const second = await login(two)
  await second.ask('QUIT')
})

test('of many logins at once exactly one wins', async () => {
  const logins = await Promise.allSettled(
    Array.from({ length: 10 }, (_, i) => login(i % 2 === 0 ? one : two)),
  )
  const won = logins.filter((result) => result.status === 'fulfilled')
  expect(won).toHaveLength(1)
  for (const result of logins)
    if (result.status === 'rejected') expect(String(result.reason)).toContain('[IN-USE]')
  await won[0]?.value.ask('QUIT')
})

test.each(['destroy', 'end', 'resetAndDestroy'] as const)(
  'a client that goes away by %s frees the maildrop and deletes nothing',
  async (how) => {
    const first = await login(one)
    expect(await first.ask('DELE 1')).toMatch(/^\+OK/)
    first.socket[how]()
    await untilFree()
    const second = await login(two)
    expect(await second.ask('STAT')).toMatch(/^\+OK 2 /)
    await second.ask('QUIT')
  },
)

test('a client that goes away in the middle of its login leaves no lease', async () => {
  const client = await Pop3Client.connect(one.address)
  await client.line()
  client.send(`USER ${name}\r\nPASS secret\r\n`)
  client.socket.destroy()
  await client.closed
  // Whether the login was still carried out is a race; that nothing stays behind is not.
  const second = await loginWhenFree(two)
  await second.ask('QUIT')
  await untilFree()
})

async function loginWhenFree(node: TestNode): Promise<Pop3Client> {
  for (const deadline = Date.now() + 10_000; Date.now() < deadline; ) {
    const client = await login(node).catch((error: unknown) => String(error))
    if (client instanceof Pop3Client) return client
    expect(client).toContain('[IN-USE]')
  }
  throw new Error('the maildrop stays in use')
}

test('a kicked session is told at the next heartbeat, and its QUIT deletes nothing', async () => {
  const kicked = await login(one)
  const told = await login(one).catch((error: unknown) => String(error))
  expect(told).toContain('[IN-USE]')
  await kicked.ask('DELE 1')
  await database.db.kysely
    .deleteFrom('sessions')
    .where('domain_id', '=', user.domainId)
    .where('user_id', '=', user.userId)
    .execute()
  expect(await kicked.ask('QUIT')).toMatch(/^-ERR \[SYS\/TEMP\]/)
  const second = await login(two)
  expect(await second.ask('STAT')).toMatch(/^\+OK 2 /)
  await database.db.kysely
    .deleteFrom('sessions')
    .where('domain_id', '=', user.domainId)
    .where('user_id', '=', user.userId)
    .execute()
  await two.keeper.beat()
  expect(await second.line()).toMatch(/^-ERR \[SYS\/TEMP\]/)
  await second.closed
})

test('a session that is kicked in the middle of a RETR is cut at the next heartbeat', async () => {
  await putMessage(database.db, user.domainId, [user.userId], longMessage(20_000_000))
  const session = await login(one)
  session.send('RETR 3\r\n')
  expect(await session.line()).toMatch(/^\+OK 200/)
  session.socket.pause()
  await database.db.kysely
    .deleteFrom('sessions')
    .where('domain_id', '=', user.domainId)
    .where('user_id', '=', user.userId)
    .execute()
  await one.keeper.beat()
  session.socket.resume()
  const rest = (await session.closed).toString('latin1')
  expect(rest.length).toBeLessThan(20_000_000)
  expect(rest).not.toMatch(/\r\n\.\r\n|\r\n-ERR/)
  await (await login(two)).ask('QUIT')
})

test.each([
  ['suspended user', { table: 'users', set: { suspended: true } }],
  ['changed password', { table: 'users', set: { password_hash: null } }],
] as const)('a %s loses the session at the next heartbeat', async (_, { table, set }) => {
  const session = await login(one)
  await database.db.kysely
    .updateTable(table)
    .set(set)
    .where('domain_id', '=', user.domainId)
    .where('user_id', '=', user.userId)
    .execute()
  await one.keeper.beat()
  expect(await session.line()).toMatch(/^-ERR \[SYS\/TEMP\]/)
  await session.closed
  await untilFree()
})

test('a heartbeat leaves healthy sessions and logins in flight alone', async () => {
  const session = await login(one)
  const other = `other${count}@example.test`
  await addUser(database.db, other, { password: 'secret' })
  const [inFlight] = await Promise.all([
    Pop3Client.login(one.address, other, 'secret'),
    one.keeper.beat(),
    one.keeper.beat(),
  ])
  await one.keeper.beat()
  expect(await session.ask('STAT')).toMatch(/^\+OK 2 /)
  expect(await inFlight.ask('STAT')).toBe('+OK 0 0')
  await Promise.all([session.ask('QUIT'), inFlight.ask('QUIT')])
})

test('mail that arrives during a session is not seen by it, and is there afterwards', async () => {
  const session = await login(one)
  expect(await session.ask('STAT')).toMatch(/^\+OK 2 /)
  await putMessage(database.db, user.domainId, [user.userId], 'A: b\r\n\r\nthree\r\n')
  expect(await session.ask('STAT')).toMatch(/^\+OK 2 /)
  expect((await session.askMulti('LIST')).raw.toString().split('\r\n')).toHaveLength(3)
  await session.ask('DELE 1')
  expect(await session.ask('QUIT')).toMatch(/^\+OK/)
  const next = await login(two)
  expect((await next.askMulti('UIDL')).raw.toString()).toMatch(/^1 \d+\.2\r\n2 \d+\.3\r\n$/)
  await next.ask('QUIT')
})

test('the maildrop of a dead node is taken over, and the dead one deletes nothing', async () => {
  const lost = await startTestNode({ url: database.url })
  const session = await login(lost)
  await session.ask('DELE 1')
  await database.db.kysely
    .updateTable('nodes')
    .set({ heartbeat_at: new Date(Date.now() - 31_000) })
    .where('node_id', '=', lost.keeper.nodeId)
    .execute()
  await expect(login(two)).rejects.toThrow('[IN-USE]')
  await two.keeper.beat()
  const second = await login(two)
  expect(await session.ask('QUIT')).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect(await second.ask('STAT')).toMatch(/^\+OK 2 /)
  await second.ask('QUIT')
  const before = lost.keeper.nodeId
  await lost.keeper.beat()
  expect(lost.keeper.nodeId).not.toBe(before)
  await lost.stop()
})

/** As after SIGSTOP and SIGCONT: the process slept, no timer has run, only the clock knows. */
function sleepFor(ms: number): void {
  const now = performance.now.bind(performance)
  vi.spyOn(performance, 'now').mockImplementation(() => now() + ms)
}

test.each(['STAT', 'LIST', 'RETR 1', 'DELE 2', 'QUIT'])(
  'a node that was asleep too long says nothing more on its leases: %s',
  async (command) => {
    const session = await login(one)
    await session.ask('DELE 1')
    sleepFor(26_000)
    expect(await session.ask(command)).toMatch(/^-ERR \[SYS\/TEMP\]/)
    expect((await session.closed).toString()).toBe('')
    await expect(Pop3Client.login(one.address, name, 'secret')).rejects.toThrow('[SYS/TEMP]')
    vi.restoreAllMocks()
    await untilFree()
    const next = await login(two)
    expect(await next.ask('STAT')).toMatch(/^\+OK 2 /)
    await next.ask('QUIT')
  },
)
