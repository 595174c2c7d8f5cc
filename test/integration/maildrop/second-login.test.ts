/**
 * RFC 1939 §4 leaves open what a login meets while the maildrop is open elsewhere: refused at once,
 * a short wait, or a session that was idle for a minute gives way. Two keepers on two connections
 * are two nodes; they beat when the test says so.
 */
import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { pino } from 'pino'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { Presence } from '../../../src/mail/auth/login-peer.ts'
import { LeaseKeeper } from '../../../src/mail/maildrop/lease-keeper.ts'
import {
  type Maildrop,
  type MaildropContext,
  type OpenResult,
  openMaildrop,
} from '../../../src/mail/maildrop/maildrop.ts'
import { ReadAheadBudget } from '../../../src/mail/maildrop/reader.ts'
import { selectLoginAccount } from '../../../src/storage/accounts.ts'
import {
  addUser,
  openTestConnection,
  openTestDatabase,
  type TestDatabase,
} from '../../support/postgres.ts'
import { deliverTo, uidsOf } from '../storage/fixtures.ts'

type SecondLogin = 'refuse' | 'wait' | 'take-over'

let database: TestDatabase
let one: MaildropContext
let two: MaildropContext
let domainName: string
let user: { domainId: number; userId: number }

function openNode(): MaildropContext {
  const db = openTestConnection(database.url)
  const log = pino({ level: 'silent' })
  const keeper = new LeaseKeeper({ db, log, hostname: 'pop.example.test', version: '0.1.0' })
  return { db, log, keeper, budget: new ReadAheadBudget() }
}

async function closeNode({ db, keeper }: MaildropContext): Promise<void> {
  await keeper.stop()
  await db.close()
}

beforeAll(async () => {
  database = await openTestDatabase()
})

afterAll(() => database.close())

beforeEach(async () => {
  one = openNode()
  two = openNode()
  await Promise.all([one.keeper.beat(), two.keeper.beat()])
  domainName = `${randomUUID()}.test`
  user = await addUser(database.db, `ada@${domainName}`)
  await deliverTo(database.db, user, 'one')
  await deliverTo(database.db, user, 'two')
})

afterEach(async () => {
  vi.restoreAllMocks()
  await Promise.all([closeNode(one), closeNode(two)])
})

const setDomain = (set: { second_login?: SecondLogin; login_delay_seconds?: number }) =>
  database.db.kysely
    .updateTable('domains')
    .set(set)
    .where('domain_id', '=', user.domainId)
    .execute()

interface Session {
  result: Promise<OpenResult>
  /** How often it was told that its lease is over. */
  ends: () => number
  presence: Presence
}

/** A login whose password is verified. */
function logIn(
  node: MaildropContext,
  options: { idleMs?: () => number; credentialId?: string } = {},
): Session {
  let endCount = 0
  const presence = new Presence()
  const open = async (): Promise<OpenResult> => {
    const account = await selectLoginAccount(node.db, domainName, 'ada')
    if (account === undefined) throw new Error('no such user')
    return openMaildrop(node, account, {
      client: '192.0.2.1',
      credentialId: options.credentialId,
      presence,
      idleMs: options.idleMs ?? (() => 0),
      end: () => endCount++,
    })
  }
  return { result: open(), ends: () => endCount, presence }
}

async function opened({ result }: Session): Promise<Maildrop> {
  const found = await result
  if (found.kind !== 'opened') throw new Error(`the login was answered ${found.kind}`)
  return found.maildrop
}

/** Resolves when a waiting login has asked the holder to give way. */
async function untilWanted(): Promise<void> {
  await expect
    .poll(async () => {
      const rows = await database.db.kysely
        .selectFrom('sessions')
        .select('wanted_at')
        .where('domain_id', '=', user.domainId)
        .execute()
      return rows[0]?.wanted_at ?? null
    })
    .not.toBeNull()
}

/** Counts the statements that ask for a lease. */
function countAsks(node: MaildropContext): () => number {
  const hot = vi.spyOn(node.db, 'hot')
  return () => hot.mock.calls.filter(([{ name }]) => name === 'lease-acquire').length
}

/** From now on the monotonic clock is ahead: nobody's deadline is waited for. */
function skip(ms: number): void {
  const now = performance.now.bind(performance)
  vi.spyOn(performance, 'now').mockImplementation(() => now() + ms)
}

describe('refuse', () => {
  test('answers at once, after one question', async () => {
    const holder = await opened(logIn(one))
    const asks = countAsks(two)
    expect(await logIn(two).result).toEqual({ kind: 'in-use' })
    expect(asks()).toBe(1)
    await holder.close()
  })
})

