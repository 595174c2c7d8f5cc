/** Failed logins as the operator sees them, through the real program and in SQL. */
import { sql } from 'kysely'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import type { ThrottleEntry } from '../../../src/admin/operations/throttles.ts'
import { openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { openProgram, type Program } from './program.ts'

let database: TestDatabase
let program: Program

beforeAll(async () => {
  database = await openTestDatabase()
  program = openProgram({ DATABASE_URL: database.url })
})

afterAll(async () => {
  program?.close()
  await database?.close()
})

const ROWS = {
  'network 192.0.2.1': 60,
  'network 2001:db8:0:1': 12,
  'user ada@throttle.example': 9,
  'known 2001:db8:0:1 ada@throttle.example': 2,
  'domain throttle.example': 70,
  'proof-key': 0,
}

beforeEach(async () => {
  await sql`truncate throttles`.execute(database.db.kysely)
  for (const [key, failures] of Object.entries(ROWS))
    await sql`insert into throttles values (${key}, ${failures}, '{}', now())`.execute(
      database.db.kysely,
    )
})

const subjects = async (): Promise<string[]> => {
  const entries = await program.json<ThrottleEntry[]>(['throttle', 'list'])
  return entries.map(({ kind, subject }) => `${kind} ${subject}`)
}

test('list shows what each failure costs now, the most first, and no secrets', async () => {
  const entries = await program.json<ThrottleEntry[]>(['throttle', 'list'])
  expect(
    entries.map(({ kind, subject, network, effect }) => [kind, subject, network, effect]),
  ).toEqual([
    ['domain', 'throttle.example', null, 'none'],
    ['network', '192.0.2.1', null, 'refused'],
    ['network', '2001:db8:0:1::/64', null, 'delayed'],
    ['user', 'ada@throttle.example', null, 'delayed'],
    ['known', 'ada@throttle.example', '2001:db8:0:1::/64', 'none'],
  ])
  const { stdout } = await program.run(['throttle', 'list'])
  expect(stdout).toMatch(/^network {2}192\.0\.2\.1 +- +\d\d\.\d {2}refused {2}20\d\d-/m)
})

test('clear takes an address, with where it is known from, in any case', async () => {
  const { stdout } = await program.run(['throttle', 'clear', 'Ada@Throttle.example'])
  expect(stdout).toBe('forgot 2 rows of failed logins\n')
  expect(await subjects()).toHaveLength(3)
})

test('clear takes a network as it is listed, and a domain', async () => {
  await program.run(['throttle', 'clear', '2001:db8:0:1::/64'])
  await program.run(['throttle', 'clear', 'throttle.example'])
  expect(await subjects()).toEqual(['network 192.0.2.1', 'user ada@throttle.example'])
})

test('clear --all takes all but the key of the proofs; without a subject it wants to know', async () => {
  expect((await program.run(['throttle', 'clear'])).status).toBe(2)
  expect((await program.run(['throttle', 'clear', 'x', '--all'])).status).toBe(2)
  expect(await subjects()).toHaveLength(5)
  expect((await program.run(['throttle', 'clear', '--all'])).stdout).toMatch(/^forgot 5 rows/)
  const { rows } = await sql`select key from throttles`.execute(database.db.kysely)
  expect(rows).toEqual([{ key: 'proof-key' }])
})

test('clear of what has no failures says so; --all may find nothing', async () => {
  expect(await program.run(['throttle', 'clear', 'nosuch'])).toEqual({
    status: 1,
    stdout: '',
    stderr: 'popgres: no failed logins of "nosuch": see "popgres throttle list"\n',
  })
  await sql`truncate throttles`.execute(database.db.kysely)
  expect(await program.run(['throttle', 'clear', '--all'])).toEqual({
    status: 0,
    stdout: 'forgot 0 rows of failed logins\n',
    stderr: '',
  })
})

test('clear_throttle does the same in SQL', async () => {
  const clear = async (subject: string | null) => {
    const { rows } = await sql<{ cleared: number }>`
      select clear_throttle(${subject}) as cleared`.execute(database.db.kysely)
    return rows[0]?.cleared
  }
  expect(await clear('192.0.2.1')).toBe(1)
  expect(await clear('192.0.2.1')).toBe(0)
  expect(await clear('network')).toBe(0)
  expect(await clear(null)).toBe(4)
})
