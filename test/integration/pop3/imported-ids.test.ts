/** UIDL of a maildrop with more imported unique-ids than one page holds, and what goes wrong in it. */
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

const MESSAGES = 5_000
let database: TestDatabase
let node: TestNode
let user: { domainId: number; userId: number }
/** Of all messages, as UIDL has to tell them. */
let lines: string[]

beforeAll(async () => {
  database = await openTestDatabase()
  user = await addUser(database.db, 'old@example.test', { password: 'secret' })
  await putMessage(database.db, user.domainId, [user.userId], 'A: b\r\n\r\nbody\r\n')
  await sql`
    insert into messages (domain_id, user_id, uid, octets, body_id, unique_id)
    select domain_id, user_id, 3 * g, octets, body_id, case when g % 5 > 0 then 'old\\' || g end
    from messages, generate_series(2, ${MESSAGES}::integer) g
    where domain_id = ${user.domainId} and user_id = ${user.userId}`.execute(database.db.kysely)
  await sql`
    update maildrops set message_count = ${MESSAGES}, octets = ${MESSAGES} * octets,
      next_uid = 3 * ${MESSAGES} + 1, has_unique_ids = true
    where domain_id = ${user.domainId} and user_id = ${user.userId}`.execute(database.db.kysely)
  const { uid_validity: validity } = await database.db.kysely
    .selectFrom('maildrops')
    .select('uid_validity')
    .where('user_id', '=', user.userId)
    .executeTakeFirstOrThrow()
  lines = Array.from({ length: MESSAGES }, (_, index) => {
    const number = index + 1
    const uid = number === 1 ? 1 : 3 * number
    return `${number} ${number === 1 || number % 5 === 0 ? `${validity}.${uid}` : `old\\${number}`}`
  })
})
afterAll(() => database.close())
beforeEach(async () => {
  node = await startTestNode({ url: database.url })
})
afterEach(async () => {
  vi.restoreAllMocks()
  await node.stop()
})

const login = () => Pop3Client.login(node.address, 'old@example.test', 'secret')

/** From now on `before` runs, and may fail, before each page is read. */
function watchPages(before: (page: number) => Promise<void> | void): void {
  let page = 0
  const bulk = node.db.bulk.bind(node.db)
  vi.spyOn(node.db, 'bulk').mockImplementation(async (statement, values) => {
    if (statement.name === 'unique-ids') await before(++page)
    return bulk(statement, values)
  })
}

test('is whole, deleted messages left out, whatever was pipelined around it', async () => {
  const session = await login()
  const deleted = [1, 2, 2_000, 2_001, 4_000, 5_000]
  const before = deleted.map((number) => `DELE ${number}`)
  session.send([...before, 'UIDL', 'UIDL 4', 'UIDL 5', 'RSET', ''].join('\r\n'))
  for (const _ of deleted) expect(await session.line()).toMatch(/^\+OK/)
  expect(await session.line()).toMatch(/^\+OK/)
  const told: string[] = []
  for (let line = await session.line(); line !== '.'; line = await session.line()) told.push(line)
  expect(told).toEqual(lines.filter((_, index) => !deleted.includes(index + 1)))
  expect(await session.line()).toBe(`+OK ${lines[3]}`)
  expect(await session.line()).toBe(`+OK ${lines[4]}`)
  await session.line()
  await session.ask('QUIT')
})

test.each([
  ['the database fails', () => Promise.reject(new Error('no'))],
  [
    'the lease is lost',
    async () => {
      await database.db.kysely.deleteFrom('sessions').where('user_id', '=', user.userId).execute()
      await node.keeper.beat()
    },
  ],
])('when %s in the middle, the connection is cut without an end', async (_, fail) => {
  const session = await login()
  watchPages((page) => (page === 2 ? fail() : undefined))
  session.send('UIDL\r\nNOOP\r\n')
  expect(await session.line()).toMatch(/^\+OK/)
  const rest = (await session.closed).toString('latin1')
  expect(rest).not.toMatch(/^(\.|-ERR.*|\+OK.*)\r$/m)
  expect(lines.join('\r\n').startsWith(rest.slice(0, -2))).toBe(true)
  vi.restoreAllMocks()
  await (await login()).ask('QUIT')
})

test('a peer that leaves in the middle is read for no longer, and its maildrop is free', async () => {
  const session = await login()
  let pages = 0
  watchPages(async (page) => {
    pages = page
    if (page !== 2) return
    session.socket.resetAndDestroy()
    await session.closed
  })
  session.send('UIDL\r\nUIDL\r\n')
  await node.untilLogged('connection closed')
  // It is noticed when something is written: the rest of this listing and the other never are.
  expect(pages).toBeLessThanOrEqual(3)
  vi.restoreAllMocks()
  await (await login()).ask('QUIT')
})
