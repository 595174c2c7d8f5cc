/**
 * A server behind the one that we are connected to is away: what Citus answers for the domains that
 * lie there is an error of class 08 on a connection that stands. It is in doubt, as the server that
 * went away may have committed, and it is nobody else's: the pipeline that all sessions share stays.
 */
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Statement } from '../../../src/storage/postgres/database.ts'
import { openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

const PID: Statement = { name: 'pid', text: 'select pg_backend_pid()::text' }
const RAISE: Statement = { name: 'raise', text: 'select raise_state($1)' }

let database: TestDatabase

beforeAll(async () => {
  database = await openTestDatabase()
  await sql`create function raise_state(state text) returns void language plpgsql as
    $$ begin raise exception 'the shard is away' using errcode = state; end $$`.execute(
    database.db.kysely,
  )
})
afterAll(() => database.close())

async function backendPid(): Promise<string | undefined> {
  const [row] = await database.db.hot(PID, [])
  return row?.[0]?.toString()
}

test.each(['08000', '08006', '57P03'])(
  '%s is in doubt, and the shared connection stays',
  async (state) => {
    const { db } = database
    const before = await backendPid()
    // Those beside it, in the same write, notice nothing.
    const [failed, ...others] = await Promise.allSettled([
      db.hot(RAISE, [state]),
      db.hot(PID, []),
      db.hot(PID, []),
    ])
    expect(failed).toMatchObject({ status: 'rejected', reason: { code: 'STORAGE_IN_DOUBT' } })
    expect(others.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled'])
    expect(await backendPid()).toBe(before)
    await expect(db.bulk(RAISE, [state])).rejects.toMatchObject({ code: 'STORAGE_IN_DOUBT' })
  },
)
