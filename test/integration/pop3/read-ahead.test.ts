/** Reading ahead: few statements for who moves through the maildrop, none wasted on who does not. */
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { longMessage, putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

const MESSAGES = 100
let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await openTestDatabase()
  node = await startTestNode({ url: database.url })
  const user = await addUser(database.db, 'alice@example.test', { password: 'secret' })
  for (let i = 1; i <= MESSAGES; i++)
    await putMessage(database.db, user.domainId, [user.userId], `N: ${i}\r\n\r\nbody\r\n`)
})
afterAll(async () => {
  await node.stop()
  await database.close()
})

afterEach(() => vi.restoreAllMocks())

/** Fetches these message numbers; returns how many statements read messages, and how many rows. */
async function fetchAll(numbers: readonly number[]): Promise<{ statements: number; rows: number }> {
  const bulk = vi.spyOn(node.db, 'bulk')
  const session = await Pop3Client.login(node.address, 'alice@example.test', 'secret')
  for (const number of numbers)
    expect((await session.retrieve(`RETR ${number}`)).toString()).toContain(`N: ${number}\r\n`)
  await session.ask('QUIT')
  const reads = bulk.mock.calls.flatMap(([statement], index) =>
    statement.name === 'messages' ? [bulk.mock.results[index]?.value as Promise<unknown[]>] : [],
  )
  bulk.mockRestore()
  const rows = (await Promise.all(reads)).reduce((sum, result) => sum + result.length, 0)
  return { statements: reads.length, rows }
}

const upwards = Array.from({ length: MESSAGES }, (_, i) => i + 1)

test('upwards and downwards, one statement does for many messages', async () => {
  for (const numbers of [upwards, upwards.toReversed()]) {
    const { statements, rows } = await fetchAll(numbers)
    expect(statements).toBeLessThanOrEqual(MESSAGES / 20)
    expect(rows).toBe(MESSAGES)
  }
})

test('the same from 60 messages on; the first of them costs no more than eight', async () => {
  const sixty = await fetchAll(upwards.slice(0, 60))
  expect(sixty.statements).toBeLessThanOrEqual(3)
  expect((await fetchAll([1])).rows).toBe(8)
})

function newGate(): { passed: Promise<void>; open: () => void } {
  let open = (): void => {}
  const passed = new Promise<void>((resolve) => {
    open = resolve
  })
  return { passed, open: () => open() }
}

/** Statements that read messages wait for `gates`, one by one, and fail with theirs. */
function holdReads(gates: readonly (Promise<void> | undefined)[]): { begun: () => number } {
  let begun = 0
  const bulk = node.db.bulk.bind(node.db)
  vi.spyOn(node.db, 'bulk').mockImplementation(async (statement, values) => {
    if (statement.name === 'messages') await gates[begun++]
    return bulk(statement, values)
  })
  return { begun: () => begun }
}

const login = () => Pop3Client.login(node.address, 'alice@example.test', 'secret')

test('the next messages are fetched while those at hand are taken', async () => {
  const gate = newGate()
  const { begun } = holdReads([undefined, gate.passed])
  const session = await login()
  // What is at hand needs no database: these would wait for ever.
  for (let number = 1; number <= 8; number++) await session.retrieve(`RETR ${number}`)
  expect(begun()).toBe(2)
  session.send('RETR 9\r\nRETR 10\r\n')
  gate.open()
  expect(await session.line()).toMatch(/^\+OK/)
  while ((await session.line()) !== '.');
  expect(await session.line()).toMatch(/^\+OK/)
  while ((await session.line()) !== '.');
  expect(begun()).toBe(2)
  await session.ask('QUIT')
})

test('what could not be fetched ahead is fetched by who wants it, who is told of a failure', async () => {
  const failure = Promise.reject(new Error('no'))
  failure.catch(() => {})
  const { begun } = holdReads([undefined, failure, failure])
  const session = await login()
  for (let number = 1; number <= 8; number++) await session.retrieve(`RETR ${number}`)
  expect(begun()).toBe(2)
  expect(await session.ask('RETR 9')).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect((await session.retrieve('RETR 9')).toString()).toContain('N: 9\r\n')
  await session.ask('QUIT')
})

