/**
 * The races that the design names, each on connections of its own. A holder's lock stops one side at
 * the decisive point; PostgreSQL is asked until it says that the other side waits.
 */
import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { insertBody, insertStretch } from '../../../src/storage/bodies.ts'
import {
  DELIVER,
  DELIVER_CHUNKED,
  deliver,
  type ImportedMessage,
} from '../../../src/storage/deliveries.ts'
import { commitDeletes, resolveCommit } from '../../../src/storage/leases.ts'
import { selectUniqueIds } from '../../../src/storage/messages.ts'
import type { Database } from '../../../src/storage/postgres/database.ts'
import { sqlStateOf } from '../../../src/storage/postgres/sqlstate.ts'
import {
  DELETE_BODY,
  PURGE_TRASH,
  purgeTrash,
  sweepBodies,
} from '../../../src/storage/retention.ts'
import { isPooled } from '../../support/pgbouncer.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import {
  acquire,
  addNode,
  countersOf,
  deliverTo,
  Holder,
  openPatient,
  type User,
  uidsOf,
  waitingFor,
} from './fixtures.ts'

let database: TestDatabase
let one: Database
let other: Database
let holder: Holder
let observer: Holder
let nodeId: string
let address: string
let user: User

beforeAll(async () => {
  database = await openTestDatabase()
  one = openPatient(database.url)
  other = openPatient(database.url)
  observer = await Holder.open(database.url)
  nodeId = await addNode(one)
})

afterAll(async () => {
  await Promise.all([one.close(), other.close(), observer.close()])
  await database.close()
})

beforeEach(async () => {
  holder = await Holder.open(database.url)
  address = `ada@${randomUUID()}.test`
  user = await addUser(one, address)
})

afterEach(() => holder.close())

const LOCK_MESSAGE =
  'select from messages where domain_id = $1 and user_id = $2 and uid = $3 for update'
const LOCK_MAILDROP = 'select from maildrops where domain_id = $1 and user_id = $2 for update'

const deliverMany = async (count: number): Promise<void> => {
  for (let number = 0; number < count; number++) await deliverTo(one, user, 'x')
}

describe('a lease that waits for a running QUIT', () => {
  test('reads the counters after it: 2, not 5', async () => {
    await deliverMany(5)
    const { lease } = await acquire(one, address, nodeId)
    await holder.begin()
    await holder.query(LOCK_MESSAGE, [user.domainId, user.userId, 5])
    const quit = commitDeletes(one, lease, Int32Array.of(1, 2, 5))
    const quitPid = await waitingFor(observer, holder.pid)
    const login = acquire(other, address, nodeId)
    await waitingFor(observer, quitPid)
    await holder.commit()
    expect(await quit).toBe('committed')
    expect((await login).outcome).toMatchObject({
      kind: 'acquired',
      counters: { messageCount: 2, octets: 2, nextUid: 6 },
    })
  })

  test.skipIf(isPooled)('is in use, soon, where nobody may wait', async () => {
    await deliverMany(1)
    const { lease } = await acquire(one, address, nodeId)
    await holder.begin()
    await holder.query(LOCK_MESSAGE, [user.domainId, user.userId, 1])
    const quit = commitDeletes(one, lease, Int32Array.of(1))
    await waitingFor(observer, holder.pid)
    expect((await acquire(database.db, address, nodeId)).outcome.kind).toBe('in-use')
    await holder.commit()
    expect(await quit).toBe('committed')
  })
})

describe('two logins at once', () => {
  const takeLease = async (): Promise<void> => {
    await holder.begin()
    await holder.query(
      `insert into sessions (domain_id, user_id, session_id, node_id, client, since)
       values ($1, $2, $3, $4, '192.0.2.9', now())`,
      [user.domainId, user.userId, randomUUID(), nodeId],
    )
  }

  test('the second waits for the first, and is told that it came too late', async () => {
    await takeLease()
    const login = acquire(other, address, nodeId)
    await waitingFor(observer, holder.pid)
    await holder.commit()
    expect((await login).outcome).toEqual({ kind: 'in-use' })
  })

  test('or gets the maildrop, if the first came to nothing', async () => {
    await takeLease()
    const login = acquire(other, address, nodeId)
    await waitingFor(observer, holder.pid)
    await holder.query('rollback')
    expect((await login).outcome.kind).toBe('acquired')
  })

  test('to the lease of a dead node: one of them takes it over', async () => {
    const deadNodeId = await addNode(one)
    await acquire(one, address, deadNodeId)
    const logins = [one, other, database.db].map((db) => acquire(db, address, nodeId, [deadNodeId]))
    const kinds = (await Promise.all(logins)).map(({ outcome }) => outcome.kind)
    expect(kinds.sort()).toEqual(['acquired', 'in-use', 'in-use'])
  })
})

