/** EXPIRE carried out (RFC 2449 §6.7), and what CAPA may say of all users before login. */
import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { checkMaildrops } from '../../../src/storage/check.ts'
import { commitDeletes, noteLogin, sweepLastLogins } from '../../../src/storage/leases.ts'
import type { Database } from '../../../src/storage/postgres/database.ts'
import { expireMessages } from '../../../src/storage/retention.ts'
import { selectPolicy } from '../../../src/storage/tenants/policies.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import {
  acquire,
  addNode,
  countersOf,
  deliverTo,
  Holder,
  type User,
  uidsOf,
  waitingFor,
} from './fixtures.ts'

let database: TestDatabase
let db: Database
let domainName: string
let ada: User
let bob: User
let nodeId: string

beforeAll(async () => {
  database = await openTestDatabase()
  db = database.db
  nodeId = await addNode(db)
})

afterAll(() => database.close())

beforeEach(async () => {
  domainName = `${randomUUID()}.test`
  ada = await addUser(db, `ada@${domainName}`)
  bob = await addUser(db, `bob@${domainName}`)
  for (const user of [ada, bob]) for (const text of ['1', '22']) await deliverTo(db, user, text)
})

const setDomain = (set: { expire_days?: number | null; login_delay_seconds?: number }) =>
  db.kysely.updateTable('domains').set(set).where('domain_id', '=', ada.domainId).execute()

const setUser = (user: User, set: { expire_days?: number; login_delay_seconds?: number }) =>
  db.kysely
    .updateTable('users')
    .set(set)
    .where('domain_id', '=', user.domainId)
    .where('user_id', '=', user.userId)
    .execute()

/** The database's clock decides, so the test moves the rows. */
const age = (user: User, uid: number, hours: number) =>
  sql`update messages set received_at = now() - make_interval(hours => ${hours})
    where domain_id = ${user.domainId} and user_id = ${user.userId} and uid = ${uid}`.execute(
    db.kysely,
  )

const expire = (limit = 10) => expireMessages(db, ada.domainId, limit)

describe('messages', () => {
  test('go to the trash when they are as old as the domain says, counters right', async () => {
    await setDomain({ expire_days: 30 })
    await age(ada, 1, 30 * 24)
    await age(ada, 2, 30 * 24 - 1)
    await age(bob, 2, 31 * 24)
    expect(await expire()).toBe(2)
    expect(await uidsOf(db, ada)).toEqual([2])
    expect(await uidsOf(db, bob)).toEqual([1])
    expect(await uidsOf(db, ada, 'trash')).toEqual([1])
    expect(await countersOf(db, ada)).toEqual({ messages: 1, octets: 2, nextUid: 3 })
    expect(await checkMaildrops(db, ada.domainId, false)).toEqual([])
    expect(await expire()).toBe(0)
    expect((await acquire(db, `ada@${domainName}`, nodeId)).outcome.kind).toBe('acquired')
  })

  test('stay where nothing expires, and where the user says never', async () => {
    for (const user of [ada, bob]) await age(user, 1, 36_500 * 24)
    expect(await expire()).toBe(0)
    await setDomain({ expire_days: 1 })
    await setUser(ada, { expire_days: 0 })
    expect(await expire()).toBe(1)
    expect(await uidsOf(db, ada)).toEqual([1, 2])
    expect(await uidsOf(db, bob)).toEqual([2])
  })

  test('of a user with a time of its own go by that', async () => {
    await setDomain({ expire_days: 100 })
    await setUser(ada, { expire_days: 2 })
    for (const user of [ada, bob]) await age(user, 1, 48)
    expect(await expire()).toBe(1)
    expect(await uidsOf(db, ada)).toEqual([2])
  })

  test('of an open maildrop wait for its end; a dead node does not count', async () => {
    await setDomain({ expire_days: 1 })
    for (const user of [ada, bob]) await age(user, 1, 25)
    const { lease } = await acquire(db, `ada@${domainName}`, nodeId)
    const dead = await addNode(db)
    await acquire(db, `bob@${domainName}`, dead)
    await sql`update nodes set heartbeat_at = now() - interval '31 s'
      where node_id = ${dead}`.execute(db.kysely)
    expect(await expire(1)).toBe(1) // though what is open comes first
    expect(await uidsOf(db, bob)).toEqual([2])
    expect(await uidsOf(db, ada)).toEqual([1, 2])
    expect(await commitDeletes(db, lease, Int32Array.of(1))).toBe('committed')
    expect(await expire()).toBe(0)
  })

  test('go in batches, and of one domain only', async () => {
    await setDomain({ expire_days: 1 })
    const other = await addUser(db, `ada@${randomUUID()}.test`)
    await deliverTo(db, other, 'x')
    await age(other, 1, 25)
    for (const user of [ada, bob]) for (const uid of [1, 2]) await age(user, uid, 25)
    const counts = [await expire(3), await expire(3), await expire(3)]
    expect(counts).toEqual([3, 1, 0])
    expect(await uidsOf(db, other)).toEqual([1])
  })

  test('two nodes that expire at once move each message once', async () => {
    await setDomain({ expire_days: 1 })
    for (const user of [ada, bob]) for (const uid of [1, 2]) await age(user, uid, 25)
    const [holder, observer] = [await Holder.open(database.url), await Holder.open(database.url)]
    await holder.begin()
    await holder.query('select from maildrops where domain_id = $1 for update', [ada.domainId])
    const runs = [expire(), expire()]
    await waitingFor(observer, await waitingFor(observer, holder.pid))
    await holder.commit()
    expect((await Promise.all(runs)).sort()).toEqual([0, 4])
    await Promise.all([holder.close(), observer.close()])
    expect(await checkMaildrops(db, ada.domainId, false)).toEqual([])
    expect(await uidsOf(db, bob, 'trash')).toEqual([1, 2])
  })
})

test('the policy of all is the largest delay and the shortest expiry, and whether they differ', async () => {
  await sql`update domains set expire_days = null`.execute(db.kysely)
  await sql`update users set expire_days = null`.execute(db.kysely)
  const none = { loginDelaySeconds: 0, expireDays: undefined, isByUser: false }
  expect(await selectPolicy(db)).toEqual(none)
  await sql`update domains set expire_days = 30, login_delay_seconds = 10`.execute(db.kysely)
  const same = { loginDelaySeconds: 10, expireDays: 30, isByUser: false }
  expect(await selectPolicy(db)).toEqual(same)
  await setUser(ada, { expire_days: 7 })
  await setUser(bob, { login_delay_seconds: 60 })
  const differing = { loginDelaySeconds: 60, expireDays: 7, isByUser: true }
  expect(await selectPolicy(db)).toEqual(differing)
  await setUser(ada, { expire_days: 0 })
  expect(await selectPolicy(db)).toEqual({ ...differing, expireDays: 30 })
})

test('the sweep takes logins that no LOGIN-DELAY reaches', async () => {
  for (const user of [ada, bob]) await noteLogin(db, user.domainId, user.userId, 60)
  await sql`update last_logins set logged_in_at = now() - interval '1 day'
    where user_id = ${ada.userId}`.execute(db.kysely)
  await sweepLastLogins(db)
  const rows = await db.kysely.selectFrom('last_logins').select('user_id').execute()
  expect(rows).toEqual([{ user_id: bob.userId }])
})
