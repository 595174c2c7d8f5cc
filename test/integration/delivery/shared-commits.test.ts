/** Deliveries that come at the same time share commits, and nothing else: no failure, no place. */
import { sql } from 'kysely'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { DeliveryQueue } from '../../../src/mail/delivery/delivery-queue.ts'
import { newBodyId } from '../../../src/storage/bodies.ts'
import type { Delivery, DeliveryResult } from '../../../src/storage/deliveries.ts'
import type { Database } from '../../../src/storage/postgres/database.ts'
import type { LineClient } from '../../support/line-client.ts'
import { DELIVERED, openLmtp, startTestLmtp } from '../../support/lmtp.ts'
import { isPooled } from '../../support/pgbouncer.ts'
import {
  addUser,
  openTestConnection,
  openTestDatabase,
  type TestDatabase,
} from '../../support/postgres.ts'
import { TcpProxy } from '../../support/tcp-proxy.ts'
import { countersOf, Holder, type User, uidsOf } from '../storage/fixtures.ts'

let database: TestDatabase
let db: Database
let queue: DeliveryQueue
let users: User[]

beforeEach(async () => {
  database = await openTestDatabase()
  db = database.db
  queue = new DeliveryQueue(db)
  users = []
  for (let number = 0; number < 4; number++)
    users.push(await addUser(db, `u${number}@example.test`))
})

afterEach(() => database.close())

function user(number: number): User {
  const found = users[number]
  if (found === undefined) throw new Error(`there is no user ${number}`)
  return found
}

function message(octets: number, ...to: readonly User[]): Delivery {
  return {
    domainId: to[0]?.domainId ?? 0,
    bodyId: newBodyId(),
    bodyOctets: octets,
    content: Buffer.alloc(octets, 'x'),
    recipients: to.map(({ userId }) => ({ userId, prefix: Buffer.from('P: 1\r\n') })),
  }
}
const PREFIX_OCTETS = 6

/** All at the same time: those of one domain go together. */
function deliverAtOnce(
  deliveries: readonly Delivery[],
  via = queue,
): Promise<PromiseSettledResult<Map<number, DeliveryResult>>[]> {
  return Promise.allSettled(deliveries.map((delivery) => via.deliver(delivery)))
}

function statusOf(
  outcome: PromiseSettledResult<Map<number, DeliveryResult>> | undefined,
  { userId }: User,
): string | undefined {
  if (outcome?.status === 'rejected') return outcome.reason.code
  return outcome?.value.get(userId)?.status
}

async function setQuota({ userId }: User, octets: number): Promise<void> {
  await db.kysely
    .updateTable('users')
    .set({ quota_octets: octets })
    .where('user_id', '=', userId)
    .execute()
}