describe('a QUIT whose answer was lost', () => {
  const MARKED = Int32Array.of(1, 3)

  async function startQuit(): Promise<{
    quit: Promise<unknown>
    quitPid: number
    resolve: () => Promise<string>
  }> {
    await deliverMany(3)
    const { lease } = await acquire(one, address, nodeId)
    await holder.begin()
    await holder.query(LOCK_MESSAGE, [user.domainId, user.userId, 3])
    const quit = commitDeletes(one, lease, MARKED).catch((error) => error.code)
    const quitPid = await waitingFor(observer, holder.pid)
    return { quit, quitPid, resolve: () => resolveCommit(other, lease) }
  }

  test('is waited for while it runs, and found committed', async () => {
    const { quit, quitPid, resolve } = await startQuit()
    const resolved = resolve()
    await waitingFor(observer, quitPid)
    await holder.commit()
    expect(await resolved).toBe('committed')
    expect(await quit).toBe('committed')
    expect(await uidsOf(one, user)).toEqual([2])
  })

  test('is waited for while it runs, and found rolled back', async () => {
    const { quit, quitPid, resolve } = await startQuit()
    const resolved = resolve()
    await waitingFor(observer, quitPid)
    await observer.query('select pg_terminate_backend($1)', [quitPid])
    expect(await quit).toBe('STORAGE_IN_DOUBT')
    expect(await resolved).toBe('nothing-deleted')
    await holder.commit()
    expect(await uidsOf(one, user)).toEqual([1, 2, 3])
    expect(await countersOf(one, user)).toMatchObject({ messages: 3 })
  })

  test('is found committed by a later look, when the lease has a new owner', async () => {
    const { quit, resolve } = await startQuit()
    await holder.commit()
    expect(await quit).toBe('committed')
    expect((await acquire(other, address, nodeId)).outcome.kind).toBe('acquired')
    expect(await resolve()).toBe('committed')
  })
})

describe('a QUIT and a delivery at once', () => {
  test('both count', async () => {
    await deliverMany(3)
    const { lease } = await acquire(one, address, nodeId)
    await holder.begin()
    await holder.query(LOCK_MAILDROP, [user.domainId, user.userId])
    const delivery = deliverTo(other, user, '333')
    const deliveryPid = await waitingFor(observer, holder.pid)
    const quit = commitDeletes(one, lease, Int32Array.of(1, 2))
    await waitingFor(observer, deliveryPid)
    await holder.commit()
    expect(await delivery).toBe(4)
    expect(await quit).toBe('committed')
    expect(await uidsOf(one, user)).toEqual([3, 4])
    expect(await countersOf(one, user)).toEqual({ messages: 2, octets: 4, nextUid: 5 })
  })

  test.skipIf(isPooled)(
    'a QUIT that a lock keeps from the pipeline goes through the pool',
    async () => {
      await deliverMany(2)
      const { lease } = await acquire(database.db, address, nodeId)
      await holder.begin()
      await holder.query(LOCK_MAILDROP, [user.domainId, user.userId])
      const quit = commitDeletes(database.db, lease, Int32Array.of(1))
      const hotPid = await waitingFor(observer, holder.pid)
      // Refused on the pipeline after 50 ms, it waits again, from another connection.
      await waitingFor(observer, holder.pid, hotPid)
      await holder.commit()
      expect(await quit).toBe('committed')
      expect(await uidsOf(one, user)).toEqual([2])
    },
  )
})

