/** Where there is no Citus, `popgres migrate --citus` says so in one line and changes nothing. */
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { distribute } from '../../../src/storage/postgres/citus.ts'
import { openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await openTestDatabase()
})
afterAll(() => database.close())

async function foreignKeys(): Promise<unknown[]> {
  const { rows } = await sql`select conname from pg_constraint where contype = 'f'
    order by conname`.execute(database.db.kysely)
  return rows
}

test('a database without Citus is refused in one line, and stays as it is', async () => {
  const before = await foreignKeys()
  expect(before.length).toBeGreaterThan(0)
  const refusal = await distribute(database.db).catch((error: unknown) => error)
  expect(refusal).toMatchObject({ code: 'STORAGE_REFUSED' })
  expect(String(refusal)).toMatch(/^[^\n]*create extension citus[^\n]*$/)
  expect(await foreignKeys()).toEqual(before)
})
