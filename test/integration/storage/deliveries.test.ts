import { createHash, randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { insertBody, insertStretch } from '../../../src/storage/bodies.ts'
import { type Delivery, deliver } from '../../../src/storage/deliveries.ts'
import { selectMessages, selectSnapshot, selectUniqueIds } from '../../../src/storage/messages.ts'
import type { Database } from '../../../src/storage/postgres/database.ts'
import { selectRecipients } from '../../../src/storage/tenants/recipients.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { countersOf, deliverTo, type User, uidsOf } from './fixtures.ts'

let database: TestDatabase
let db: Database

beforeAll(async () => {
  database = await openTestDatabase()
  db = database.db
})

afterAll(() => database.close())

const STRETCH = 259_072
const prefix = (text: string): Buffer => Buffer.from(text)

function whole(text: string, users: readonly User[], prefixes: readonly string[] = []): Delivery {
  const content = Buffer.from(text)
  return {
    domainId: users[0]?.domainId ?? 0,
    bodyId: randomUUID(),
    bodyOctets: content.length,
    content,
    recipients: users.map(({ userId }, at) => ({ userId, prefix: prefix(prefixes[at] ?? '') })),
  }
}

async function countBodies({ domainId }: User): Promise<number> {
  const { count } = await db.kysely
    .selectFrom('bodies')
    .select((query) => query.fn.countAll<number>().as('count'))
    .where('domain_id', '=', domainId)
    .executeTakeFirstOrThrow()
  return count
}

describe('a message of one stretch', () => {
  test('shares its body; each recipient has an own prefix and uid', async () => {
    const ada = await addUser(db, 'ada@one.test')
    const bob = await addUser(db, 'bob@one.test')
    await deliverTo(db, ada, 'earlier\r\n')
    const results = await deliver(db, whole('hello\r\n', [bob, ada], ['To: b\r\n', 'To: adas\r\n']))
    expect(results.get(ada.userId)).toEqual({ status: 'delivered', uid: 2 })
    expect(results.get(bob.userId)).toEqual({ status: 'delivered', uid: 1 })
    expect(await countBodies(ada)).toBe(2)
    expect(await countersOf(db, ada)).toEqual({ messages: 2, octets: 9 + 10 + 7, nextUid: 3 })
    expect(await countersOf(db, bob)).toEqual({ messages: 1, octets: 7 + 7, nextUid: 2 })
    const [stored] = await selectMessages(db, ada.domainId, ada.userId, [2], 1_000)
    expect(stored).toMatchObject({ uid: 2, octets: 17, bodyOctets: 7 })
    expect(stored?.prefix.toString()).toBe('To: adas\r\n')
    expect(stored?.content?.join()).toBe('hello\r\n')
  })

  test('reaches nobody, and leaves no body, if there is no such user', async () => {
    const { domainId } = await addUser(db, 'ada@none.test')
    const delivery = whole('x', [{ domainId, userId: 999_999 }])
    expect((await deliver(db, delivery)).get(999_999)).toEqual({
      status: 'unknown-user',
      uid: undefined,
    })
    expect(await countBodies({ domainId, userId: 0 })).toBe(0)
  })

  test('goes to the known recipients beside an unknown one and a new one', async () => {
    const old = await addUser(db, 'old@mixed.test')
    await deliverTo(db, old, 'first')
    const fresh = await addUser(db, 'fresh@mixed.test')
    const ghost = { ...old, userId: 888_888 }
    const results = await deliver(db, whole('second', [ghost, fresh, old]))
    expect([...results].sort(([a], [b]) => a - b).map(([, result]) => result)).toEqual([
      { status: 'delivered', uid: 2 },
      { status: 'delivered', uid: 1 },
      { status: 'unknown-user', uid: undefined },
    ])
    expect(await countBodies(old)).toBe(2)
    const [stored] = await selectMessages(db, fresh.domainId, fresh.userId, [1], 1_000)
    expect(stored?.content?.join()).toBe('second')
  })

  test('goes to all or nobody, though some had no maildrop yet', async () => {
    const old = await addUser(db, 'old@atomic.test')
    await deliverTo(db, old, 'first')
    const fresh = await addUser(db, 'fresh@atomic.test')
    // Whatever fails for the fresh one must not leave the message with the old one only.
    await sql`create function refuse() returns trigger language plpgsql as
      $$ begin raise exception 'no maildrops today'; end $$`.execute(db.kysely)
    await sql`create trigger refuse before insert on maildrops for each row
      execute function refuse()`.execute(db.kysely)
    await expect(deliver(db, whole('x', [old, fresh]))).rejects.toThrow('no maildrops today')
    await sql`drop trigger refuse on maildrops`.execute(db.kysely)
    expect(await uidsOf(db, old)).toEqual([1])
  })

  test('of another domain does not find a user by id', async () => {
    const ada = await addUser(db, 'ada@left.test')
    const other = await addUser(db, 'eve@right.test')
    const results = await deliver(db, whole('x', [{ ...ada, domainId: other.domainId }]))
    expect(results.get(ada.userId)?.status).toBe('unknown-user')
  })

  test('may be empty', async () => {
    const ada = await addUser(db, 'ada@empty.test')
    await deliverTo(db, ada, '')
    const [stored] = await selectMessages(db, ada.domainId, ada.userId, [1], 1_000)
    expect(stored).toMatchObject({ octets: 0, bodyOctets: 0 })
    expect(stored?.content).toEqual([])
  })
})

describe('quota', () => {
  test('counts prefix and body; who is full keeps nothing back from the others', async () => {
    const full = await addUser(db, 'full@quota.test', { quotaOctets: 20 })
    const free = await addUser(db, 'free@quota.test')
    const deliverBoth = (text: string) =>
      deliver(db, whole(text, [full, free], ['12345', '12345'])).then((results) => [
        results.get(full.userId)?.status,
        results.get(free.userId)?.status,
      ])
    expect(await deliverBoth('1234567890123456')).toEqual(['over-quota', 'delivered'])
    expect(await deliverBoth('123456789012345')).toEqual(['delivered', 'delivered'])
    expect(await deliverBoth('')).toEqual(['over-quota', 'delivered'])
    expect(await countersOf(db, full)).toMatchObject({ messages: 1, octets: 20 })
    expect(await selectRecipients(db, 'quota.test', 'FULL')).toMatchObject([{ isOverQuota: true }])
    expect(await selectRecipients(db, 'quota.test', 'free')).toMatchObject([{ isOverQuota: false }])
  })

  test('alone over quota: no body stays', async () => {
    const full = await addUser(db, 'full@tight.test', { quotaOctets: 3 })
    const results = await deliver(db, whole('1234', [full]))
    expect(results.get(full.userId)?.status).toBe('over-quota')
    expect(await countBodies(full)).toBe(0)
  })
})

describe('a message of several stretches', () => {
  test('becomes visible, and its body complete, with the delivery', async () => {
    const ada = await addUser(db, 'ada@stretches.test')
    const bodyId = randomUUID()
    await insertBody(db, ada.domainId, bodyId)
    await insertStretch(db, ada.domainId, bodyId, 0, Buffer.alloc(STRETCH, 'a'))
    await insertStretch(db, ada.domainId, bodyId, 1, Buffer.from('end'))
    const delivery = { ...whole('', [ada]), bodyId, bodyOctets: STRETCH + 3, content: undefined }
    const results = await deliver(db, delivery)
    expect(results.get(ada.userId)).toEqual({ status: 'delivered', uid: 1 })
    const [stored] = await selectMessages(db, ada.domainId, ada.userId, [1], 1_000_000)
    expect(stored).toMatchObject({ bodyId, octets: STRETCH + 3, bodyOctets: STRETCH + 3 })
    expect(stored?.content).toBeUndefined()
  })

  test('whose body is not there is a conflict, and nothing is delivered', async () => {
    const ada = await addUser(db, 'ada@swept.test')
    const delivery = { ...whole('', [ada]), bodyOctets: 5, content: undefined }
    await expect(deliver(db, delivery)).rejects.toMatchObject({ code: 'STORAGE_CONFLICT' })
    expect(await uidsOf(db, ada)).toEqual([])
  })
})

describe('import', () => {
  const imported = (text: string, copy = 1, uniqueId?: string) => ({
    digest: createHash('sha256').update(text).digest(),
    copy,
    receivedAt: new Date('2001-02-03T04:05:06.789Z'),
    uniqueId,
  })
  const bring = async (user: User, text: string, copy = 1, uniqueId?: string) => {
    const delivery = { ...whole(text, [user]), imported: imported(text, copy, uniqueId) }
    return (await deliver(db, delivery)).get(user.userId)?.status
  }

  test('brings each copy in once, for ever', async () => {
    const ada = await addUser(db, 'ada@import.test')
    expect(await bring(ada, 'mail')).toBe('delivered')
    expect(await bring(ada, 'mail')).toBe('already-imported')
    expect(await bring(ada, 'mail', 2)).toBe('delivered')
    await db.kysely.deleteFrom('messages').where('domain_id', '=', ada.domainId).execute()
    expect(await bring(ada, 'mail')).toBe('already-imported')
    expect(await countBodies(ada)).toBe(2)
  })

  test('of a full maildrop is over-quota, not in the ledger, and comes later', async () => {
    const full = await addUser(db, 'full@import.test', { quotaOctets: 5 })
    expect(await bring(full, '12345')).toBe('delivered')
    expect(await bring(full, 'more')).toBe('over-quota')
    expect(await bring(full, '12345')).toBe('already-imported')
    await db.kysely
      .updateTable('users')
      .set({ quota_octets: 100 })
      .where('domain_id', '=', full.domainId)
      .where('user_id', '=', full.userId)
      .execute()
    expect(await bring(full, 'more')).toBe('delivered')
  })

  test('keeps date and unique-id, unless that could meet another', async () => {
    const ada = await addUser(db, 'ada@uidl.test')
    await deliverTo(db, ada, 'makes the maildrop')
    const { uid_validity } = await db.kysely
      .selectFrom('maildrops')
      .select('uid_validity')
      .where('domain_id', '=', ada.domainId)
      .executeTakeFirstOrThrow()
    const given = [
      'UID-1',
      'UID-1',
      `${uid_validity}.77`,
      'with space',
      'with/slash',
      'x'.repeat(71),
      '',
      'y'.repeat(70),
    ]
    for (const [at, uniqueId] of given.entries())
      expect(await bring(ada, `mail ${at}`, 1, uniqueId)).toBe('delivered')
    const read = (first: number, last: number) =>
      selectUniqueIds(db, ada.domainId, ada.userId, first, last)
    const kept = { uids: Int32Array.of(2, 9), uniqueIds: ['UID-1', 'y'.repeat(70)] }
    expect(await read(1, 100)).toEqual(kept)
    expect(await read(2, 9)).toEqual(kept)
    expect(await read(2, 8)).toEqual({ uids: Int32Array.of(2), uniqueIds: ['UID-1'] })
    expect(await read(3, 8)).toEqual({ uids: Int32Array.of(), uniqueIds: [] })
    const row = await db.kysely
      .selectFrom('messages')
      .select('received_at')
      .where('domain_id', '=', ada.domainId)
      .where('uid', '=', 2)
      .executeTakeFirstOrThrow()
    expect(row.received_at.toISOString()).toBe('2001-02-03T04:05:06.789Z')
  })

  test('of a large message completes its body', async () => {
    const ada = await addUser(db, 'ada@large.test')
    const bodyId = randomUUID()
    await insertBody(db, ada.domainId, bodyId)
    await insertStretch(db, ada.domainId, bodyId, 0, Buffer.from('large'))
    const delivery = { ...whole('', [ada]), bodyId, bodyOctets: 5, content: undefined }
    const results = await deliver(db, { ...delivery, imported: imported('large') })
    expect(results.get(ada.userId)?.status).toBe('delivered')
    const [stored] = await selectMessages(db, ada.domainId, ada.userId, [1], 1_000)
    expect(stored?.content?.join()).toBe('large')
  })
})

describe('the snapshot', () => {
  test('is packed, in order, and bounded by the next uid of the login', async () => {
    const ada = await addUser(db, 'ada@snapshot.test')
    for (const text of ['1', '22', '333', '4444']) await deliverTo(db, ada, text)
    const read = (nextUid: number, messageCount = nextUid - 1) =>
      selectSnapshot(db, ada.domainId, ada.userId, { messageCount, nextUid })
    const three = { uids: Int32Array.of(1, 2, 3), octets: Int32Array.of(1, 2, 3) }
    expect(await read(4)).toEqual(three)
    expect((await read(1)).uids).toHaveLength(0)
    // Whatever the counters say, the rows count.
    for (const messageCount of [0, 2, 9]) expect(await read(4, messageCount)).toEqual(three)
  })

  test('comes in pages, which nobody can tell', async () => {
    const ada = await addUser(db, 'ada@pages.test')
    await deliverTo(db, ada, 'makes the maildrop and a body')
    const count = 3 * 16_384
    await sql`
      insert into messages (domain_id, user_id, uid, octets, body_id)
      select domain_id, user_id, 2 * g, 29 + g, body_id from messages, generate_series(1, ${count}::integer) g
      where domain_id = ${ada.domainId} and user_id = ${ada.userId} and uid = 1`.execute(db.kysely)
    const nextUid = 2 * count
    const expected = {
      uids: Int32Array.from({ length: count }, (_, index) => (index === 0 ? 1 : 2 * index)),
      octets: Int32Array.from({ length: count }, (_, index) => 29 + index),
    }
    for (const messageCount of [count, 1]) {
      const read = await selectSnapshot(db, ada.domainId, ada.userId, { messageCount, nextUid })
      expect(Buffer.from(read.uids.buffer).equals(Buffer.from(expected.uids.buffer))).toBe(true)
      expect(Buffer.from(read.octets.buffer).equals(Buffer.from(expected.octets.buffer))).toBe(true)
    }
  })

  test('messages come in order of uid; what is gone is missing', async () => {
    const ada = await addUser(db, 'ada@list.test')
    for (const text of ['1', '22', '333']) await deliverTo(db, ada, text)
    const found = await selectMessages(db, ada.domainId, ada.userId, [3, 9, 1], 2)
    expect(found.map(({ uid, content }) => [uid, content?.join()])).toEqual([
      [1, '1'],
      [3, undefined],
    ])
  })
})