describe('two deliveries to one maildrop at once', () => {
  const deliverOne = (db: Database, text: string, imported?: ImportedMessage) =>
    deliver(db, {
      domainId: user.domainId,
      bodyId: randomUUID(),
      bodyOctets: text.length,
      content: Buffer.from(text),
      recipients: [{ userId: user.userId, prefix: Buffer.alloc(0) }],
      ...(imported && { imported }),
    }).then((results) => results.get(user.userId))

  /** Both have begun, and so look at the maildrop of before, when the first may go on. */
  async function race<T>(first: () => Promise<T>, second: () => Promise<T>): Promise<[T, T]> {
    await holder.begin()
    await holder.query(LOCK_MAILDROP, [user.domainId, user.userId])
    const one = first()
    const pid = await waitingFor(observer, holder.pid)
    const other = second()
    await waitingFor(observer, [holder.pid, pid], pid)
    await holder.commit()
    return [await one, await other]
  }

  beforeEach(() => deliverMany(1))

  test('have each a uid of their own, and both count', async () => {
    const [first, second] = await race(
      () => deliverOne(one, '22'),
      () => deliverOne(other, '333'),
    )
    expect([first?.uid, second?.uid]).toEqual([2, 3])
    expect(await countersOf(one, user)).toEqual({ messages: 3, octets: 6, nextUid: 4 })
  })

  test('together over quota: one fits', async () => {
    await one.kysely
      .updateTable('users')
      .set({ quota_octets: 10 })
      .where('domain_id', '=', user.domainId)
      .execute()
    const [first, second] = await race(
      () => deliverOne(one, '12345'),
      () => deliverOne(other, '12345'),
    )
    expect([first?.status, second?.status]).toEqual(['delivered', 'over-quota'])
    expect(await countersOf(one, user)).toMatchObject({ octets: 6 })
  })

  test('by import: a copy comes in once, a unique-id goes to one message', async () => {
    const imported = (digest: string): ImportedMessage => ({
      digest: Buffer.from(digest),
      copy: 1,
      receivedAt: undefined,
      uniqueId: 'same',
    })
    const copies = await race(
      () => deliverOne(one, 'x', imported('a')),
      () => deliverOne(other, 'x', imported('a')),
    )
    expect(copies.map((result) => result?.status)).toEqual(['delivered', 'already-imported'])
    const others = await race(
      () => deliverOne(one, 'y', { ...imported('b'), uniqueId: 'new' }),
      () => deliverOne(other, 'z', { ...imported('c'), uniqueId: 'new' }),
    )
    expect(others.map((result) => result?.status)).toEqual(['delivered', 'delivered'])
    const kept = await selectUniqueIds(one, user.domainId, user.userId, 1, 4)
    expect(kept).toEqual({ uids: Int32Array.of(2, 3), uniqueIds: ['same', 'new'] })
  })
})

describe('a sweep and a delivery', () => {
  let bodyId: string

  beforeEach(async () => {
    await deliverMany(1)
    bodyId = randomUUID()
    await insertBody(one, user.domainId, bodyId)
    await insertStretch(one, user.domainId, bodyId, 0, Buffer.from('slow'))
    await one.kysely
      .updateTable('bodies')
      .set({ created_at: new Date(Date.now() - 25 * 3_600_000) })
      .where('body_id', '=', bodyId)
      .execute()
  })

  const deliverSlow = () =>
    deliver(one, {
      domainId: user.domainId,
      bodyId,
      bodyOctets: 4,
      content: undefined,
      recipients: [{ userId: user.userId, prefix: Buffer.alloc(0) }],
    })

  const existsBody = async (): Promise<boolean> => {
    const rows = await one.kysely
      .selectFrom('bodies')
      .select('body_id')
      .where('body_id', '=', bodyId)
      .execute()
    return rows.length === 1
  }

  test('sweep first: the delivery is a conflict, and nothing stays of it', async () => {
    await holder.begin()
    expect(await holder.run(DELETE_BODY, [user.domainId, bodyId])).toBe(1)
    const delivery = deliverSlow().catch((error) => error.code)
    await waitingFor(observer, holder.pid)
    await holder.commit()
    expect(await delivery).toBe('STORAGE_CONFLICT')
    expect(await uidsOf(one, user)).toEqual([1])
    expect(await countersOf(one, user)).toMatchObject({ messages: 1, nextUid: 2 })
  })

  test('delivery first: the sweep passes the body over', async () => {
    await holder.begin()
    const values = [user.domainId, `{${user.userId}}`, '{""}', `{${bodyId}}`, '{4}', '{null}']
    expect(await holder.run(DELIVER_CHUNKED, values)).toBe(1)
    const sweep = sweepBodies(other, user.domainId, 100)
    await waitingFor(observer, holder.pid)
    await holder.commit()
    expect(await sweep).toBe(0)
    expect(await existsBody()).toBe(true)
    expect(await uidsOf(one, user)).toEqual([1, 2])
  })
})

