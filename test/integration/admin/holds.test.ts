/**
 * Legal holds through the real program, real POP3 sessions and plain SQL: while one is on, nothing is
 * destroyed, whoever wants it; the client notices nothing.
 */

import { sql } from 'kysely'
import { Client } from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Hold } from '../../../src/admin/operations/holds.ts'
import { expireMessages, purgeTrash, sweepBodies } from '../../../src/storage/retention.ts'
import { guardHeldUsers } from '../../../src/storage/tenants/holds.ts'
import { putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { Holder, waitingFor } from '../storage/fixtures.ts'
import { openProgram, type Program } from './program.ts'
import { type Ids, putSession, sessionCount } from './rows.ts'

const PASSWORD = 'a password under hold'

let database: TestDatabase
let program: Program
let node: TestNode
let client: Client

beforeAll(async () => {
  database = await openTestDatabase()
  program = openProgram({ DATABASE_URL: database.url })
  node = await startTestNode({ url: database.url })
  client = new Client(database.url)
  await client.connect()
})

afterAll(async () => {
  await client?.end()
  await node?.stop()
  program?.close()
  await database?.close()
})

/** A user with messages of these contents. */
async function fill(address: string, ...contents: string[]): Promise<Ids> {
  const ids = await addUser(database.db, address, { password: PASSWORD })
  for (const content of contents) await putMessage(database.db, ids.domainId, [ids.userId], content)
  return ids
}

const popgres = (...args: string[]) => program.run(args)

async function setHold(subject: string): Promise<void> {
  const done = await popgres('hold', 'set', subject, '--reason', 'case 2026-17')
  expect(done).toEqual({ status: 0, stdout: `${subject} is under a legal hold\n`, stderr: '' })
}

async function countIn(table: 'messages' | 'trash', { domainId, userId }: Ids): Promise<number> {
  const rows = await database.db.kysely
    .selectFrom(table)
    .select('uid')
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .execute()
  return rows.length
}

/** All that is there is a year old, the trash is kept for no day, and the background work is done. */
async function letYearPass({ domainId }: Ids): Promise<{ expired: number; purged: number }> {
  const { db } = database
  const year = sql`now() - interval '1 year'`
  await sql`update domains set trash_days = 0, expire_days = 1
    where domain_id = ${domainId}`.execute(db.kysely)
  await sql`update messages set received_at = ${year} where domain_id = ${domainId}`.execute(
    db.kysely,
  )
  await sql`update trash set deleted_at = ${year} where domain_id = ${domainId}`.execute(db.kysely)
  await sql`update bodies set created_at = ${year} where domain_id = ${domainId}`.execute(db.kysely)
  await guardHeldUsers(db, domainId)
  const expired = await expireMessages(db, domainId, 100)
  const purged = await purgeTrash(db, domainId, 100)
  await sweepBodies(db, domainId, 100)
  return { expired, purged }
}

async function countBodies({ domainId }: Ids): Promise<number> {
  const { rows } = await client.query('select from bodies where domain_id = $1', [domainId])
  return rows.length
}

async function login(address: string): Promise<Pop3Client> {
  await node.keeper.beat()
  return await Pop3Client.login(node.address, address, PASSWORD)
}

async function deleteFirst(address: string): Promise<void> {
  const session = await login(address)
  expect(await session.ask('DELE 1')).toMatch(/^\+OK/)
  expect(await session.ask('QUIT')).toMatch(/^\+OK/)
  await session.closed
}

/** @returns the constraint that refused it */
async function refusedBy(text: string, ...values: unknown[]): Promise<string | undefined> {
  const error = await client.query(text, values).then(
    () => undefined,
    (reason: unknown) => reason,
  )
  return (error as { constraint?: string } | undefined)?.constraint
}

const HELD_KEY = 'held_users_domain_id_user_id_fkey'

describe('hold set, list, release', () => {
  test('of users and domains, by their own names', async () => {
    await fill('ada@list.example')
    await setHold('list.example')
    const set = await popgres('hold', 'set', 'ADA@list.example', '--reason', 'a second case')
    expect(set.stdout).toBe('ada@list.example is under a legal hold\n')
    const holds = await program.json<Hold[]>(['hold', 'list', '--domain', 'list.example'])
    expect(holds).toMatchObject([
      { subject: 'list.example', reason: 'case 2026-17' },
      { subject: 'ada@list.example', reason: 'a second case' },
    ])
    expect(new Date(holds[0]?.since ?? 0).getTime()).toBeGreaterThan(Date.now() - 60_000)
    const table = (await popgres('hold', 'list')).stdout
    expect(table).toMatch(/^HELD +SINCE +REASON\n/)
    expect(table).toMatch(/^list\.example +\S+ \S+Z +case 2026-17$/m)

    const again = await popgres('hold', 'set', 'list.example', '--reason', 'x')
    expect(again).toMatchObject({ status: 1, stderr: expect.stringContaining('already') })
    expect(await popgres('hold', 'release', 'list.example')).toEqual({
      status: 0,
      stdout: 'the legal hold on list.example is over\n',
      stderr: '',
    })
    const twice = await popgres('hold', 'release', 'list.example')
    expect(twice).toMatchObject({ status: 1, stderr: expect.stringContaining('hold list') })
    expect(await program.json(['hold', 'list', '--domain', 'list.example'])).toHaveLength(1)
  })

  test.each([
    [['none.example', '--reason', 'x'], 1, 'there is no domain none.example'],
    [['nobody@list.example', '--reason', 'x'], 1, 'there is no user'],
    [['list.example', '--reason', ''], 1, '1 to 500 characters'],
    [['list.example', '--reason', 'two\nlines'], 1, 'one line'],
    [['list.example'], 2, '--reason'],
  ])('%j is refused', async (args, status, words) => {
    const outcome = await popgres('hold', 'set', ...args)
    expect(outcome).toMatchObject({ status, stdout: '' })
    expect(outcome.stderr).toMatch(/^popgres: [^\n]*\n$/)
    expect(outcome.stderr).toContain(words)
  })
})

describe('under a hold', () => {
  test('a client deletes as ever; the message stays in the trash until the hold is over', async () => {
    const ada = await fill('ada@quit.example', 'one\r\n', 'two\r\n', 'three\r\n')
    const bob = await fill('bob@quit.example', 'one\r\n', 'two\r\n')
    await setHold('ada@quit.example')
    for (const address of ['ada@quit.example', 'bob@quit.example']) await deleteFirst(address)
    const session = await login('ada@quit.example')
    expect(await session.ask('STAT')).toBe('+OK 2 12')
    expect(await session.ask('QUIT')).toMatch(/^\+OK/)
    await session.closed

    // Bob next door loses all.
    expect(await letYearPass(ada)).toEqual({ expired: 1, purged: 2 })
    expect([await countIn('messages', ada), await countIn('trash', ada)]).toEqual([2, 1])
    expect([await countIn('messages', bob), await countIn('trash', bob)]).toEqual([0, 0])
    expect(await countBodies(ada)).toBe(3)

    await popgres('hold', 'release', 'ada@quit.example')
    expect(await letYearPass(ada)).toEqual({ expired: 2, purged: 3 })
    expect(await countBodies(ada)).toBe(0)
  })

  test('of a domain nothing of anybody goes, also of who came later', async () => {
    const ada = await fill('ada@all.example', 'one\r\n', 'two\r\n')
    await setHold('all.example')
    const eve = await fill('eve@all.example', 'one\r\n', 'two\r\n')
    for (const address of ['ada@all.example', 'eve@all.example']) await deleteFirst(address)
    expect(await letYearPass(ada)).toEqual({ expired: 0, purged: 0 })
    for (const user of [ada, eve])
      expect([await countIn('messages', user), await countIn('trash', user)]).toEqual([1, 1])
    expect(await countBodies(ada)).toBe(4)
  })

  test('the program refuses to remove and to delete, says why, and has changed nothing', async () => {
    const ada = await fill('ada@cli.example', 'one\r\n')
    const bob = await fill('bob@cli.example', 'one\r\n')
    await setHold('ada@cli.example')
    await putSession(database.db, ada)
    for (const args of [
      ['user', 'remove', 'Ada@cli.example', '--yes'],
      ['domain', 'remove', 'cli.example', '--yes'],
      ['message', 'delete', 'ada@cli.example', '1', '--kick', '--yes'],
    ]) {
      const outcome = await popgres(...args)
      expect(outcome).toMatchObject({ status: 1, stdout: '' })
      expect(outcome.stderr).toMatch(
        /^popgres: ada@cli\.example is under a legal hold since \d{4}-\d\d-\d\d \(case 2026-17\): nothing of it can be removed; "popgres hold release ada@cli\.example" ends the hold\n$/,
      )
    }
    expect([await countIn('messages', ada), await countIn('messages', bob)]).toEqual([1, 1])
    expect(await sessionCount(database.db, ada)).toBe(1)
    // Whoever is not held is removed as ever.
    expect(await popgres('user', 'remove', 'bob@cli.example', '--yes')).toMatchObject({ status: 0 })
    await popgres('hold', 'release', 'ada@cli.example')
    expect(await popgres('domain', 'remove', 'cli.example', '--yes')).toMatchObject({ status: 0 })
  })

  test('SQL is refused too, by the function or by the key', async () => {
    const ada = await fill('ada@sql.example', 'one\r\n')
    await setHold('ada@sql.example')
    const { domainId, userId } = ada
    const ofUser = 'domain_id = $1 and user_id = $2'
    expect(await refusedBy(`delete from users where ${ofUser}`, domainId, userId)).toBe(HELD_KEY)
    expect(await refusedBy("select remove_user('ada@sql.example')")).toBe(HELD_KEY)
    expect(await refusedBy("select remove_domain('sql.example')")).toBe(HELD_KEY)
    expect(await refusedBy("select delete_messages('ada@sql.example', '{1}')")).toBe(HELD_KEY)
    expect(await countIn('messages', ada)).toBe(1)
    expect(await client.query("select release_hold('ada@sql.example') as is_over")).toMatchObject({
      rows: [{ is_over: true }],
    })
    await client.query("select remove_user('ada@sql.example')")
    expect(await countIn('messages', ada)).toBe(0)
  })

  test('of a domain SQL is refused for all, and within minutes for who came later', async () => {
    const ada = await fill('ada@later.example', 'one\r\n')
    await setHold('later.example')
    const eve = await fill('eve@later.example', 'one\r\n')
    const remove = ({ domainId, userId }: Ids) =>
      refusedBy('delete from users where domain_id = $1 and user_id = $2', domainId, userId)
    expect(await remove(ada)).toBe(HELD_KEY)
    expect(await refusedBy("select remove_user('eve@later.example')")).toBe(HELD_KEY)
    await letYearPass(eve)
    expect(await remove(eve)).toBe(HELD_KEY)
    expect(await popgres('user', 'remove', 'eve@later.example', '--yes')).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('later.example is under a legal hold'),
    })
    // An empty one that is held stays as well.
    await addUser(database.db, 'x@empty.example')
    await client.query("select remove_user('x@empty.example')")
    await setHold('empty.example')
    expect(await refusedBy("delete from domains where name = 'empty.example'")).toBe(
      'legal_holds_domain_id_fkey',
    )
    expect(await refusedBy("select remove_domain('empty.example')")).toBe(
      'legal_holds_domain_id_fkey',
    )
  })

  test('two holds are two: releasing one leaves the other', async () => {
    const ada = await fill('ada@two.example', 'one\r\n')
    await setHold('two.example')
    await setHold('ada@two.example')
    await popgres('hold', 'release', 'two.example')
    expect(await refusedBy("select remove_user('ada@two.example')")).toBe(HELD_KEY)
    expect(await letYearPass(ada)).toEqual({ expired: 0, purged: 0 })
    await popgres('hold', 'release', 'ada@two.example')
    expect(await letYearPass(ada)).toEqual({ expired: 1, purged: 1 })
  })
})

test('a hold that is being set is waited for by whoever removes', async () => {
  await fill('ada@race.example', 'one\r\n')
  const [setting, observer] = [await Holder.open(database.url), await Holder.open(database.url)]
  await setting.begin()
  await setting.query("select set_hold('ada@race.example', 'case')")
  const removing = refusedBy("select remove_user('ada@race.example')")
  await waitingFor(observer, setting.pid)
  await setting.commit()
  expect(await removing).toBe(HELD_KEY)
  await Promise.all([setting.close(), observer.close()])
})
