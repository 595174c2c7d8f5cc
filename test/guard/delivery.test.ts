/** A delivery of 10 KB over LMTP, to a recipient who has had mail before. */
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Database } from '../../src/storage/postgres/database.ts'
import type { LineClient } from '../support/line-client.ts'
import { openLmtp, sendMail, startTestLmtp, type TestLmtp } from '../support/lmtp.ts'
import {
  addUser,
  openTestConnection,
  openTestDatabase,
  type TestDatabase,
} from '../support/postgres.ts'
import { DatabaseMeter } from './database-meter.ts'
import { expectWithin, say } from './figure.ts'
import { SocketWrites } from './socket-writes.ts'

const RECIPIENT = 'alice@example.test'
const DELIVERIES = 20
const AT_ONCE = 16
const MESSAGE = Buffer.from(`Subject: 10 KB\r\n\r\n${`${'x'.repeat(78)}\r\n`.repeat(128)}`)

let database: TestDatabase
let meter: DatabaseMeter
let db: Database
let lmtp: TestLmtp
let client: LineClient

beforeAll(async () => {
  database = await openTestDatabase()
  await addUser(database.db, RECIPIENT)
  meter = await DatabaseMeter.open(database.url)
  db = openTestConnection(meter.url)
  lmtp = await startTestLmtp(db)
  client = await openLmtp(lmtp)
  for (let i = 0; i < 5; i++) await deliver()
})
afterAll(async () => {
  client.destroy()
  await lmtp.stop()
  await db.close()
  await meter.close()
  await database.close()
})

async function deliver(sender = client): Promise<void> {
  const [reply] = await sendMail(sender, 'bob@example.test', [RECIPIENT], MESSAGE)
  expect(reply).toMatch(/^250 /)
}

test('one at a time', async () => {
  const { statements, roundTrips, octetsTo, octetsFrom } = await meter.count(async () => {
    for (let i = 0; i < DELIVERIES; i++) await deliver()
  })
  say('a delivery', statements.slice(0, statements.length / DELIVERIES))
  expectWithin('LMTP delivery: statements', statements.length / DELIVERIES)
  expectWithin('LMTP delivery: round trips to the database', roundTrips / DELIVERIES)
  const beyond = octetsTo / DELIVERIES - MESSAGE.length
  expectWithin('LMTP delivery: octets to the database beyond the message', beyond)
  expectWithin('LMTP delivery: octets from the database', octetsFrom / DELIVERIES)
})

test('commands together: their replies leave together', async () => {
  const writes = new SocketWrites(lmtp.address)
  const sender = await openLmtp(lmtp)
  const before = writes.writes
  for (let i = 0; i < DELIVERIES; i++) {
    sender.send(`MAIL FROM:<bob@example.test>\r\nRCPT TO:<${RECIPIENT}>\r\nDATA\r\n`)
    expect((await sender.replies(3)).map((reply) => reply.slice(0, 3))).toEqual([
      '250',
      '250',
      '354',
    ])
    sender.send(Buffer.concat([MESSAGE, Buffer.from('.\r\n')]))
    expect(await sender.reply()).toMatch(/^250 /)
  }
  const each = (writes.writes - before) / DELIVERIES
  writes.stop()
  sender.destroy()
  expectWithin('LMTP delivery, commands together: writes to the socket', each)
})

test('at once: they share statements, and so commits', async () => {
  const senders = await Promise.all(Array.from({ length: AT_ONCE }, () => openLmtp(lmtp)))
  const { statements } = await meter.count(() =>
    Promise.all(senders.map((sender) => deliver(sender))),
  )
  for (const sender of senders) sender.destroy()
  const delivering = statements.filter((name) => name === 'deliver')
  expect(delivering.length).toBeGreaterThan(0)
  expectWithin('16 LMTP deliveries at once: delivering statements', delivering.length)
})