describe('two purges of one body', () => {
  let bodyId: string
  let bob: User

  beforeEach(async () => {
    bob = await addUser(one, `bob@${address.split('@')[1]}`)
    bodyId = randomUUID()
    const recipients = [user, bob].map(({ userId }) => ({ userId, prefix: Buffer.alloc(0) }))
    await deliverTo(one, user, 'shared', { bodyId, recipients })
    for (const who of [address, `bob@${address.split('@')[1]}`]) {
      const { lease } = await acquire(one, who, nodeId)
      await commitDeletes(one, lease, Int32Array.of(1))
    }
    const longAgo = new Date(Date.now() - 30 * 86_400_000)
    await one.kysely
      .updateTable('trash')
      .set({ deleted_at: longAgo })
      .where('domain_id', '=', user.domainId)
      .execute()
    await one.kysely
      .updateTable('bodies')
      .set({ created_at: longAgo })
      .where('domain_id', '=', user.domainId)
      .execute()
  })

  const countBodies = async (): Promise<number> =>
    (
      await one.kysely
        .selectFrom('bodies')
        .select('body_id')
        .where('domain_id', '=', user.domainId)
        .execute()
    ).length

  test('that each remove one of its two names leave no body behind', async () => {
    await holder.begin()
    expect(await holder.run(PURGE_TRASH, [user.domainId, 1])).toBe(1)
    // The other purge passes over the row that the first holds, and cannot know what becomes of it.
    expect(await purgeTrash(other, user.domainId, 100)).toBe(1)
    expect(await countBodies()).toBe(1)
    await holder.commit()
    expect(await holder.run(DELETE_BODY, [user.domainId, bodyId])).toBe(1)
    expect(await countBodies()).toBe(0)
  })

  test('what a purge that died has left is the sweep’s', async () => {
    await holder.query(PURGE_TRASH.text, [user.domainId, 100])
    expect(await countBodies()).toBe(1)
    expect(await sweepBodies(one, user.domainId, 100)).toBe(1)
    expect(await countBodies()).toBe(0)
  })

  test('that delete the body at the same time: one does', async () => {
    await holder.query(PURGE_TRASH.text, [user.domainId, 100])
    await holder.begin()
    expect(await holder.run(DELETE_BODY, [user.domainId, bodyId])).toBe(1)
    const sweep = sweepBodies(other, user.domainId, 100)
    await waitingFor(observer, holder.pid)
    await holder.commit()
    expect(await sweep).toBe(0)
  })
})

describe('deliveries to the same recipients in opposite orders', () => {
  let users: User[]

  beforeEach(async () => {
    users = [user]
    for (let number = 0; number < 7; number++)
      users.push(await addUser(one, `u${number}@${address.split('@')[1]}`))
    for (const who of users) await deliverTo(one, who, 'first')
    // The lock in the middle: both deliveries run until they have taken what comes before it.
    await holder.begin()
    await holder.query(LOCK_MAILDROP, [user.domainId, users[4]?.userId])
  })

  const userIds = () => users.map(({ userId }) => userId)

  test('do not deadlock', async () => {
    const start = (db: Database, order: number[]) =>
      deliver(db, {
        domainId: user.domainId,
        bodyId: randomUUID(),
        bodyOctets: 1,
        content: Buffer.from('x'),
        recipients: order.map((userId) => ({ userId, prefix: Buffer.alloc(0) })),
      })
    const there = start(one, userIds())
    const therePid = await waitingFor(observer, holder.pid)
    const back = start(other, userIds().reverse())
    await waitingFor(observer, therePid)
    await holder.commit()
    const results = [...(await there).values(), ...(await back).values()]
    expect(results.map((result) => result.status)).toEqual(results.map(() => 'delivered'))
    for (const who of users) expect(await countersOf(one, who)).toMatchObject({ nextUid: 4 })
  })

  test('would, if each took the locks in its own order', async () => {
    const text = DELIVER.text.replace(
      /select distinct (user_id from unnest\(.*\)) order by user_id/,
      'select $1',
    )
    expect(text).not.toBe(DELIVER.text)
    const start = (db: Database, order: number[], bodyId = randomUUID()) =>
      db.bulk({ name: 'test-own-order', text }, [
        user.domainId,
        `{${order.join(',')}}`,
        order.map(() => Buffer.alloc(0)),
        order.map(() => bodyId),
        order.map(() => 1),
        order.map((_, at) => (at === 0 ? Buffer.from('x') : null)),
      ])
    const there = start(one, userIds()).catch((error) => error)
    const therePid = await waitingFor(observer, holder.pid)
    const back = start(other, userIds().reverse()).catch((error) => error)
    await waitingFor(observer, [holder.pid, therePid], therePid)
    await holder.commit()
    const failures = [await there, await back].filter((result) => result instanceof Error)
    expect(failures.map(sqlStateOf)).toEqual(['40P01'])
  })
})
