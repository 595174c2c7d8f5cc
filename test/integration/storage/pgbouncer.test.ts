/**
 * What a pooler in transaction mode changes, on a PgBouncer of this file's own, set up as
 * docs/operating.md says. `POPGRES_TEST_PGBOUNCER=pgbouncer npm test` lets the other tests go through
 * one as well.
 */
import pg from 'pg'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { Secret } from '../../../src/base/secret.ts'
import { type Database, openDatabase } from '../../../src/storage/postgres/database.ts'
import { warnOfLostSettings } from '../../../src/storage/postgres/lost-settings.ts'
import { setServingDefaults } from '../../../src/storage/serving-role.ts'
import { isPooled, type PgBouncer, startPgBouncer } from '../../support/pgbouncer.ts'
import {
  directUrl,
  openTestConnection,
  openTestDatabase,
  type TestDatabase,
} from '../../support/postgres.ts'
import { onServer, reachedUrl, servingUrl } from '../../support/postgres-setup.ts'

const ONE = { name: 'test-one', text: 'select 1' }
const MISSING = { name: 'test-missing', text: 'select n from comes_later' }
const INSERT = {
  name: 'test-insert',
  text: `insert into nodes (node_id, hostname, pid, version)
    values (gen_random_uuid(), 'test', 1, '0.0.0')`,
}

describe.skipIf(!isPooled)('through PgBouncer (POPGRES_TEST_PGBOUNCER names no program)', () => {
  let database: TestDatabase
  let pgbouncer: PgBouncer
  let owner: pg.Client
  let nodes: Database[]

  beforeAll(async () => {
    database = await openTestDatabase()
    pgbouncer = await startPgBouncer(inject('serverUrl'))
    owner = new pg.Client(directUrl(database.url))
    await owner.connect()
    const url = reachedUrl(servingUrl(directUrl(database.url)), pgbouncer.port)
    nodes = [1, 2, 3].map(() => openTestConnection(url))
  })

  afterAll(async () => {
    await Promise.all(nodes.map((node) => node.close()))
    await owner.end()
    await pgbouncer.stop()
    await database.close()
  })

  test('many nodes share few connections, and the same statement under the same name', async () => {
    const answers = await Promise.all(
      nodes.flatMap((node) =>
        Array.from({ length: 50 }, (_, n) =>
          n % 2 === 0 ? node.hot(ONE, []) : node.bulk(ONE, []),
        ),
      ),
    )
    expect(answers.map((rows) => rows[0]?.[0]?.readInt32BE(0))).toEqual(answers.map(() => 1))
    const { rows } = await owner.query(`select count(*)::int as n from pg_stat_activity
      where datname = current_database() and usename = 'popgres_test_serve'`)
    expect(rows[0].n).toBeGreaterThan(0)
    expect(rows[0].n).toBeLessThanOrEqual(10)
  })

  test('a statement that PostgreSQL refused to prepare is prepared when it can be', async () => {
    const [node] = nodes as [Database]
    for (const door of ['hot', 'bulk', 'hot', 'bulk'] as const)
      await expect(node[door](MISSING, [])).rejects.toMatchObject({
        code: 'STORAGE_UNAVAILABLE',
        message: expect.stringContaining('comes_later'),
      })
    await owner.query('create table comes_later (n int); grant select on comes_later to public')
    for (const door of ['hot', 'bulk'] as const) expect(await node[door](MISSING, [])).toEqual([])
  })

  test('a lock is waited for 50 ms by a hot statement, and by a bulk one as long as it takes', async () => {
    const [node] = nodes as [Database]
    await owner.query('begin; lock table nodes in share mode')
    await expect(node.hot(INSERT, [])).rejects.toMatchObject({ code: 'STORAGE_CONFLICT' })
    let isDone = false
    const waiting = node.bulk(INSERT, []).then(() => {
      isDone = true
    })
    await owner.query('select pg_sleep(0.3)') // six times as long as each of its tries
    expect(isDone).toBe(false)
    await owner.query('rollback')
    await waiting
  })

  test('a role without the defaults is warned of, one that has them is not', async () => {
    const role = `popgres_test_bare_${process.pid}`
    await onServer(inject('serverUrl'), `create role ${role} login password '${role}'`)
    const url = new URL(reachedUrl(directUrl(database.url), pgbouncer.port))
    Object.assign(url, { username: role, password: role })
    const lines: Record<string, unknown>[] = []
    const log = pino({}, { write: (line) => lines.push(JSON.parse(line)) })
    const look = async (): Promise<void> => {
      const options = { applicationName: 'popgres test', connectionsMax: 2 }
      const node = openDatabase({ url: new Secret(url.toString()), ...options })
      await warnOfLostSettings(node, log)
      await node.close()
    }
    const whole = openTestConnection(directUrl(database.url))
    await look()
    expect(lines).toMatchObject([{ level: 40, found: { lock_timeout: '0', enable_seqscan: 'on' } }])
    await setServingDefaults(whole, role)
    await owner.query(`select pg_terminate_backend(pid) from pg_stat_activity
      where usename = '${role}'`)
    await look()
    expect(lines).toHaveLength(1)
    await whole.close()
    await owner.query(`select pg_terminate_backend(pid) from pg_stat_activity
      where usename = '${role}'`)
    await onServer(inject('serverUrl'), `drop role ${role}`)
  })
})

test('a connection without a pooler has what it asks for, whatever the role is', async () => {
  const database = await openTestDatabase()
  const lines: string[] = []
  const db = openTestConnection(directUrl(database.url))
  await warnOfLostSettings(db, pino({}, { write: (line) => lines.push(line) }))
  expect(lines).toEqual([])
  await db.close()
  await database.close()
})