/** How many transactions brought the messages that there are. */
async function countCommits(): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    select count(distinct xmin::text) as count from messages`.execute(db.kysely)
  return rows[0]?.count ?? 0
}

/** Counters are those of the rows, and uids have neither gaps nor doubles. */
async function expectInOrder(who: User, count: number): Promise<void> {
  const { rows } = await sql<{ octets: number }>`
    select coalesce(sum(octets), 0)::bigint as octets from messages
    where user_id = ${who.userId}`.execute(db.kysely)
  expect(await uidsOf(db, who)).toEqual(Array.from({ length: count }, (_, at) => at + 1))
  const octets = rows[0]?.octets
  expect(await countersOf(db, who)).toEqual({ messages: count, octets, nextUid: count + 1 })
}

test('a hundred at once take one commit; each maildrop has them in order', async () => {
  const deliveries = Array.from({ length: 100 }, (_, at) => message(at + 1, user(at % 4)))
  const outcomes = await deliverAtOnce(deliveries)
  for (const [at, outcome] of outcomes.entries())
    expect(outcome).toMatchObject({
      value: new Map([[user(at % 4).userId, { status: 'delivered', uid: Math.floor(at / 4) + 1 }]]),
    })
  for (const who of users) await expectInOrder(who, 25)
  expect(await countCommits()).toBe(1)
})

test('each domain has statements of its own', async () => {
  const others = [await addUser(db, 'a@other.test'), await addUser(db, 'b@third.test')]
  const to = [...users, ...others, ...users, ...others]
  const outcomes = await deliverAtOnce(to.map((who) => message(1, who)))
  expect(outcomes.map((outcome, at) => statusOf(outcome, to[at] ?? user(0)))).toEqual(
    to.map(() => 'delivered'),
  )
  for (const who of [...users, ...others]) await expectInOrder(who, 2)
  expect(await countCommits()).toBe(3)
})

test('who has no maildrop yet gets one, and keeps nobody back', async () => {
  await queue.deliver(message(1, user(0)))
  const outcomes = await deliverAtOnce([
    message(1, user(0)),
    message(2, user(1), user(0)),
    message(3, user(2)),
  ])
  expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'fulfilled'])
  await expectInOrder(user(0), 3)
  await expectInOrder(user(1), 1)
  await expectInOrder(user(2), 1)
})

test('shared bodies stay shared', async () => {
  await deliverAtOnce([message(1, user(3)), message(2, user(0), user(1)), message(3, user(1))])
  const bodies = await db.kysely.selectFrom('bodies').select('octets').orderBy('octets').execute()
  expect(bodies.map(({ octets }) => octets)).toEqual([1, 2, 3])
})

describe('one that fails leaves the others delivered:', () => {
  test('over quota; what is smaller fits though a larger one before it did not', async () => {
    for (const who of users) await queue.deliver(message(0, who))
    await setQuota(user(1), 2 * PREFIX_OCTETS + 10)
    const outcomes = await deliverAtOnce([
      message(1, user(0)),
      message(11, user(1), user(2)),
      message(10, user(1), user(2)),
      message(1, user(3)),
    ])
    const statuses = outcomes.map((outcome) => statusOf(outcome, user(1)))
    expect(statuses).toEqual([undefined, 'over-quota', 'delivered', undefined])
    expect(statusOf(outcomes[1], user(2))).toBe('delivered')
    expect(statusOf(outcomes[2], user(2))).toBe('delivered')
    await expectInOrder(user(0), 2)
    await expectInOrder(user(1), 2)
    await expectInOrder(user(2), 3)
    await expectInOrder(user(3), 2)
  })

  test('a user who was removed meanwhile', async () => {
    for (const who of users) await queue.deliver(message(0, who))
    await db.kysely.deleteFrom('messages').where('user_id', '=', user(1).userId).execute()
    await db.kysely.deleteFrom('users').where('user_id', '=', user(1).userId).execute()
    const outcomes = await deliverAtOnce([
      message(1, user(0)),
      message(1, user(1), user(2)),
      message(1, user(3)),
    ])
    expect(statusOf(outcomes[1], user(1))).toBe('unknown-user')
    expect(statusOf(outcomes[1], user(2))).toBe('delivered')
    for (const number of [0, 2, 3]) await expectInOrder(user(number), 2)
  })

  test('what the database refuses: each is then tried alone', async () => {
    await sql`create function refuse() returns trigger language plpgsql as
      $$ begin raise exception 'not today'; end $$`.execute(db.kysely)
    await sql
      .raw(
        `create trigger refuse before insert on messages for each row
         when (new.user_id = ${user(1).userId}) execute function refuse()`,
      )
      .execute(db.kysely)
    const outcomes = await deliverAtOnce(
      [0, 0, 1, 2, 0, 3].map((number) => message(1, user(number))),
    )
    expect(outcomes.map(({ status }) => status)).toEqual(
      [0, 0, 1, 2, 0, 3].map((number) => (number === 1 ? 'rejected' : 'fulfilled')),
    )
    await expectInOrder(user(0), 3)
    expect(await uidsOf(db, user(1))).toEqual([])
    await expectInOrder(user(2), 1)
    await expectInOrder(user(3), 1)
  })

  // The 50 ms are the serving role's, and behind a pooler the owner's connections have none.
  test.skipIf(isPooled)('a maildrop that somebody has locked waits alone', async () => {
    for (const who of users) await queue.deliver(message(0, who))
    const holder = await Holder.open(database.url)
    await holder.begin()
    await holder.query('select from maildrops where user_id = $1 for update', [user(1).userId])
    const locked = [message(1, user(1)), message(2, user(1))]
    const [first, second, ...others] = [...locked, ...users.map((who) => message(3, who))].map(
      (delivery) => queue.deliver(delivery),
    )
    // Those of the others do not wait for the lock.
    await Promise.all([others[0], others[2], others[3]])
    await holder.commit()
    await holder.close()
    await Promise.all([first, second, others[1]])
    for (const who of [0, 2, 3]) await expectInOrder(user(who), 2)
    await expectInOrder(user(1), 4)
  })
})

describe('the database goes away in the middle', () => {
  let proxy: TcpProxy
  let away: Database
  let far: DeliveryQueue

  beforeEach(async () => {
    const url = new URL(database.url)
    proxy = await TcpProxy.open(Number(url.port))
    url.port = String(proxy.port)
    url.hostname = '127.0.0.1'
    away = openTestConnection(url.toString())
    far = new DeliveryQueue(away)
    for (const who of users) await far.deliver(message(0, who))
  })

  afterEach(async () => {
    await away.close()
    await proxy.close()
  })

  test('while a group is under way: all of it is in doubt, and nothing tried again', async () => {
    const group = users.map((who) => message(1, who))
    const [bodyId = ''] = group.map((delivery) => delivery.bodyId)
    proxy.onRequest = (octets) => {
      if (octets.includes(bodyId)) proxy.swallowAnswers()
    }
    const outcomes = deliverAtOnce(group, far)
    await expect.poll(bodyIds).toContain(bodyId)
    proxy.heal()
    proxy.cut(false)
    for (const outcome of await outcomes)
      expect(statusOf(outcome, user(0))).toBe('STORAGE_IN_DOUBT')
    await far.deliver(message(1, user(0)))
    await expectInOrder(user(0), 3)
    await expectInOrder(user(1), 2)
  })

  test('while others wait: they have not begun, and go when it is back', async () => {
    const first = message(1, user(0))
    proxy.swallowAnswers()
    const outcomesOfFirst = deliverAtOnce([first], far)
    await expect.poll(bodyIds).toContain(first.bodyId)
    const outcomes = deliverAtOnce(
      users.map((who) => message(1, who)),
      far,
    )
    proxy.heal()
    proxy.cut(false)
    const [outcomeOfFirst] = await outcomesOfFirst
    expect(statusOf(outcomeOfFirst, user(0))).toBe('STORAGE_IN_DOUBT')
    expect((await outcomes).map(({ status }) => status)).toEqual(users.map(() => 'fulfilled'))
    await expectInOrder(user(0), 3)
    await expectInOrder(user(1), 2)
  })

  async function bodyIds(): Promise<string[]> {
    const rows = await db.kysely.selectFrom('messages').select('body_id').execute()
    const empty = await db.kysely
      .selectFrom('bodies')
      .select('body_id')
      .where('octets', '=', 0)
      .execute()
    const primed = new Set(empty.map(({ body_id }) => body_id))
    return rows.map(({ body_id }) => body_id).filter((bodyId) => !primed.has(bodyId))
  }
})

test('over LMTP: as many rows as there were 250s, whatever else happens', async () => {
  const lmtp = await startTestLmtp(db)
  await setQuota(user(2), 900)
  const counts = new Map<number, number>()
  const send = async (connection: number): Promise<void> => {
    const client = await openLmtp(lmtp)
    for (let at = 0; at < 8; at++) {
      if (connection === 0 && at === 4) await removeUser(user(3))
      const number = (connection + at) % 4
      await client.ask('MAIL FROM:<>')
      const isRefused = !(await client.ask(`RCPT TO:<u${number}@example.test>`)).startsWith('250 ')
      const reply = isRefused ? await client.ask('RSET') : await sendContent(client)
      if (number < 2) expect([isRefused, reply]).toEqual([false, expect.stringMatching(DELIVERED)])
      if (!isRefused && reply.startsWith('250 ')) counts.set(number, (counts.get(number) ?? 0) + 1)
    }
    client.destroy()
  }
  await Promise.all(Array.from({ length: 16 }, (_, connection) => send(connection)))
  await lmtp.stop()
  for (const number of [0, 1, 2]) await expectInOrder(user(number), counts.get(number) ?? 0)
  expect(counts.get(0)).toBe(32)
  expect(counts.get(1)).toBe(32)
  expect(counts.get(2)).toBeLessThan(8)
  expect(await uidsOf(db, user(3))).toEqual([])

  async function sendContent(client: LineClient): Promise<string> {
    await client.ask('DATA')
    return await client.ask('x\r\n.')
  }

  async function removeUser({ userId }: User): Promise<void> {
    await db.kysely.deleteFrom('users').where('user_id', '=', userId).execute()
  }
})
