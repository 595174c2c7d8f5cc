import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { checkMaildrops } from '../../../src/storage/check.ts'
import { commitDeletes } from '../../../src/storage/leases.ts'
import type { Database } from '../../../src/storage/postgres/database.ts'
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
let db: Database
let user: User
let domainName: string
let address: string
let nodeId: string

beforeAll(async () => {
  database = await openTestDatabase()
  db = database.db
  nodeId = await addNode(db)
})

afterAll(() => database.close())

beforeEach(async () => {
  domainName = `${randomUUID()}.test`
  address = `Ada@${domainName}`
  user = await addUser(db, address)
  for (const text of ['1', '22', '333']) await deliverTo(db, user, text)
})

const call = async (text: string, ...values: unknown[]): Promise<unknown> => {
  const parts = text.split('?')
  const { rows } = await sql<{ result: unknown }>(
    Object.assign(parts, { raw: parts }) as unknown as TemplateStringsArray,
    ...values,
  ).execute(db.kysely)
  return rows[0]?.result
}

const deleteMessages = (name: string, uids: number[]) =>
  call('select delete_messages(?, ?::int[]) as result', name, uids)

describe('delete_messages', () => {
  test('moves to the trash and counts, whatever the case of the address', async () => {
    expect(await deleteMessages(address.toUpperCase(), [1, 3, 99])).toBe(2)
    expect(await uidsOf(db, user)).toEqual([2])
    expect(await uidsOf(db, user, 'trash')).toEqual([1, 3])
    expect(await countersOf(db, user)).toEqual({ messages: 1, octets: 2, nextUid: 4 })
    expect(await checkMaildrops(db, user.domainId, false)).toEqual([])
    expect(await deleteMessages(address, [1, 3])).toBe(0)
    const log = await db.kysely
      .selectFrom('session_log')
      .select('deleted')
      .where('domain_id', '=', user.domainId)
      .execute()
    expect(log).toEqual([{ deleted: 2 }])
    expect((await acquire(db, address, nodeId)).outcome.kind).toBe('acquired')
  })

  test('leaves an open session its mail; a kick makes room', async () => {
    const { lease } = await acquire(db, address, nodeId)
    await expect(deleteMessages(address, [1])).rejects.toMatchObject({
      code: 'STORAGE_REFUSED',
      cause: { sqlState: '55006' },
    })
    expect(await call('select kick(?) as result', address)).toBe(true)
    expect(await call('select kick(?) as result', address)).toBe(false)
    expect(await deleteMessages(address, [1])).toBe(1)
    expect(await commitDeletes(db, lease, Int32Array.of(2))).toBe('fenced')
  })

  test('does not wait for the session of a dead node', async () => {
    const deadNodeId = await addNode(db)
    await acquire(db, address, deadNodeId)
    await db.kysely
      .updateTable('nodes')
      .set({ heartbeat_at: new Date(Date.now() - 31_000) })
      .where('node_id', '=', deadNodeId)
      .execute()
    expect(await deleteMessages(address, [2])).toBe(1)
  })

  // The 50 ms are the serving role's, and behind a pooler the owner's connections have none.
  test.skipIf(isPooled)('keeps a login out while it works', async () => {
    const patient = openPatient(database.url)
    const [holder, observer] = [await Holder.open(database.url), await Holder.open(database.url)]
    await holder.begin()
    await holder.query('select delete_messages($1, $2)', [address, [1, 2]])
    expect((await acquire(db, address, nodeId)).outcome.kind).toBe('in-use')
    const login = acquire(patient, address, nodeId)
    await waitingFor(observer, holder.pid)
    await holder.commit()
    expect((await login).outcome).toMatchObject({ counters: { messageCount: 1, octets: 3 } })
    await Promise.all([patient.close(), holder.close(), observer.close()])
  })
})

describe('removing', () => {
  const countRows = async (): Promise<Record<string, unknown> | undefined> =>
    (
      await sql<Record<string, unknown>>`select
      (select count(*)::int from users where domain_id = ${user.domainId}) as users,
      (select count(*)::int from messages where domain_id = ${user.domainId}) as messages,
      (select count(*)::int from trash where domain_id = ${user.domainId}) as trash,
      (select count(*)::int from sessions where domain_id = ${user.domainId}) as sessions,
      (select count(*)::int from bodies where domain_id = ${user.domainId}) as bodies,
      (select count(*)::int from domains where domain_id = ${user.domainId}) as domains`.execute(
        db.kysely,
      )
    ).rows[0]

  test('a user takes mail, trash and session along, and nobody else’s', async () => {
    const bob = await addUser(db, `bob@${domainName}`)
    await deliverTo(db, bob, 'bob')
    await deleteMessages(address, [1])
    const { lease } = await acquire(db, address, nodeId)
    await call('select remove_user(?) as result', address.toLowerCase())
    expect(await countRows()).toMatchObject({ users: 1, messages: 1, trash: 0, sessions: 0 })
    expect(await commitDeletes(db, lease, Int32Array.of(2))).toBe('fenced')
    expect(await uidsOf(db, bob)).toEqual([1])
  })

  test('an address that comes back does not meet its old unique-ids', async () => {
    const validity = async () =>
      (
        await db.kysely
          .selectFrom('maildrops')
          .select('uid_validity')
          .where('domain_id', '=', user.domainId)
          .execute()
      )[0]?.uid_validity
    const before = await validity()
    await call('select remove_user(?) as result', address)
    await deliverTo(db, await addUser(db, address), 'x')
    expect(await validity()).toBeGreaterThan(before ?? Number.POSITIVE_INFINITY)
  })

  test('a domain leaves nothing', async () => {
    await addUser(db, `bob@${domainName}`)
    await deleteMessages(address, [1])
    await acquire(db, address, nodeId)
    await call('select remove_domain(?) as result', domainName.toUpperCase())
    expect(await countRows()).toEqual({
      users: 0,
      messages: 0,
      trash: 0,
      sessions: 0,
      bodies: 0,
      domains: 0,
    })
  })

  test('a user meets a delivery: no deadlock, and one of the two is told', async () => {
    const patient = openPatient(database.url)
    const [holder, observer] = [await Holder.open(database.url), await Holder.open(database.url)]
    await holder.begin()
    await holder.query('select remove_user($1)', [address])
    const delivery = deliverTo(patient, user, 'late').catch((error) => error.message)
    await waitingFor(observer, holder.pid)
    await holder.commit()
    expect(await delivery).toBe('not delivered: unknown-user')
    await Promise.all([patient.close(), holder.close(), observer.close()])
  })
})

describe('an unknown name is an error', () => {
  test.each([
    ['select kick(?) as result', 'nobody@example.test'],
    ['select kick(?) as result', 'ada'],
    ['select kick(?) as result', '@'],
    ['select kick(?) as result', ''],
    ['select remove_user(?) as result', 'nobody@example.test'],
    [`select delete_messages(?, '{1}') as result`, 'nobody@example.test'],
    ['select remove_domain(?) as result', 'nowhere.test'],
  ])('%s with %j', async (text, name) => {
    await expect(call(text, name)).rejects.toMatchObject({
      code: 'STORAGE_REFUSED',
      cause: { sqlState: 'P0002', message: expect.stringContaining(name) },
    })
  })
})
