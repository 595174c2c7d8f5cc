/**
 * Where the database is one of Citus, statements are planned with their values; everywhere else once.
 * No Citus is needed to see that: its name among the extensions is what a node looks at.
 */
import { pino } from 'pino'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Database, Statement } from '../../../src/storage/postgres/database.ts'
import { warnOfLostSettings } from '../../../src/storage/postgres/lost-settings.ts'
import { isPooled } from '../../support/pgbouncer.ts'
import { openTestConnection, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

const MODE: Statement = { name: 'mode', text: `select current_setting('plan_cache_mode')` }

let database: TestDatabase

beforeAll(async () => {
  database = await openTestDatabase()
})
afterAll(() => database.close())

async function modes(db: Database): Promise<(string | undefined)[]> {
  const answers = await Promise.all([
    db.hot(MODE, []),
    db.hot(MODE, [], 'deliveries'),
    db.bulk(MODE, []),
  ])
  return answers.map(([row]) => row?.[0]?.toString())
}

async function look(): Promise<{ modes: (string | undefined)[]; warnings: string[] }> {
  const db = openTestConnection(database.url)
  try {
    const warnings: string[] = []
    const log = pino({ level: 'warn' }, { write: (line: string) => void warnings.push(line) })
    await warnOfLostSettings(db, log)
    return { modes: await modes(db), warnings }
  } finally {
    await db.close()
  }
}

// A pooler drops what a connection asks for; the role has it then: see pgbouncer.test.ts.
test.skipIf(isPooled)('a plan is kept, but where there is Citus', async () => {
  const once = 'force_generic_plan'
  expect(await look()).toEqual({ modes: [once, once, once], warnings: [] })
  // What `create extension citus` leaves in the catalogue.
  const copy = `insert into pg_extension (oid, extname, extowner, extnamespace, extrelocatable,
      extversion)
    select 999999, 'citus', extowner, extnamespace, false, '13.2' from pg_extension limit 1`
  await database.db.bulk({ name: '', text: copy }, [])
  expect(await look()).toEqual({ modes: ['auto', 'auto', 'auto'], warnings: [] })
})
