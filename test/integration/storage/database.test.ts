import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { inspect } from 'node:util'
import { sql } from 'kysely'
import { DatabaseError } from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Failure, isTemporary } from '../../../src/base/failure.ts'
import { Secret } from '../../../src/base/secret.ts'
import {
  type Database,
  openDatabase,
  type Statement,
} from '../../../src/storage/postgres/database.ts'
import { constraintOf, sqlStateOf, toFailure } from '../../../src/storage/postgres/sqlstate.ts'
import { isPooled } from '../../support/pgbouncer.ts'
import { addDomain, addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { deliverTo, Holder, waitingFor } from './fixtures.ts'

const PASSWORD = 'tanstaaf-1939'
const ONE: Statement = { name: 'test-one', text: 'select 1' }
const PID: Statement = { name: 'test-pid', text: 'select pg_backend_pid()' }
const LOCK: Statement = {
  name: 'test-lock',
  text: 'update domains set trash_days = 9 where domain_id = $1 returning 1',
}

let database: TestDatabase
let db: Database

beforeAll(async () => {
  database = await openTestDatabase()
  db = database.db
})

afterAll(() => database.close())

const open = (url: string) =>
  openDatabase({ url: new Secret(url), applicationName: 'popgres test', connectionsMax: 3 })

const doors = (at: Database) => ({
  hot: () => at.hot(ONE, []),
  bulk: () => at.bulk(ONE, []),
  kysely: () => sql`select 1`.execute(at.kysely),
  ping: () => at.ping(),
})
const DOORS = ['hot', 'bulk', 'kysely', 'ping'] as const

async function failureOf(work: () => Promise<unknown>): Promise<Failure> {
  const outcome = await work().catch((error) => error)
  expect(outcome).toBeInstanceOf(Failure)
  // Nothing that is logged or shown may hold the password, however deep it is looked into.
  expect(inspect(outcome, { depth: 20, showHidden: true })).not.toContain(PASSWORD)
  return outcome as Failure
}

const pidOf = async (door: 'hot' | 'bulk', at = db): Promise<number> =>
  (await at[door](PID, []))[0]?.[0]?.readInt32BE(0) ?? 0

const terminate = (pid: number) => sql`select pg_terminate_backend(${pid})`.execute(db.kysely)

describe('a database that is away', () => {
  test.each(DOORS)('%s: nobody listens', async (door) => {
    const away = open(`postgres://popgres:${PASSWORD}@127.0.0.1:1/mail`)
    const failure = await failureOf(doors(away)[door])
    expect(failure.code).toBe('STORAGE_UNAVAILABLE')
    expect(failure.message).toContain('ECONNREFUSED')
    await away.close()
  })

  test.for(
    DOORS.flatMap(
      (door) =>
        [
          { door, part: 'pathname', value: '/does_not_exist', why: /does_not_exist/ },
          {
            door,
            part: 'username',
            value: 'nobody_there',
            why: /nobody_there|no such user/,
          },
          { door, part: 'password', value: PASSWORD, why: /authentication failed/ },
          { door, part: 'password', value: '', why: /: DATABASE_URL has no password$/ },
        ] as const,
    ),
  )('$door: it refuses the login: $part "$value"', async ({ door, part, value, why }, { skip }) => {
    skip(isPooled && part === 'pathname', 'PgBouncer lets who asks for any database wait for it')
    const url = new URL(database.url)
    url[part] = value
    const closed = open(url.toString())
    expect(await failureOf(doors(closed)[door])).toMatchObject({
      code: 'STORAGE_LOGIN_REFUSED',
      message: expect.stringMatching(why),
      isRetryable: true,
    })
    await closed.close()
  })

  test.each(DOORS)('%s: the peer hangs up', async (door) => {
    const { url, server } = await listen((socket) => socket.destroy())
    const away = open(url)
    expect((await failureOf(doors(away)[door])).code).toBe('STORAGE_UNAVAILABLE')
    await away.close()
    server.close()
  })

  test.each(DOORS)('%s: the peer is no PostgreSQL', async (door) => {
    const { url, server } = await listen((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))
    const away = open(url)
    expect((await failureOf(doors(away)[door])).isRetryable).toBe(true)
    await away.close()
    server.close()
  })

  test('a URL that cannot be read is refused without showing it', () => {
    for (const url of [`postgres://u:${PASSWORD}@[::1`, `postgres://u:${PASSWORD}@h:port/x`]) {
      let outcome: unknown
      try {
        open(url)
      } catch (error) {
        outcome = error
      }
      expect(outcome).toMatchObject({ code: 'SETTINGS_INVALID' })
      expect(inspect(outcome, { depth: 20, showHidden: true })).not.toContain(PASSWORD)
    }
  })

  async function listen(
    onSocket: (socket: Socket) => void,
  ): Promise<{ url: string; server: Server }> {
    const server = createServer((socket) => {
      socket.on('error', () => undefined)
      onSocket(socket)
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    const port = typeof address === 'object' ? address?.port : 0
    return { url: `postgres://popgres:${PASSWORD}@127.0.0.1:${port}/mail`, server }
  }
})

describe('a connection that breaks', () => {
  // Behind a pooler it is the pooler's to replace.
  test.skipIf(isPooled).each(['hot', 'bulk'] as const)('%s: idle, it is replaced', async (door) => {
    const before = await pidOf(door)
    await terminate(before)
    // The news may still be on its way: then one statement is in doubt, and the next goes through.
    const after = await pidOf(door).catch(() => pidOf(door))
    expect(after).not.toBe(before)
  })

  test.each(['hot', 'bulk'] as const)('%s: in a statement, it is in doubt', async (door) => {
    const domainId = await addDomain(db, `${door}.broken.test`)
    const [holder, observer] = [await Holder.open(database.url), await Holder.open(database.url)]
    await holder.begin()
    await holder.query('select from domains where domain_id = $1 for update', [domainId])
    const patient = openDatabase({
      url: new Secret(database.url),
      applicationName: 'popgres test',
      connectionsMax: 3,
      hotLockTimeoutMs: 20_000,
    })
    const failing = failureOf(() => patient[door](LOCK, [domainId]))
    await terminate(await waitingFor(observer, holder.pid))
    expect((await failing).code).toBe('STORAGE_IN_DOUBT')
    await holder.commit()
    expect(await patient[door](LOCK, [domainId])).toHaveLength(1)
    await Promise.all([holder.close(), observer.close(), patient.close()])
  })
})

describe('an answer that is no', () => {
  // Behind a pooler the owner's connections ask for nothing: see pgbouncer.test.ts.
  test.skipIf(isPooled)(
    'a lock that is held: the pipeline waits 50 ms, the pool as long as it takes',
    async () => {
      const domainId = await addDomain(db, 'locked.test')
      const [holder, observer] = [await Holder.open(database.url), await Holder.open(database.url)]
      await holder.begin()
      await holder.query('select from domains where domain_id = $1 for update', [domainId])
      const behind = db.hot(LOCK, [domainId]).catch((error) => error)
      const next = db.hot(ONE, [])
      expect(sqlStateOf(await behind)).toBe('55P03')
      expect(await behind).toMatchObject({ code: 'STORAGE_CONFLICT' })
      expect(await next).toHaveLength(1)
      const waiting = db.hotOrBulk(LOCK, [domainId])
      const hotPid = await waitingFor(observer, holder.pid)
      await waitingFor(observer, holder.pid, hotPid)
      await holder.commit()
      expect(await waiting).toHaveLength(1)
      await Promise.all([holder.close(), observer.close()])
    },
  )

  test('a constraint is named, a value is not', async () => {
    await addDomain(db, 'named.test')
    const failure = await failureOf(() =>
      db.kysely
        .insertInto('domains')
        .values({ name: `${PASSWORD}.TEST` })
        .execute(),
    )
    expect(failure.code).toBe('STORAGE_REFUSED')
    expect(isTemporary(failure)).toBe(false)
    expect(sqlStateOf(failure)).toBe('23514')
    expect(constraintOf(failure)).toBe('domains_name_is_lower_case_host_name')
  })

  test('an error that carries its connection leaves without it', async () => {
    const broken = Object.assign(new Error('read ECONNRESET'), { client: { password: PASSWORD } })
    for (const phase of ['connecting', 'sent'] as const)
      await failureOf(() => Promise.reject(toFailure(broken, phase)))
  })

  test('after a PANIC nobody knows what became of the statement', () => {
    const panic = Object.assign(new DatabaseError('could not write', 0, 'error'), {
      code: '58030',
      severity: 'PANIC',
    })
    expect(toFailure(panic, 'sent').code).toBe('STORAGE_IN_DOUBT')
    const error = Object.assign(panic, { severity: 'ERROR' })
    expect(toFailure(error, 'sent').code).toBe('STORAGE_UNAVAILABLE')
  })

  test('a failed statement harms none of its neighbours, nor its own next run', async () => {
    const divide: Statement = { name: 'test-divide', text: 'select 100 / $1::integer' }
    const outcomes = await Promise.allSettled([1, 0, 2, 0, 4].map((by) => db.hot(divide, [by])))
    expect(
      outcomes.map((outcome) =>
        outcome.status === 'fulfilled'
          ? outcome.value[0]?.[0]?.readInt32BE(0)
          : sqlStateOf(outcome.reason),
      ),
    ).toEqual([100, '22012', 50, '22012', 25])
  })

  test('a table that is not there yet is no reason to bounce mail', async () => {
    const empty = await openTestDatabase(true)
    const missing: Statement = { name: 'test-missing', text: 'select 1 from messages' }
    for (const door of ['hot', 'bulk'] as const) {
      expect((await failureOf(() => empty.db[door](missing, []))).code).toBe('STORAGE_UNAVAILABLE')
    }
    await sql`create table messages (uid integer)`.execute(empty.db.kysely)
    for (const door of ['hot', 'bulk'] as const)
      expect(await empty.db[door](missing, [])).toEqual([])
    await empty.close()
  })

  test.skipIf(isPooled)('a statement that a pooler has forgotten is prepared anew', async () => {
    await db.hot(ONE, [])
    await db.hot({ name: 'test-deallocate', text: 'deallocate all' }, [])
    const failure = await failureOf(() => db.hot(ONE, []))
    expect(failure.code).toBe('STORAGE_UNAVAILABLE')
    expect(await db.hot(ONE, [])).toHaveLength(1)
  })
})

test('a closed database says so, and closing twice is no error', async () => {
  const closed = open(database.url)
  for (const door of DOORS) await doors(closed)[door]()
  await closed.close()
  await closed.close()
  for (const door of DOORS)
    expect((await failureOf(doors(closed)[door])).code).toBe('STORAGE_UNAVAILABLE')
})

test('plain INSERT INTO users makes a user who receives mail', async () => {
  const user = await addUser(db, 'ada@plain.test')
  expect(await deliverTo(db, user, 'x')).toBe(1)
})
