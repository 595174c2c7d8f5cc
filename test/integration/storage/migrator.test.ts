import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openLog } from '../../../src/base/log.ts'
import { checkSchema, migrate } from '../../../src/storage/migrator.ts'
import { openTestConnection, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

const log = openLog('silent')

describe('an empty database', () => {
  let database: TestDatabase

  beforeAll(async () => {
    database = await openTestDatabase(true)
  })

  afterAll(() => database.close())

  test('is too old for any node', async () => {
    await expect(checkSchema(database.db, '0.1.0')).rejects.toMatchObject({
      code: 'SCHEMA_TOO_OLD',
      message: expect.stringContaining('0001_mail_store'),
    })
  })

  test('is migrated once by four nodes that start at once', async () => {
    const nodes = [1, 2, 3, 4].map(() => openTestConnection(database.url))
    const results = await Promise.all(nodes.map((db) => migrate(db, log)))
    const applied = results.flatMap((result) => result.applied)
    expect(applied.length).toBeGreaterThan(0)
    expect(new Set(applied).size).toBe(applied.length)
    await Promise.all(nodes.map((db) => checkSchema(db, '0.1.0')))
    expect(await migrate(database.db, log)).toEqual({ applied: [] })
    await Promise.all(nodes.map((db) => db.close()))
  })

  test('refuses a node below what a migration demands, and only such a node', async () => {
    // A migration of a later version, which this node does not know.
    await database.db.kysely
      .insertInto('schema_requirements')
      .values({ migration: '9999_later', lowest_node_version: '0.10.2' })
      .execute()
    for (const version of ['0.1.0', '0.9.9', '0.10.1', '0.2.3'])
      await expect(checkSchema(database.db, version)).rejects.toMatchObject({
        code: 'SCHEMA_TOO_NEW',
        message: expect.stringContaining('9999_later'),
      })
    for (const version of ['0.10.2', '0.10.3', '0.11.0', '1.0.0'])
      await checkSchema(database.db, version)
  })

  test('stays usable for an older node that a later migration can live with', async () => {
    await database.db.kysely
      .updateTable('schema_requirements')
      .set({ lowest_node_version: '0.1.0' })
      .where('migration', '=', '9999_later')
      .execute()
    await database.db.kysely
      .insertInto('schema_migrations')
      .values({ name: '9999_later', timestamp: new Date().toISOString() })
      .execute()
    expect(await migrate(database.db, log)).toEqual({ applied: [] })
    await checkSchema(database.db, '0.1.0')
  })
})

test('tables that Citus has distributed too early are left as they are, and it is said', async () => {
  const { db, close } = await openTestDatabase()
  try {
    await sql`delete from schema_migrations where name > '0011'`.execute(db.kysely)
    await sql`create table pg_dist_partition as select 'users'::regclass as logicalrelid`.execute(
      db.kysely,
    )
    await expect(migrate(db, log)).rejects.toMatchObject({
      code: 'STORAGE_REFUSED',
      message: expect.stringMatching(/^[^\n]*copy the rows to a new database[^\n]*$/),
    })
  } finally {
    await close()
  }
})
