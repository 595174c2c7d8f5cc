/**
 * The connection to PostgreSQL is lost exactly between COMMIT and its answer, or just before the
 * statement arrives. A QUIT is resolved, not guessed: the client reads what is true. A delivery is
 * answered 451, and is there once at most for each attempt.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { loginSoon } from '../../support/login-soon.ts'
import { isPooled } from '../../support/pgbouncer.ts'
import { openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { StatementLoss } from '../../torture/faults/means/statement-loss.ts'
import {
  addOwner,
  deliver,
  logIn,
  type NodeBehindProxy,
  type Owner,
  PASSWORD,
  startBehindProxy,
  uidsIn,
} from './node-behind-proxy.ts'

let database: TestDatabase
let behind: NodeBehindProxy
let loss: StatementLoss
let alice: Owner
let count = 0

beforeAll(async () => {
  database = await openTestDatabase()
  behind = await startBehindProxy(database.url)
})

beforeEach(async () => {
  alice = await addOwner(database, `alice${++count}@lost.test`, 3)
  loss = new StatementLoss(behind.proxy)
  // The node knows by now that its connections were cut, and has others.
  await (await loginSoon(behind.pop3, alice.name, PASSWORD)).ask('QUIT')
})

afterAll(async () => {
  await behind.stop()
  await database.close()
})

async function quitWithTwoMarked(): Promise<string> {
  const session = await logIn(behind.pop3, alice)
  for (const number of [1, 3]) expect(await session.ask(`DELE ${number}`)).toMatch(/^\+OK/)
  return session.ask('QUIT')
}

/** Rows, trash and counters say the same. */
async function expectLeft(left: number[], gone: number[]): Promise<void> {
  expect(await uidsIn(database, 'messages', alice)).toEqual(left)
  expect(await uidsIn(database, 'trash', alice)).toEqual(gone)
  const { message_count } = await database.db.kysely
    .selectFrom('maildrops')
    .select('message_count')
    .where('user_id', '=', alice.userId)
    .executeTakeFirstOrThrow()
  expect(message_count).toBe(left.length)
}

test('QUIT was committed and its answer lost: +OK', async () => {
  const from = behind.node.records.length
  const lost = loss.next('lease-quit', 'after')
  expect(await quitWithTwoMarked()).toMatch(/^\+OK/)
  await lost
  expect((await behind.node.record('the lost QUIT is resolved', from)).result).toBe('committed')
  await expectLeft([2], [1, 3])
})

test('QUIT did not reach the database: -ERR, and nothing is deleted', async () => {
  const from = behind.node.records.length
  const lost = loss.next('lease-quit', 'before')
  expect(await quitWithTwoMarked()).toMatch(/^-ERR \[SYS\/TEMP\]/)
  await lost
  expect((await behind.node.record('the lost QUIT is resolved', from)).result).toBe(
    'nothing-deleted',
  )
  await expectLeft([1, 2, 3], [])
})

// PgBouncer carries nothing out for who has hung up.
test.skipIf(isPooled)('QUIT reaches the database after -ERR was said: it is fenced', async () => {
  const lost = loss.next('lease-quit', 'late')
  expect(await quitWithTwoMarked()).toMatch(/^-ERR \[SYS\/TEMP\]/)
  await lost
  const arrived = loss.next('lease-quit', 'after')
  loss.arrive()
  await arrived
  await expectLeft([1, 2, 3], [])
})

test('QUIT was committed, and the database is away for a while: the client waits for +OK', async () => {
  const { node, proxy } = behind
  const from = node.records.length
  const lost = loss.next('lease-quit', 'after', () => proxy.cut(true))
  const answer = quitWithTwoMarked()
  await lost
  await node.record('QUIT could not be committed', from)
  proxy.heal()
  expect(await answer).toMatch(/^\+OK/)
  await expectLeft([2], [1, 3])
})

describe.each([
  ['deliver', 'a small one'],
  ['deliver-chunked', 'lorem ipsum\r\n'.repeat(60_000)],
])('%s', (statement, text) => {
  test('a delivery was committed and its answer lost: 451, and there once for each attempt', async () => {
    const lost = loss.next(statement, 'after')
    expect(await deliver(behind.lmtp, alice, text)).toMatch(/^451 4\.3\.0 /)
    await lost
    await expectLeft([1, 2, 3, 4], [])
    expect(await deliver(behind.lmtp, alice, text)).toMatch(/^250 /)
    await expectLeft([1, 2, 3, 4, 5], [])
  })

  test('a delivery did not reach the database: 451, and the next attempt is the only one', async () => {
    const lost = loss.next(statement, 'before')
    expect(await deliver(behind.lmtp, alice, text)).toMatch(/^451 4\.3\.0 /)
    await lost
    await expectLeft([1, 2, 3], [])
    expect(await deliver(behind.lmtp, alice, text)).toMatch(/^250 /)
    await expectLeft([1, 2, 3, 4], [])
  })
})
