/** A warm poll: USER, PASS, STAT, perhaps UIDL, QUIT of a user whose password is known here. */
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { seed } from '../plans/seed.ts'
import { putMessage } from '../support/mail.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../support/postgres.ts'
import { DatabaseMeter } from './database-meter.ts'
import { expectWithin, say } from './figure.ts'
import { SocketWrites } from './socket-writes.ts'

const USER = 'alice@example.test'
const PASSWORD = 'secret'
const MESSAGES = 10
const POLLS = 20
const WARMING_POLLS = 5

let database: TestDatabase
let meter: DatabaseMeter
let node: TestNode

beforeAll(async () => {
  database = await openTestDatabase()
  // What PostgreSQL plans depends on what the tables hold.
  const client = new pg.Client(database.url)
  await client.connect()
  await seed(client)
  await client.end()
  const { domainId, userId } = await addUser(database.db, USER, { password: PASSWORD })
  for (let i = 0; i < MESSAGES; i++)
    await putMessage(database.db, domainId, [userId], 'A: b\r\n\r\n')
  meter = await DatabaseMeter.open(database.url)
  node = await startTestNode({ url: meter.url })
  for (let i = 0; i < WARMING_POLLS; i++) await poll(true)
})
afterAll(async () => {
  await node.stop()
  await meter.close()
  await database.close()
})

async function poll(withUidl: boolean): Promise<void> {
  const client = await Pop3Client.login(node.address, USER, PASSWORD)
  expect(await client.ask('STAT')).toMatch(/^\+OK 10 /)
  if (withUidl)
    expect((await client.askMulti('UIDL')).raw.toString().match(/\r\n/g)).toHaveLength(MESSAGES)
  expect(await client.ask('QUIT')).toMatch(/^\+OK/)
  await client.closed
}

test.each([
  ['warm poll with UIDL', true],
  ['warm poll with STAT alone', false],
] as const)('%s', async (name, withUidl) => {
  const traffic = await meter.count(async () => {
    for (let i = 0; i < POLLS; i++) await poll(withUidl)
  })
  const { statements, roundTrips, octetsTo, octetsFrom } = traffic
  say(name, statements.slice(0, statements.length / POLLS))
  expectWithin(`${name}: statements`, statements.length / POLLS)
  expectWithin(`${name}: round trips to the database`, roundTrips / POLLS)
  expectWithin(`${name}: octets to the database`, octetsTo / POLLS)
  expectWithin(`${name}: octets from the database`, octetsFrom / POLLS)
})

test('a warm login is one round trip', async () => {
  const client = await Pop3Client.connect(node.address)
  await client.line()
  await client.ask(`USER ${USER}`)
  const { roundTrips, statements } = await meter.count(async () => {
    expect(await client.ask(`PASS ${PASSWORD}`)).toMatch(/^\+OK/)
  })
  say('warm login', statements)
  expectWithin('warm login: round trips to the database', roundTrips)
  await client.ask('QUIT')
  await client.closed
})

// Of five executions each is planned by itself; then a plan is kept, unless PostgreSQL takes planning
// anew to be cheaper. For a login that is five times the work of carrying it out.
test('no statement is planned again and again', async () => {
  for (let i = 0; i < POLLS; i++) await poll(true)
  const text = 'select name, custom_plans::integer from pg_prepared_statements order by name'
  const rows = await node.db.hot({ name: 'guard-plans', text }, [])
  const planned = new Map(rows.map(([name, count]) => [String(name), count?.readInt32BE(0) ?? 0]))
  expect([...planned.keys()]).toContain('login-account')
  const most = Math.max(...planned.values())
  expectWithin('warm poll with UIDL: plans of one statement', most)
})

test('a reply is one write', async () => {
  const writes = new SocketWrites(node.address)
  await poll(true)
  writes.stop()
  expectWithin('warm poll with UIDL: writes to the socket', writes.writes)
})