test.each(['ends', 'turns'])('what is on its way when the client %s is given back', async (how) => {
  const before = node.budget.available
  const gate = newGate()
  const { begun } = holdReads([undefined, gate.passed])
  const session = await login()
  for (let number = 1; number <= 5; number++) await session.retrieve(`RETR ${number}`)
  expect(begun()).toBe(2)
  if (how === 'ends') await session.ask('QUIT')
  else await session.retrieve('RETR 90')
  expect(node.budget.available).toBeLessThan(before)
  gate.open()
  while (node.budget.available !== before) await new Promise((resolve) => setImmediate(resolve))
  if (how === 'turns') await session.ask('QUIT')
})

test.each([
  ['RETR 1', 4],
  ['TOP 1 0', 1],
])(
  '%s of a large message reads %i stretches, and gives back what it read ahead',
  async (command, count) => {
    const before = node.budget.available
    const address = `large${count}@example.test`
    const user = await addUser(database.db, address, { password: 'secret' })
    await putMessage(database.db, user.domainId, [user.userId], longMessage(1_000_000))
    const session = await Pop3Client.login(node.address, address, 'secret')
    const bulk = vi.spyOn(node.db, 'bulk')
    const spent = vi.spyOn(node.budget, 'add')
    await session.retrieve(command)
    expect(bulk.mock.calls.filter(([{ name }]) => name === 'stretch')).toHaveLength(count)
    const ahead = spent.mock.calls.map(([octets]) => octets).filter((octets) => octets > 0)
    expect(ahead).toHaveLength(count - 1)
    expect(Math.max(0, ...ahead)).toBeLessThan(262_144)
    expect(node.budget.available).toBe(before)
    await session.ask('QUIT')
  },
)

test('a stretch on its way to a peer that goes away is given back', async () => {
  const before = node.budget.available
  const user = await addUser(database.db, 'gone@example.test', { password: 'secret' })
  await putMessage(database.db, user.domainId, [user.userId], longMessage(9_000_000))
  const session = await Pop3Client.login(node.address, 'gone@example.test', 'secret')
  session.send('RETR 1\r\n')
  expect(await session.line()).toMatch(/^\+OK/)
  session.socket.pause()
  while (node.budget.available === before) await new Promise((resolve) => setImmediate(resolve))
  session.socket.destroy()
  while (node.budget.available !== before) await new Promise((resolve) => setImmediate(resolve))
})

test('without room to read ahead a large message comes all the same', async () => {
  const user = await addUser(database.db, 'full@example.test', { password: 'secret' })
  const content = longMessage(1_000_000)
  await putMessage(database.db, user.domainId, [user.userId], content)
  const session = await Pop3Client.login(node.address, 'full@example.test', 'secret')
  vi.spyOn(node.budget, 'available', 'get').mockReturnValue(0)
  const spent = vi.spyOn(node.budget, 'add')
  expect((await session.retrieve('RETR 1')).equals(content)).toBe(true)
  expect(spent.mock.calls.filter(([octets]) => octets > 0)).toEqual([])
  await session.ask('QUIT')
})

test('who fetches one again and again, or here and there, reads nothing ahead', async () => {
  const again = await fetchAll(Array.from({ length: 20 }, () => 50))
  expect(again.rows).toBeLessThan(30)
  const scattered = await fetchAll(upwards.filter((number) => number % 7 === 0))
  expect(scattered.rows).toBeLessThan(30)
})

test('a message that is damaged is told so, and the session goes on', async () => {
  const user = await addUser(database.db, 'damaged@example.test', { password: 'secret' })
  for (let i = 1; i <= 5; i++)
    await putMessage(database.db, user.domainId, [user.userId], `N: ${i}\r\n\r\nbody\r\n`)
  await sql`delete from body_chunks where body_id =
    (select body_id from messages where user_id = ${user.userId} and uid = 4)`.execute(
    database.db.kysely,
  )
  const session = await Pop3Client.login(node.address, 'damaged@example.test', 'secret')
  for (const number of [1, 2, 3])
    expect((await session.retrieve(`RETR ${number}`)).toString()).toContain(`N: ${number}\r\n`)
  expect(await session.ask('RETR 4')).toMatch(/^-ERR \[SYS\/PERM\]/)
  expect((await session.retrieve('RETR 5')).toString()).toContain('N: 5\r\n')
  await session.ask('QUIT')
})