describe('wait', () => {
  beforeEach(() => setDomain({ second_login: 'wait' }))

  test('gets the maildrop when the session before it ends, with what that one left', async () => {
    const holder = await opened(logIn(one))
    const waiter = logIn(two)
    const asks = countAsks(two)
    await expect.poll(asks).toBeGreaterThan(0)
    expect(await holder.commit(Int32Array.of(1))).toBe('committed')
    const maildrop = await opened(waiter)
    expect(maildrop.counters.messageCount).toBe(1)
    await maildrop.close()
  })

  test('gives up after ten seconds, and leaves nothing behind', async () => {
    const holder = await opened(logIn(one, { idleMs: () => 3_600_000 }))
    const waiter = logIn(two)
    const asks = countAsks(two)
    await expect.poll(asks).toBeGreaterThan(0)
    await one.keeper.beat() // nobody is asked to give way
    skip(10_001)
    expect(await waiter.result).toEqual({ kind: 'in-use' })
    expect(await holder.commit(Int32Array.of(1))).toBe('committed')
  })

  test('ends when the peer has gone', async () => {
    const holder = await opened(logIn(one))
    const waiter = logIn(two)
    const asks = countAsks(two)
    await expect.poll(asks).toBeGreaterThan(0)
    const asked = asks()
    waiter.presence.leave()
    expect(await waiter.result).toEqual({ kind: 'in-use' })
    expect(asks()).toBe(asked)
    await holder.close()
    await (await opened(logIn(one))).close()
  })

  test('of two that wait, one after the other gets it', async () => {
    const holder = await opened(logIn(one))
    const waiters = [logIn(one), logIn(two)].map(async (waiter, index) => {
      const maildrop = await opened(waiter)
      return { index, maildrop }
    })
    await holder.close()
    const first = await Promise.race(waiters)
    expect(await first.maildrop.list()).toBeDefined()
    const rows = await database.db.kysely
      .selectFrom('sessions')
      .select('session_id')
      .where('domain_id', '=', user.domainId)
      .execute()
    expect(rows).toEqual([{ session_id: first.maildrop.lease.sessionId }])
    await first.maildrop.close()
    for (const { maildrop } of await Promise.all(waiters)) await maildrop.close()
  })

  test('is refused as a wrong password if the password changes meanwhile', async () => {
    const holder = await opened(logIn(one))
    const waiter = logIn(two)
    const asks = countAsks(two)
    await expect.poll(asks).toBeGreaterThan(0)
    await sql`update users set password_hash = '$1$abc$def' where domain_id = ${user.domainId}`.execute(
      database.db.kysely,
    )
    expect(await waiter.result).toEqual({ kind: 'credential-changed' })
    await holder.close()
  })
})

describe('take-over', () => {
  beforeEach(() => setDomain({ second_login: 'take-over' }))

  test('ends a session that was idle for a minute, which then deletes nothing', async () => {
    const half = logIn(one, { idleMs: () => 60_000 })
    const holder = await opened(half)
    const waiter = logIn(two)
    await untilWanted()
    await one.keeper.beat()
    expect(half.ends()).toBe(1)
    const maildrop = await opened(waiter)
    expect(one.keeper.sessionCount).toBe(0)
    await holder.close() // as the connection does when it has closed
    expect(maildrop.counters.messageCount).toBe(2)
    expect(await maildrop.commit(Int32Array.of(2))).toBe('committed')
    expect(await uidsOf(database.db, user)).toEqual([1])
  })

  test('leaves a session that works, however often it is asked', async () => {
    const busy = logIn(one, { idleMs: () => 59_999 })
    const holder = await opened(busy)
    const waiter = logIn(two)
    await untilWanted()
    await one.keeper.beat()
    expect(busy.ends()).toBe(0)
    skip(15_001)
    expect(await waiter.result).toEqual({ kind: 'in-use' })
    expect(await holder.commit(Int32Array.of(1, 2))).toBe('committed')
  })

  test('of a session that is in its QUIT waits for the end of that', async () => {
    const half = logIn(one, { idleMs: () => 60_000 })
    const holder = await opened(half)
    const waiter = logIn(two)
    await untilWanted()
    const [committed] = await Promise.all([holder.commit(Int32Array.of(1)), one.keeper.beat()])
    expect(committed).toBe('committed')
    const maildrop = await opened(waiter)
    expect(maildrop.counters.messageCount).toBe(1)
    await maildrop.close()
  })

  test('is forgotten when the node that waited has died', async () => {
    const half = logIn(one, { idleMs: () => 60_000 })
    const holder = await opened(half)
    const waiter = logIn(two)
    await untilWanted()
    waiter.presence.leave()
    await waiter.result
    await sql`update sessions set wanted_at = wanted_at - interval '10 seconds'
      where domain_id = ${user.domainId}`.execute(database.db.kysely)
    await one.keeper.beat()
    expect(half.ends()).toBe(0)
    expect(await holder.commit(Int32Array.of(1))).toBe('committed')
  })

  test('of a session whose node has died gets its lease when that is known', async () => {
    const holder = await opened(logIn(one))
    const waiter = logIn(two, { idleMs: () => 60_000 })
    await untilWanted()
    await sql`update nodes set heartbeat_at = now() - interval '31 seconds'
      where node_id = ${one.keeper.nodeId}`.execute(database.db.kysely)
    await two.keeper.beat()
    const maildrop = await opened(waiter)
    expect(await holder.commit(Int32Array.of(1))).toBe('lease-lost')
    await two.keeper.beat()
    expect(waiter.ends()).toBe(0) // it is not wanted any more
    await maildrop.close()
  })
})

