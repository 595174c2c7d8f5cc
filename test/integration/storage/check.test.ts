import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { checkMaildrops } from '../../../src/storage/check.ts'
import { deliver } from '../../../src/storage/deliveries.ts'
import { commitDeletes } from '../../../src/storage/leases.ts'
import type { Database } from '../../../src/storage/postgres/database.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { acquire, addNode, countersOf, deliverTo, type User, uidsOf } from './fixtures.ts'

let database: TestDatabase
let db: Database
let user: User
let address: string

beforeAll(async () => {
  database = await openTestDatabase()
  db = database.db
})

afterAll(() => database.close())

beforeEach(async () => {
  address = `ada@${randomUUID()}.test`
  user = await addUser(db, address)
  for (const text of ['1', '22', '333']) await deliverTo(db, user, text)
  await addUser(db, `empty@${address.split('@')[1]}`)
})

const check = async (isRepair = false) =>
  (await checkMaildrops(db, user.domainId, isRepair)).map(({ kind, userId, isRepaired }) => {
    expect(userId).toBe(user.userId)
    return `${kind}${isRepaired ? ' repaired' : ''}`
  })

const breakBy = (text: string) =>
  sql.raw(text.replaceAll('$D', String(user.domainId))).execute(db.kysely)

test('a healthy domain has no findings', async () => {
  expect(await checkMaildrops(db, user.domainId, true)).toEqual([])
})

describe('what can be repaired', () => {
  test.each([
    ['counters', 'update maildrops set message_count = 7 where domain_id = $D'],
    ['counters', 'update maildrops set octets = 0 where domain_id = $D'],
    ['counters', 'delete from messages where domain_id = $D and uid = 2'],
    ['next-uid', 'update maildrops set next_uid = 3 where domain_id = $D'],
    ['no-maildrop', 'delete from maildrops where domain_id = $D'],
    [
      'octets',
      'update messages set octets = 50 where domain_id = $D and uid = 2;' +
        'update maildrops set octets = 54 where domain_id = $D',
    ],
    ['unique-ids', `update messages set unique_id = 'old' where domain_id = $D and uid = 2`],
    [
      'unique-ids',
      `update messages m set unique_id = d.uid_validity || '.3' from maildrops d
      where m.domain_id = $D and d.domain_id = $D and m.uid = 2;
      update maildrops set has_unique_ids = true where domain_id = $D`,
    ],
    [
      'body-incomplete',
      `update bodies b set octets = null from messages m
      where b.domain_id = $D and m.body_id = b.body_id and m.uid = 2`,
    ],
  ])('%s, by %s', async (kind, breaking) => {
    await breakBy(breaking)
    expect(await check()).toEqual([kind])
    expect(await check()).toEqual([kind])
    expect(await check(true)).toEqual([`${kind} repaired`])
    expect(await check()).toEqual([])
    const uids = await uidsOf(db, user)
    const { rows } = await sql<{ octets: number }>`select sum(octets) as octets from messages
      where domain_id = ${user.domainId}`.execute(db.kysely)
    const counters = await countersOf(db, user)
    expect(counters).toEqual({
      messages: uids.length,
      octets: Number(rows[0]?.octets),
      nextUid: 4,
    })
    expect(await deliverTo(db, user, 'next')).toBe(4)
  })
})

test('a repair ends the session that has the old numbers', async () => {
  await acquire(db, address, await addNode(db))
  await breakBy(
    'update messages set octets = 50 where domain_id = $D and uid = 2;' +
      'update maildrops set octets = 54 where domain_id = $D',
  )
  await check(true)
  const sessions = await db.kysely
    .selectFrom('sessions')
    .selectAll()
    .where('domain_id', '=', user.domainId)
    .execute()
  expect(sessions).toEqual([])
})

describe('what is lost is reported, repair or not', () => {
  test.each([
    [
      'body-damaged',
      `delete from body_chunks c using messages m
      where c.domain_id = $D and m.body_id = c.body_id and m.uid = 2`,
    ],
    [
      'body-damaged',
      `update body_chunks c set data = 'longer' from messages m
      where c.domain_id = $D and m.body_id = c.body_id and m.uid = 2`,
    ],
    [
      'body-damaged',
      `update body_chunks c set seq = 1 from messages m
      where c.domain_id = $D and m.body_id = c.body_id and m.uid = 2`,
    ],
    [
      'body-damaged',
      `delete from body_chunks c using messages m
      where c.domain_id = $D and m.body_id = c.body_id and m.uid = 2;
      insert into body_chunks (domain_id, body_id, seq, data)
      select $D, m.body_id, n, convert_to(n::text, 'UTF8')
      from messages m, generate_series(0, 1) n where m.domain_id = $D and m.uid = 2`,
    ],
    [
      'body-incomplete',
      `delete from body_chunks c using messages m
      where c.domain_id = $D and m.body_id = c.body_id and m.uid = 2;
      update bodies b set octets = null from messages m
      where b.domain_id = $D and m.body_id = b.body_id and m.uid = 2`,
    ],
  ])('%s, by %s', async (kind, breaking) => {
    await breakBy(breaking)
    expect(await check(true)).toEqual([kind])
    expect(await check()).toEqual([kind])
  })
})

test('a message in the trash whose body is gone is reported', async () => {
  const { lease } = await acquire(db, address, await addNode(db))
  expect(await commitDeletes(db, lease, Int32Array.of(2))).toBe('committed')
  expect(await check()).toEqual([])
  await breakBy(`delete from bodies b using trash t
    where b.domain_id = $D and t.domain_id = $D and t.body_id = b.body_id`)
  expect(await check()).toEqual(['body-missing'])
  expect(await check(true)).toEqual(['body-missing'])
})

test('a shared body is a finding for each of its readers', async () => {
  const bob = await addUser(db, `bob@${address.split('@')[1]}`)
  const bodyId = randomUUID()
  const recipients = [user, bob].map(({ userId }) => ({ userId, prefix: Buffer.from('To: x\r\n') }))
  await deliver(db, {
    domainId: user.domainId,
    bodyId,
    bodyOctets: 2,
    content: Buffer.from('hi'),
    recipients,
  })
  expect(await checkMaildrops(db, user.domainId, false)).toEqual([])
  await db.kysely.deleteFrom('body_chunks').where('body_id', '=', bodyId).execute()
  const findings = await checkMaildrops(db, user.domainId, false)
  expect(findings.map(({ kind, userId }) => [kind, userId])).toEqual([
    ['body-damaged', user.userId],
    ['body-damaged', bob.userId],
  ])
})

test('deliveries meanwhile make no finding', async () => {
  const deliveries = Array.from({ length: 40 }, () => deliverTo(db, user, 'more'))
  const checks = Array.from({ length: 5 }, () => checkMaildrops(db, user.domainId, true))
  expect((await Promise.all(checks)).flat()).toEqual([])
  await Promise.all(deliveries)
})
