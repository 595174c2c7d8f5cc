/**
 * A heartbeat that comes late, from a node that slept or whose database was slow: what docs/model
 * has found. Nobody answers under a lease that was a dead node's for a moment, and a node whose
 * registration lost its answer serves all the same.
 */
import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { pino } from 'pino'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { LeaseKeeper } from '../../../src/mail/maildrop/lease-keeper.ts'
import {
  attemptLease,
  type MaildropContext,
  type MaildropOwner,
  openMaildrop,
} from '../../../src/mail/maildrop/maildrop.ts'
import { ReadAheadBudget } from '../../../src/mail/maildrop/reader.ts'
import { type LoginAccount, selectLoginAccount } from '../../../src/storage/accounts.ts'
import { entitlementOf } from '../../../src/storage/leases.ts'
import { insertNode } from '../../../src/storage/nodes.ts'
import {
  addUser,
  openTestConnection,
  openTestDatabase,
  type TestDatabase,
} from '../../support/postgres.ts'

let database: TestDatabase
let context: MaildropContext
let account: LoginAccount

const owner: MaildropOwner = {
  client: '192.0.2.1',
  credentialId: undefined,
  idleMs: () => 0,
  end: () => {},
}

beforeAll(async () => {
  database = await openTestDatabase()
})
afterAll(() => database.close())

beforeEach(async () => {
  const db = openTestConnection(database.url)
  const log = pino({ level: 'silent' })
  const keeper = new LeaseKeeper({ db, log, hostname: 'pop.example.test', version: '0.1.0' })
  context = { db, log, keeper, budget: new ReadAheadBudget() }
  const domainName = `${randomUUID()}.test`
  await addUser(db, `ada@${domainName}`)
  const found = await selectLoginAccount(db, domainName, 'ada')
  if (found === undefined) throw new Error('the user was added')
  account = found
})

afterEach(async () => {
  vi.restoreAllMocks()
  await context.keeper.stop()
  await context.db.close()
})

/** The clock by which a node trusts itself, as if it had slept; the database's goes on as it is. */
function sleep(ms: number): void {
  const before = performance.now.bind(performance)
  vi.spyOn(performance, 'now').mockImplementation(() => before() + ms)
}

test('a lease that was given under an id that has died meanwhile opens nothing', async () => {
  const { keeper, db } = context
  await keeper.beat()
  const { domainName, localPart } = account
  const question = { domainName, localPart, client: undefined, network: '', throttleKeys: [] }
  const entitlement = entitlementOf(account, undefined)
  const first = await attemptLease(context, entitlement, question, owner.client)
  expect(first.kind).toBe('acquired')
  const diedAs = keeper.nodeId
  await sql`update nodes set heartbeat_at = now() - interval '31 s'
    where node_id = ${diedAs}`.execute(db.kysely)
  await keeper.beat()
  expect(keeper.nodeId).not.toBe(diedAs)
  expect(keeper.isTrusted()).toBe(true)
  await expect(openMaildrop(context, account, owner, first)).rejects.toMatchObject({
    code: 'LEASE_LOST',
  })
})

test('a renewal that is accepted after 25 s ends the sessions, and the id', async () => {
  const { keeper } = context
  await keeper.beat()
  const end = vi.fn()
  const result = await openMaildrop(context, account, { ...owner, end })
  expect(result.kind).toBe('opened')
  const before = keeper.nodeId
  sleep(26_000)
  await keeper.beat()
  expect(end).toHaveBeenCalled()
  expect(keeper.nodeId).not.toBe(before)
  expect(keeper.isTrusted()).toBe(true)
})

test('a registration whose answer was lost is taken up again', async () => {
  const { keeper, db } = context
  await insertNode(db, { nodeId: keeper.nodeId, hostname: 'test', pid: 1, version: '0.1.0' })
  const before = keeper.nodeId
  await keeper.beat()
  expect(keeper.isTrusted()).toBe(true)
  expect(keeper.nodeId).toBe(before)
})

test('a registration whose answer was lost for 30 s is made under another id', async () => {
  const { keeper, db } = context
  await insertNode(db, { nodeId: keeper.nodeId, hostname: 'test', pid: 1, version: '0.1.0' })
  await sql`update nodes set heartbeat_at = now() - interval '31 s'
    where node_id = ${keeper.nodeId}`.execute(db.kysely)
  await keeper.beat()
  expect(keeper.isTrusted()).toBe(false)
  await keeper.beat()
  expect(keeper.isTrusted()).toBe(true)
})

test('while a beat waits for a silent database, sessions end before others may take their leases', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
  try {
    await context.keeper.beat()
    const end = vi.fn()
    const result = await openMaildrop(context, account, { ...owner, end })
    expect(result.kind).toBe('opened')
    vi.advanceTimersByTime(24_000)
    expect(end).not.toHaveBeenCalled()
    vi.advanceTimersByTime(2_000)
    expect(end).toHaveBeenCalled()
  } finally {
    vi.useRealTimers()
  }
})

test('a beat that failed is made again before the next one is due', async () => {
  const { keeper, db } = context
  await keeper.beat()
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  try {
    await sql`alter table nodes rename to nodes_that_are_away`.execute(db.kysely)
    await keeper.beat()
    expect(keeper.isInTouch()).toBe(false)
    await sql`alter table nodes_that_are_away rename to nodes`.execute(db.kysely)
    // Nobody has started the beats: there is no next one. Each look lets 100 ms of timers pass.
    await vi.waitFor(() => expect(keeper.isInTouch()).toBe(true), { timeout: 4_000, interval: 100 })
  } finally {
    vi.useRealTimers()
  }
})

test('a lease that arrives under an id that has died is freed at the next beat', async () => {
  const { keeper, db } = context
  await keeper.beat()
  const diedAs = keeper.nodeId
  await sql`update nodes set heartbeat_at = now() - interval '31 s'
    where node_id = ${diedAs}`.execute(db.kysely)
  await keeper.beat()
  expect(keeper.nodeId).not.toBe(diedAs)
  const { domainId, userId } = account
  // Its connection had fallen silent; what it had sent was carried out when that ended.
  await sql`insert into sessions (domain_id, user_id, session_id, node_id, client, since)
    values (${domainId}, ${userId}, ${randomUUID()}, ${diedAs}, '192.0.2.1', now())`.execute(
    db.kysely,
  )
  await keeper.beat()
  const result = await openMaildrop(context, account, owner)
  expect(result.kind).toBe('opened')
})