describe('a session opened with an app password', () => {
  const addCredential = async (): Promise<string> => {
    const row = await database.db.kysely
      .insertInto('credentials')
      .values({
        domain_id: user.domainId,
        user_id: user.userId,
        kind: 'app-password',
        name: 'phone',
        digest: Buffer.alloc(32, 1),
      })
      .returning('credential_id')
      .executeTakeFirstOrThrow()
    return row.credential_id
  }
  const revoke = () =>
    database.db.kysely.deleteFrom('credentials').where('domain_id', '=', user.domainId).execute()
  const expire = (seconds: number) =>
    sql`update credentials set expires_at = now() + make_interval(secs => ${seconds})
      where domain_id = ${user.domainId}`.execute(database.db.kysely)

  test('ends at the next beat when that is revoked; others go on', async () => {
    const session = logIn(one, { credentialId: await addCredential() })
    const maildrop = await opened(session)
    await one.keeper.beat()
    expect(session.ends()).toBe(0)
    await revoke()
    await one.keeper.beat()
    expect(session.ends()).toBe(1)
    await maildrop.close()
    const other = logIn(two)
    const next = await opened(other)
    await two.keeper.beat()
    expect(other.ends()).toBe(0)
    await next.close()
  })

  test('ends at the next beat when that has expired, not sooner', async () => {
    const session = logIn(one, { credentialId: await addCredential() })
    const maildrop = await opened(session)
    await expire(600)
    await one.keeper.beat()
    expect(session.ends()).toBe(0)
    await expire(0)
    await one.keeper.beat()
    expect(session.ends()).toBe(1)
    await maildrop.close()
  })

  test.each([
    ['was revoked', revoke],
    ['has expired', () => expire(0)],
  ])('does not begin if it %s since it was verified', async (_, bar) => {
    const credentialId = await addCredential()
    await bar()
    expect(await logIn(one, { credentialId }).result).toEqual({ kind: 'credential-changed' })
  })
})

describe('LOGIN-DELAY', () => {
  const setLastLogin = (secondsAgo: number) =>
    sql`update last_logins set logged_in_at = now() - make_interval(secs => ${secondsAgo})
      where domain_id = ${user.domainId}`.execute(database.db.kysely)

  test('refuses a login that comes too soon, on any node, and frees the maildrop', async () => {
    await setDomain({ login_delay_seconds: 60 })
    await (await opened(logIn(one))).close()
    expect(await logIn(two).result).toEqual({ kind: 'login-delay' })
    expect(two.keeper.sessionCount).toBe(0)
    await setLastLogin(59)
    expect(await logIn(one).result).toEqual({ kind: 'login-delay' })
    await setLastLogin(60)
    await (await opened(logIn(two))).close()
  })

  test('a refused login does not begin the delay anew', async () => {
    await setDomain({ login_delay_seconds: 60 })
    const holder = await opened(logIn(one))
    await setLastLogin(61)
    expect(await logIn(two).result).toEqual({ kind: 'in-use' })
    await holder.close()
    await (await opened(logIn(two))).close()
  })

  test('a user without one writes nothing', async () => {
    await (await opened(logIn(one))).close()
    await (await opened(logIn(two))).close()
    const rows = await database.db.kysely
      .selectFrom('last_logins')
      .selectAll()
      .where('domain_id', '=', user.domainId)
      .execute()
    expect(rows).toEqual([])
  })
})
