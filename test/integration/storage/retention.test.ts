import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { insertBody } from '../../../src/storage/bodies.ts'
import { commitDeletes } from '../../../src/storage/leases.ts'
import type { Database } from '../../../src/storage/postgres/database.ts'
import { purgeTrash, selectDomainIds, sweepBodies } from '../../../src/storage/retention.ts'
import { addDomain, addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { acquire, addNode, deliverTo, type User, uidsOf } from './fixtures.ts'

let database: TestDatabase
let db: Database
let user: User
let address: string
let nodeId: string

beforeAll(async () => {
  database = await openTestDatabase()
  db = database.db
  nodeId = await addNode(db)
})

afterAll(() => database.close())

beforeEach(async () => {
  address = `ada@${randomUUID()}.test`
  user = await addUser(db, address)
})

/** The database's clock decides, so the test moves the rows. */
async function age(table: 'trash' | 'bodies', hours: number): Promise<void> {
  const column = sql.ref(table === 'trash' ? 'deleted_at' : 'created_at')
  await sql`update ${sql.table(table)} set ${column} = ${column} - make_interval(hours => ${hours})
    where domain_id = ${user.domainId}`.execute(db.kysely)
}

const deleteByQuit = async (...uids: number[]): Promise<void> => {
  const { lease } = await acquire(db, address, nodeId)
  expect(await commitDeletes(db, lease, Int32Array.from(uids))).toBe('committed')
}

const countBodies = async (): Promise<number> => {
  const rows = await db.kysely
    .selectFrom('bodies')
    .select('body_id')
    .where('domain_id', '=', user.domainId)
    .execute()
  return rows.length
}

test('trash stays for the days of its domain, and takes its bodies along', async () => {
  for (let number = 0; number < 3; number++) await deliverTo(db, user, 'x')
  await deleteByQuit(1, 2)
  await age('bodies', 25)
  await age('trash', 7 * 24 - 1)
  expect(await purgeTrash(db, user.domainId, 10)).toBe(0)
  await age('trash', 2)
  expect(await purgeTrash(db, user.domainId, 10)).toBe(2)
  expect(await uidsOf(db, user, 'trash')).toEqual([])
  expect(await countBodies()).toBe(1)
  expect(await uidsOf(db, user)).toEqual([3])
})

test('with 0 days it is purged at once; a young body waits for the sweep', async () => {
  await db.kysely
    .updateTable('domains')
    .set({ trash_days: 0 })
    .where('domain_id', '=', user.domainId)
    .execute()
  await deliverTo(db, user, 'x')
  await deleteByQuit(1)
  expect(await purgeTrash(db, user.domainId, 10)).toBe(1)
  expect(await countBodies()).toBe(1)
  await age('bodies', 25)
  expect(await sweepBodies(db, user.domainId, 10)).toBe(1)
})

test('works in portions, and in one domain only', async () => {
  const other = await addUser(db, 'bob@elsewhere.test')
  await deliverTo(db, other, 'x')
  for (let number = 0; number < 5; number++) await deliverTo(db, user, 'x')
  await deleteByQuit(1, 2, 3, 4, 5)
  await age('trash', 24 * 8)
  await age('bodies', 25)
  expect(await purgeTrash(db, user.domainId, 3)).toBe(3)
  expect(await purgeTrash(db, other.domainId, 3)).toBe(0)
  expect(await purgeTrash(db, user.domainId, 3)).toBe(2)
  expect(await countBodies()).toBe(0)
})

test('the sweep takes only old bodies that no row names', async () => {
  await deliverTo(db, user, 'named')
  await deliverTo(db, user, 'in the trash')
  await deleteByQuit(2)
  await insertBody(db, user.domainId, randomUUID())
  expect(await sweepBodies(db, user.domainId, 10)).toBe(0)
  await age('bodies', 25)
  expect(await sweepBodies(db, user.domainId, 10)).toBe(1)
  expect(await countBodies()).toBe(2)
})

test('domains are listed', async () => {
  const domainId = await addDomain(db, 'listed.test')
  expect(await selectDomainIds(db)).toContain(domainId)
})
