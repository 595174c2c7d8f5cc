/**
 * The room of a domain: counted by whatever delivers or deletes, exact whoever comes at one time,
 * and of no concern to domains that have no quota.
 */
import { createHash, randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { checkMaildrops } from '../../../src/storage/check.ts'
import { DELIVER, type DeliveryStatus, deliver } from '../../../src/storage/deliveries.ts'
import { commitDeletes } from '../../../src/storage/leases.ts'
import type { Database } from '../../../src/storage/postgres/database.ts'
import { sqlStateOf } from '../../../src/storage/postgres/sqlstate.ts'
import { selectRecipients } from '../../../src/storage/tenants/recipients.ts'
import { openLmtp, sendMail, startTestLmtp, type TestLmtp } from '../../support/lmtp.ts'
import {
  addUser,
  openTestConnection,
  openTestDatabase,
  type TestDatabase,
} from '../../support/postgres.ts'
import {
  acquire,
  addNode,
  deliverTo,
  Holder,
  openPatient,
  type User,
  uidsOf,
  waitingFor,
} from './fixtures.ts'

let database: TestDatabase
let db: Database
let nodeId: string
/** Four nodes. */
let nodes: Database[]

beforeAll(async () => {
  database = await openTestDatabase()
  db = database.db
  nodeId = await addNode(db)
  nodes = Array.from({ length: 4 }, () => openPatient(database.url))
})

afterAll(async () => {
  for (const node of nodes) await node.close()
  await database.close()
})

/** Users u0, u1, … of a domain with this quota; null: no limit. */
async function makeDomain(
  count: number,
  octets: number | null,
  messages: number | null,
): Promise<{ domain: string; users: User[] }> {
  const domain = `${randomUUID()}.test`
  const users: User[] = []
  for (let i = 0; i < count; i++) users.push(await addUser(db, `u${i}@${domain}`))
  await setQuota(domain, octets, messages)
  return { domain, users }
}

const setQuota = (domain: string, octets: number | null, messages: number | null) =>
  sql`select set_domain_quota(${domain}, ${octets}::bigint, ${messages}::bigint)`.execute(db.kysely)

/** As domain_quotas counts, which must be what the maildrops add up to. */
async function taken({ domainId }: User): Promise<{ octets: number; messages: number }> {
  const { rows } = await sql<{ octets: number; messages: number; held: string }>`
    select q.octets, q.message_count as messages,
      (select format('%s %s', sum(octets), sum(message_count)) from maildrops m
        where m.domain_id = q.domain_id) as held
    from domain_quotas q where domain_id = ${domainId}`.execute(db.kysely)
  const [row] = rows
  if (row === undefined) throw new Error('the domain has no quota')
  const [octets, messages] = [Number(row.octets), Number(row.messages)]
  expect(`${octets} ${messages}`).toBe(row.held.trim() === '' ? '0 0' : row.held)
  return { octets, messages }
}

async function statusOf(node: Database, user: User, text: string): Promise<DeliveryStatus> {
  const content = Buffer.from(text)
  const results = await deliver(node, {
    domainId: user.domainId,
    bodyId: randomUUID(),
    bodyOctets: content.length,
    content,
    recipients: [{ userId: user.userId, prefix: Buffer.alloc(0) }],
  })
  return results.get(user.userId)?.status ?? 'unknown-user'
}

describe('16 deliveries at once around the limit', () => {
  test.each([
    ['to 16 maildrops, by messages', 16, null, 10],
    ['to 16 maildrops, by octets', 16, 10 * 100 + 99, null],
    ['to one maildrop', 1, 10 * 100, 10],
    ['to maildrops that are new', 16, 10 * 100, null],
  ])('%s', async (name, userCount, octets, messages) => {
    const { users } = await makeDomain(userCount, octets, messages)
    if (!name.includes('new'))
      for (const user of users)
        await sql`insert into maildrops (domain_id, user_id)
          values (${user.domainId}, ${user.userId})`.execute(db.kysely)
    const statuses = await Promise.all(
      Array.from({ length: 16 }, (_, i) =>
        statusOf(nodes[i % 4] as Database, users[i % userCount] as User, 'x'.repeat(100)),
      ),
    )
    expect(statuses.filter((status) => status === 'delivered')).toHaveLength(10)
    expect(statuses.filter((status) => status === 'over-quota')).toHaveLength(6)
    expect(await taken(users[0] as User)).toEqual({ octets: 1_000, messages: 10 })
  })

  test('over LMTP to two nodes, with shared commits: never passed, again and again', async () => {
    const { domain, users } = await makeDomain(16, null, 10)
    const servers = await Promise.all(nodes.slice(0, 2).map((node) => startTestLmtp(node)))
    const clients = await Promise.all(
      Array.from({ length: 16 }, (_, i) => openLmtp(servers[i % 2] as TestLmtp)),
    )
    for (const limit of [10, 20, 27]) {
      await setQuota(domain, null, limit)
      const replies = await Promise.all(
        clients.map((client, i) => sendMail(client, '', [`u${i}@${domain}`], Buffer.from('x\n'))),
      )
      const good = replies.filter(([reply]) => reply?.startsWith('250 ')).length
      expect(good).toBeLessThanOrEqual(10)
      expect((await taken(users[0] as User)).messages).toBe(limit)
    }
    for (const client of clients) client.destroy()
    for (const server of servers) await server.stop()
  })

  test('QUITs and deliveries at once: no deadlock, and the count is right', async () => {
    const { domain, users } = await makeDomain(8, 1_000_000, 1_000)
    for (const user of users) for (let i = 0; i < 4; i++) await deliverTo(db, user, 'x'.repeat(50))
    const work = users.flatMap((user, i) => [
      ...[0, 1, 2].map((j) => () => statusOf(nodes[j] as Database, user, 'y'.repeat(10 + i))),
      async () => {
        const { lease } = await acquire(nodes[3] as Database, `u${i}@${domain}`, nodeId)
        await commitDeletes(nodes[i % 4] as Database, lease, Int32Array.of(1, 2, 3))
      },
    ])
    await Promise.all(work.map((each) => each()))
    const { messages } = await taken(users[0] as User)
    expect(messages).toBe(8 * (4 - 3 + 3))
  })
})

describe('what a delivery is told', () => {
  test('the first of a statement have the room that is left; who is full takes none of it', async () => {
    const { users } = await makeDomain(4, null, 2)
    const [first, full, second, third] = users as [User, User, User, User]
    await sql`update users set quota_octets = 0 where user_id = ${full.userId}`.execute(db.kysely)
    const content = Buffer.from('hello')
    const results = await deliver(db, {
      domainId: first.domainId,
      bodyId: randomUUID(),
      bodyOctets: content.length,
      content,
      recipients: [first, full, second, third].map(({ userId }) => ({
        userId,
        prefix: Buffer.alloc(0),
      })),
    })
    expect([first, full, second, third].map((user) => results.get(user.userId)?.status)).toEqual([
      'delivered',
      'over-quota',
      'delivered',
      'over-quota',
    ])
    expect(await taken(first)).toEqual({ octets: 10, messages: 2 })
  })

  test('an import counts too, and what it finds there already does not', async () => {
    const { users } = await makeDomain(1, null, 1)
    const [user] = users as [User]
    const imported = {
      digest: createHash('sha256').update('one').digest(),
      copy: 1,
      receivedAt: undefined,
      uniqueId: undefined,
    }
    await deliverTo(db, user, 'one', { imported })
    expect(await taken(user)).toEqual({ octets: 3, messages: 1 })
    await expect(deliverTo(db, user, 'one', { imported })).rejects.toThrow('already-imported')
    await expect(
      deliverTo(db, user, 'two', { imported: { ...imported, copy: 2 } }),
    ).rejects.toThrow('over-quota')
    expect(await taken(user)).toEqual({ octets: 3, messages: 1 })
  })

  test('at RCPT: full is full for all of its users, and for nobody else', async () => {
    const { domain, users } = await makeDomain(2, 5, null)
    await addUser(db, `a@other-${domain}`)
    expect(await selectRecipients(db, domain, 'u1')).toMatchObject([{ isOverQuota: false }])
    await deliverTo(db, users[0] as User, 'hello')
    expect(await selectRecipients(db, domain, 'u1')).toMatchObject([{ isOverQuota: true }])
    expect(await selectRecipients(db, `other-${domain}`, 'a')).toMatchObject([
      { isOverQuota: false },
    ])
    const { rows } = await sql<{ is_over_quota: boolean }>`
      select is_over_quota from find_recipients(${`u1@${domain}`})`.execute(db.kysely)
    expect(rows).toEqual([{ is_over_quota: true }])
  })
})

describe('room is given back', () => {
  const fill = async (): Promise<{ domain: string; users: User[] }> => {
    const made = await makeDomain(2, null, 4)
    for (const user of made.users) for (const text of ['1', '22']) await deliverTo(db, user, text)
    expect(await taken(made.users[0] as User)).toEqual({ octets: 6, messages: 4 })
    return made
  }

  test('by QUIT, once; a fenced QUIT gives nothing', async () => {
    const { domain, users } = await fill()
    const { lease } = await acquire(db, `u0@${domain}`, nodeId)
    expect(await commitDeletes(db, lease, Int32Array.of(2))).toBe('committed')
    expect(await taken(users[0] as User)).toEqual({ octets: 4, messages: 3 })
    expect(await commitDeletes(db, lease, Int32Array.of(1))).toBe('fenced')
    expect(await taken(users[0] as User)).toEqual({ octets: 4, messages: 3 })
    expect(await uidsOf(db, users[0] as User)).toEqual([1])
  })

  test('by delete_messages and by expiry', async () => {
    const { domain, users } = await fill()
    await sql`select delete_messages(${`u0@${domain}`}, array[1])`.execute(db.kysely)
    expect(await taken(users[0] as User)).toEqual({ octets: 5, messages: 3 })
    const { domainId } = users[0] as User
    await sql`update domains set expire_days = 1 where domain_id = ${domainId}`.execute(db.kysely)
    await sql`update messages set received_at = now() - interval '2 days'
      where domain_id = ${domainId} and uid = 2`.execute(db.kysely)
    await sql`select expire_messages(${domainId}, 100)`.execute(db.kysely)
    expect(await taken(users[0] as User)).toEqual({ octets: 1, messages: 1 })
  })

  test('by remove_user and remove_domain', async () => {
    const { domain, users } = await fill()
    await sql`select remove_user(${`u0@${domain}`})`.execute(db.kysely)
    expect(await taken(users[1] as User)).toEqual({ octets: 3, messages: 2 })
    await sql`select remove_domain(${domain})`.execute(db.kysely)
    await expect(taken(users[1] as User)).rejects.toThrow('no quota')
  })
})

describe('set_domain_quota', () => {
  test('counts what is there; null twice ends it; set again it counts anew', async () => {
    const { domain, users } = await makeDomain(1, null, null)
    const [user] = users as [User]
    await deliverTo(db, user, 'before')
    await setQuota(domain, 100, null)
    expect(await taken(user)).toEqual({ octets: 6, messages: 1 })
    await setQuota(domain, null, null)
    await deliverTo(db, user, 'between')
    await setQuota(domain, null, 2)
    expect(await taken(user)).toEqual({ octets: 13, messages: 2 })
    expect(await statusOf(db, user, 'x')).toBe('over-quota')
  })

  test('misses no delivery that is under way, nor one that comes meanwhile', async () => {
    const { domain, users } = await makeDomain(2, null, null)
    const [user, other] = users as [User, User]
    await deliverTo(db, user, 'a')
    await deliverTo(db, other, 'b')
    const observer = await Holder.open(database.url)
    const underWay = await Holder.open(database.url)
    const setter = await Holder.open(database.url)
    await underWay.begin()
    await underWay.run(DELIVER, [
      user.domainId,
      `{${user.userId}}`,
      '{""}',
      `{${randomUUID()}}`,
      '{5}',
      ['12345'].map((text) => Buffer.from(text)),
    ])
    const set = setter.query('select set_domain_quota($1, null, 4)', [domain])
    await waitingFor(observer, underWay.pid)
    const late = statusOf(nodes[0] as Database, other, 'late')
    await waitingFor(observer, setter.pid)
    await underWay.commit()
    await set
    expect(await late).toBe('delivered')
    expect(await taken(user)).toEqual({ octets: 1 + 1 + 5 + 4, messages: 4 })
    expect(await statusOf(db, user, 'x')).toBe('over-quota')
    for (const holder of [observer, underWay, setter]) await holder.close()
  })

  test('gives up after two seconds, so that deliveries wait no longer', async () => {
    const { domain, users } = await makeDomain(1, null, null)
    const held = await Holder.open(database.url)
    await held.begin()
    await held.query('select from domain_quotas for key share')
    const refusal = await setQuota(domain, 1, null).catch((error: unknown) => error)
    expect(sqlStateOf(refusal)).toBe('55P03')
    expect(await statusOf(db, users[0] as User, 'x')).toBe('delivered')
    await held.close()
  })
})

test('who has no quota waits for nobody: neither in the same domain nor for another', async () => {
  const { users: limited } = await makeDomain(1, 1_000, null)
  const { users } = await makeDomain(2, null, null)
  const [user, other] = users as [User, User]
  for (const each of users) await deliverTo(db, each, 'first')
  const busy = await Holder.open(database.url)
  await busy.begin()
  await busy.query('select from domain_quotas where domain_id = $1 for update', [
    limited[0]?.domainId,
  ])
  await busy.query('select from maildrops where domain_id = $1 and user_id = $2 for update', [
    other.domainId,
    other.userId,
  ])
  // hot: a lock that is waited for longer than 50 ms would be an error.
  const hot = openTestConnection(database.url)
  expect(await statusOf(hot, user, 'second')).toBe('delivered')
  await hot.close()
  await busy.close()
})

test('check finds a count that is wrong, and sets it right', async () => {
  const { users } = await makeDomain(1, 1_000, null)
  const [user] = users as [User]
  await deliverTo(db, user, 'hello')
  await sql`update domain_quotas set octets = 7 where domain_id = ${user.domainId}`.execute(
    db.kysely,
  )
  const finding = {
    kind: 'domain-quota',
    domainId: user.domainId,
    detail: 'the domain is counted as 1 messages with 7 octets; its maildrops have 1 with 5',
  }
  expect(await checkMaildrops(db, user.domainId, false)).toEqual([
    { ...finding, isRepaired: false },
  ])
  expect(await checkMaildrops(db, user.domainId, true)).toEqual([{ ...finding, isRepaired: true }])
  expect(await checkMaildrops(db, user.domainId, false)).toEqual([])
  expect(await taken(user)).toEqual({ octets: 5, messages: 1 })
})

test('usage: held and undoable apart', async () => {
  const { domain, users } = await makeDomain(2, 1_000, 50)
  for (const text of ['1', '22', '333']) await deliverTo(db, users[0] as User, text)
  await deliverTo(db, users[1] as User, '4444')
  await sql`select delete_messages(${`u0@${domain}`}, array[1, 3])`.execute(db.kysely)
  await sql`update users set quota_octets = 99, quota_messages = 9
    where user_id = ${users[0]?.userId}`.execute(db.kysely)
  const ofUser = await sql`select address, held_messages, held_octets, undoable_messages,
      undoable_octets, quota_messages, quota_octets
    from user_usage where domain = ${domain} order by address`.execute(db.kysely)
  expect(ofUser.rows.map((row) => Object.values(Object(row)).map(String))).toEqual([
    [`u0@${domain}`, '1', '2', '2', '4', '9', '99'],
    [`u1@${domain}`, '1', '4', '0', '0', 'null', 'null'],
  ])
  const ofDomain = await sql`select held_messages, held_octets, undoable_messages, undoable_octets,
      quota_messages, quota_octets
    from domain_usage where domain = ${domain}`.execute(db.kysely)
  expect(ofDomain.rows.map((row) => Object.values(Object(row)).map(Number))).toEqual([
    [2, 6, 2, 4, 50, 1_000],
  ])
})
