/** The months of session_log: made in time by a role that owns nothing, and thrown away whole. */
import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import pg from 'pg'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { releaseLease, resolveCommit } from '../../../src/storage/leases.ts'
import type { Database } from '../../../src/storage/postgres/database.ts'
import { keepSessionLog } from '../../../src/storage/tenants/maildrops/session-log.ts'
import {
  addUser,
  openTestConnection,
  openTestDatabase,
  type TestDatabase,
} from '../../support/postgres.ts'
import { servingUrl } from '../../support/postgres-setup.ts'
import { acquire, addNode } from './fixtures.ts'

let database: TestDatabase
let serving: Database
let owner: pg.Client
let user: { domainId: number; userId: number }

beforeEach(async () => {
  database = await openTestDatabase()
  serving = openTestConnection(servingUrl(database.url))
  owner = new pg.Client(database.url)
  await owner.connect()
  user = await addUser(database.db, 'ada@log.test')
})
afterEach(async () => {
  await owner.end()
  await serving.close()
  await database.close()
})

/** Counted from this one. */
const monthName = async (offset: number): Promise<string> => {
  const { rows } = await owner.query(
    `select 'session_log_' || to_char(now() at time zone 'UTC' + make_interval(months => $1),
      'YYYY_MM') as name`,
    [offset],
  )
  return rows[0].name
}

const partitions = async (): Promise<string[]> => {
  const { rows } = await owner.query(`select inhrelid::regclass::text as name from pg_inherits
    where inhparent = 'session_log'::regclass order by 1`)
  return rows.map(({ name }) => name)
}

const addRow = (monthsAgo: number) =>
  owner.query(
    `insert into session_log (domain_id, user_id, session_id, ended_at, deleted)
     values ($1, $2, gen_random_uuid(), now() - make_interval(months => $3), 1)
     returning tableoid::regclass::text as name`,
    [user.domainId, user.userId, monthsAgo],
  )

const countIn = async (table: string): Promise<number> => {
  const { rows } = await owner.query(`select count(*)::integer as count from ${table}`)
  return rows[0].count
}

test('there are partitions for this month and the next two, and one for the rest', async () => {
  const months = await Promise.all([0, 1, 2].map(monthName))
  expect(await partitions()).toEqual([...months, 'session_log_default'])
  expect(await keepSessionLog(serving, 12)).toBe(0)
  expect(await partitions()).toEqual([...months, 'session_log_default'])
})

test('a month that is missing is made, with what has gone elsewhere meanwhile', async () => {
  const next = await monthName(1)
  await owner.query(`drop table ${next}`)
  const { rows } = await addRow(-1)
  expect(rows).toEqual([{ name: 'session_log_default' }])
  await addRow(0)
  expect(await keepSessionLog(serving, 12)).toBe(0)
  expect(await partitions()).toContain(next)
  expect(await countIn(next)).toBe(1)
  expect(await countIn('session_log_default')).toBe(0)
  expect(await countIn('session_log')).toBe(2)
})

test('what a node writes goes into a partition that it has no right to by itself', async () => {
  const next = await monthName(1)
  await owner.query(`drop table ${next}`)
  await keepSessionLog(serving, 12)
  const text = `insert into session_log (domain_id, user_id, session_id, ended_at, deleted)
    select domain_id, user_id, gen_random_uuid(), now() + interval '1 month', 0 from users`
  await sql.raw(text).execute(serving.kysely)
  expect(await countIn(next)).toBe(1)
  const direct = sql.raw(text.replace('session_log', next)).execute(serving.kysely)
  await expect(direct).rejects.toThrow(/permission denied/)
})

/** A month of before; the first partition, which begins at the beginning of time, makes room. */
async function addMonths(...offsets: number[]): Promise<string[]> {
  const first = await monthName(0)
  await owner.query(`alter table session_log detach partition ${first}`)
  for (const offset of [0, ...offsets]) {
    const name = await monthName(offset)
    const { rows } = await owner.query(
      `select date_trunc('month', now() at time zone 'UTC' + make_interval(months => $1))
          at time zone 'UTC' as since,
        date_trunc('month', now() at time zone 'UTC' + make_interval(months => $1 + 1))
          at time zone 'UTC' as until`,
      [offset],
    )
    const [since, until] = [rows[0].since.toISOString(), rows[0].until.toISOString()]
    await owner.query(`create table if not exists ${name} (like session_log including all);
      alter table session_log attach partition ${name}
        for values from ('${since}') to ('${until}')`)
  }
  return await Promise.all(offsets.map(monthName))
}

test('months that are over are thrown away whole', async () => {
  const [oldest, before] = await addMonths(-3, -2)
  for (const monthsAgo of [0, 2, 3, 12]) await addRow(monthsAgo)
  expect(await countIn('session_log_default')).toBe(1)
  expect(await keepSessionLog(serving, 2)).toBe(1)
  expect(await partitions()).not.toContain(oldest)
  expect(await partitions()).toContain(before)
  expect(await countIn('session_log_default')).toBe(0)
  expect(await countIn('session_log')).toBe(2)
  expect(await keepSessionLog(serving, 1)).toBe(1)
  expect(await countIn('session_log')).toBe(1)
})

test('what a month that is over has of the held stays until they are free; the rest of it goes', async () => {
  const [oldest = '', before = ''] = await addMonths(-4, -3)
  const held = user
  const free = await addUser(database.db, 'bob@log.test')
  const inHeldDomain = await addUser(database.db, 'carol@held.test')
  await owner.query(`select set_hold('ada@log.test', 'case'), set_hold('held.test', 'case')`)
  for (const who of [held, free, inHeldDomain]) {
    user = who
    for (const monthsAgo of [0, 3, 4, 20]) await addRow(monthsAgo)
  }
  await owner.query(`delete from ${before} where user_id <> $1`, [free.userId])
  const kept = async () => {
    const { rows } =
      await owner.query(`select l.user_id::integer as id, tableoid::regclass::text as name
      from session_log l where ended_at < now() - interval '2 months' order by 2, 1`)
    return rows.map(({ id, name }) => [id, name])
  }
  // The month without any of theirs goes whole.
  expect(await keepSessionLog(serving, 2)).toBe(1)
  const theirs = [held.userId, inHeldDomain.userId]
  const inDefault = theirs.map((id) => [id, 'session_log_default'])
  expect(await kept()).toEqual([...theirs.map((id) => [id, oldest]), ...inDefault])
  expect(await countIn('session_log')).toBe(7)
  expect(await keepSessionLog(serving, 2)).toBe(0)
  expect(await countIn('session_log')).toBe(7)

  await owner.query(`select release_hold('ada@log.test')`)
  expect(await keepSessionLog(serving, 2)).toBe(0)
  expect(await kept()).toEqual([
    [inHeldDomain.userId, oldest],
    [inHeldDomain.userId, 'session_log_default'],
  ])
  await owner.query(`select release_hold('held.test')`)
  expect(await keepSessionLog(serving, 2)).toBe(1)
  expect(await kept()).toEqual([])
  expect(await countIn('session_log')).toBe(3)
})

test('while a dump reads the log, nothing waits for it and nothing is lost', async () => {
  const [oldest] = await addMonths(-20)
  const dump = new pg.Client(database.url)
  await dump.connect()
  await dump.query('begin')
  await dump.query('select count(*) from session_log')
  expect(await keepSessionLog(serving, 1)).toBe(0)
  expect(await partitions()).toContain(oldest)
  await dump.end()
  expect(await keepSessionLog(serving, 1)).toBe(1)
})

test.each([0, -1])('to keep %i months is refused', async (months) => {
  await expect(keepSessionLog(serving, months)).rejects.toThrow(/1 month or more/)
})

test('who may not write the log may not throw it away', async () => {
  const role = `popgres_test_${process.pid}_log`
  await owner.query(`create role ${role} login password '${role}'`)
  const url = new URL(database.url)
  url.username = role
  url.password = role
  const stranger = openTestConnection(url.toString())
  await expect(keepSessionLog(stranger, 12)).rejects.toThrow(/permission denied/)
  await stranger.close()
  await owner.query(`drop role ${role}`)
})

test('a row about a session that only fetched is no commit', async () => {
  const nodeId = await addNode(database.db)
  const { lease } = await acquire(database.db, 'ada@log.test', nodeId)
  const record = {
    ...{ seconds: 1, client: '192.0.2.1', tls: undefined, mechanism: 'password' },
    ...{ credentialId: undefined, fetched: 1, octets: 10, fetchedUids: '{[1,1]}' },
  }
  await releaseLease(database.db, lease, { record, reason: 'quit-failed' })
  expect(await countIn('session_log')).toBe(1)
  expect(await resolveCommit(database.db, lease)).toBe('nothing-deleted')
  expect(await resolveCommit(database.db, { ...lease, sessionId: randomUUID() })).toBe(
    'nothing-deleted',
  )
})
