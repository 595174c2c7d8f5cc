/**
 * "Who took my mail?" and its undoing, through the real program and over real POP3 sockets: history
 * names the session, restore brings back exactly what it deleted, erase leaves nothing.
 */
import { execFile, spawnSync } from 'node:child_process'
import { promisify } from 'node:util'
import { sql } from 'kysely'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { History } from '../../../src/admin/operations/history.ts'
import type { UndoReport } from '../../../src/admin/operations/undo.ts'
import { readStored } from '../../support/lmtp.ts'
import { longMessage, putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { openProgram, type Program } from './program.ts'
import type { Ids } from './rows.ts'

const ALICE = 'alice@example.test'
const BOB = 'bob@example.test'
const SHARED = longMessage(600_000)

const POPLIB = `
import poplib, sys
box = poplib.POP3(sys.argv[1], int(sys.argv[2]))
box.user('${ALICE}'); box.pass_('secret')
print(b'\\n'.join(box.uidl()[1]).decode())
print(sum(len(box.retr(n + 1)[1]) for n in range(len(box.list()[1]))))
box.quit()`
const run = promisify(execFile)
const hasPython = spawnSync('python3', ['-c', 'import poplib']).status === 0
const hasCurl = / pop3 /.test(String(spawnSync('curl', ['--version']).stdout))

let database: TestDatabase
let node: TestNode
let program: Program
let alice: Ids
let bob: Ids

beforeEach(async () => {
  database = await openTestDatabase()
  alice = await addUser(database.db, ALICE, { password: 'secret' })
  bob = await addUser(database.db, BOB, { password: 'secret' })
  for (const word of ['one', 'two', 'three']) await put(word)
  await putMessage(database.db, alice.domainId, [alice.userId, bob.userId], SHARED)
  await put('five')
  node = await startTestNode({ url: database.url })
  program = openProgram({ DATABASE_URL: database.url })
})

afterEach(async () => {
  program.close()
  await node.stop()
  await database.close()
})

const put = (word: string) =>
  putMessage(database.db, alice.domainId, [alice.userId], `A: b\r\n\r\n${word}\r\n`)

const login = (user = ALICE) => Pop3Client.login(node.address, user, 'secret')

/** @returns the session's id, as the log has it */
async function session(...commands: string[]): Promise<string> {
  const client = await login()
  for (const command of commands)
    if (command.startsWith('RETR')) await client.retrieve(command)
    else expect(await client.ask(command)).toMatch(/^\+OK/)
  expect(await client.ask('QUIT')).toMatch(/^\+OK/)
  await client.closed
  const row = await database.db.kysely
    .selectFrom('session_log')
    .select('session_id')
    .orderBy('ended_at', 'desc')
    .executeTakeFirst()
  return row?.session_id ?? ''
}

async function uidl(): Promise<string> {
  const client = await login()
  const { raw } = await client.askMulti('UIDL')
  await client.ask('QUIT')
  await client.closed
  return raw.toString()
}

const history = (...args: string[]): Promise<History> =>
  program.json(['message', 'history', ALICE, ...args])
const restore = (...args: string[]): Promise<UndoReport> =>
  program.json(['message', 'restore', ALICE, ...args])

async function expectSound(): Promise<void> {
  const { status, stdout } = await program.run(['check'])
  expect(`${status} ${stdout}`).toMatch(/^0 /)
}

const today = () => new Date().toISOString().slice(0, 10)

describe('history', () => {
  test('of one message names the sessions that fetched and deleted it', async () => {
    const fetching = await session('RETR 1', 'RETR 2')
    const deleting = await session('RETR 2', 'DELE 2', 'DELE 3')
    await session('RETR 3')
    const ids = (await uidl()).match(/\d+\.\d+/g) ?? []
    const [uidValidity] = ids[0]?.split('.') ?? []
    const found = await history('--unique-id', `${uidValidity}.2`)
    expect(found.message).toMatchObject({ uid: 2, uniqueId: `${uidValidity}.2`, place: 'trash' })
    expect(found.sessions).toMatchObject([
      { sessionId: fetching, fetched: 2, deleted: 0, fetchedUids: [[1, 2]], deletedUids: [] },
      { sessionId: deleting, fetched: 1, deleted: 2, fetchedUids: [[2, 2]], deletedUids: [[2, 3]] },
    ])
    const [first] = found.sessions
    expect(first).toMatchObject({
      client: '127.0.0.1',
      credential: 'main password',
      reason: 'quit',
    })
    const { stdout } = await program.run(['message', 'history', ALICE, '--unique-id', '2'])
    expect(stdout).toMatch(/^message 2 \(\d+\.2\) of alice@example.test: received .*, in the trash/)
    expect(stdout).toMatch(
      new RegExp(`^fetched, deleted .* main password +quit +${deleting}$`, 'm'),
    )
    await database.db.kysely.deleteFrom('trash').execute()
    const later = await history('--unique-id', `${uidValidity}.2`)
    expect(later.message).toMatchObject({ uid: 2, place: 'gone' })
    expect(later.sessions).toHaveLength(2)
  })

  test('of a day lists all that took something; of an operator it says so', async () => {
    await session('RETR 1')
    await program.run(['message', 'delete', ALICE, '3', '5', '--yes'])
    const found = await history('--day', today())
    expect(found.message).toBe(undefined)
    expect(found.sessions).toMatchObject([
      { client: '127.0.0.1', fetchedUids: [[1, 1]] },
      {
        client: 'sql',
        deletedUids: [
          [3, 3],
          [5, 5],
        ],
      },
    ])
    expect((await history('--day', '2001-02-03')).sessions).toEqual([])
  })

  test('without a question these are the latest 20 sessions', async () => {
    const { stdout } = await program.run(['message', 'history', ALICE])
    expect(stdout).toBe(`no session of ${ALICE} that has fetched or deleted anything is noted\n`)
    const ids: string[] = []
    for (let i = 0; i < 21; i++) ids.push(await session('RETR 1'))
    const found = await history()
    expect(found.sessions.map(({ sessionId }) => sessionId)).toEqual(ids.slice(1))
    expect(found.hasMore).toBe(true)
    const { stderr } = await program.run(['message', 'history', ALICE])
    expect(stderr).toBe('these are the last 20: there are more before, see --day\n')
  })

  test('of a message that nobody has touched says so', async () => {
    await session('RETR 1')
    const { stdout } = await program.run(['message', 'history', ALICE, '--unique-id', '2'])
    expect(stdout).toMatch(
      /in the maildrop\nnobody has fetched or deleted it, as far back as the log goes\n$/,
    )
  })

  test('of a row of before that was noted takes the messages from the trash', async () => {
    const deleting = await session('DELE 1', 'DELE 2')
    await database.db.kysely
      .updateTable('session_log')
      .set({ deleted_uids: null, client: null, reason: null, began_at: null })
      .execute()
    const [only] = (await history('--unique-id', '2')).sessions
    expect(only).toMatchObject({ sessionId: deleting, deleted: 2, deletedUids: [[1, 2]] })
  })

  test('refusals say what to do', async () => {
    const refusal = async (...args: string[]) => {
      const { status, stderr } = await program.run(['message', 'history', ALICE, ...args])
      return `${status} ${stderr}`
    }
    expect(await refusal('--day', today(), '--unique-id', '2')).toMatch(
      /^1 popgres: say which message or which day/,
    )
    expect(await refusal('--day', 'today')).toMatch(/^2 popgres: .*2026-11-23/)
    expect(await refusal('--unique-id', '4711')).toMatch(
      /^1 popgres: nothing is known of a message 4711/,
    )
  })
})

describe('restore', () => {
  test('brings back exactly what the session deleted, with unique-ids and in order', async () => {
    const before = await uidl()
    const stored = await readStored(database.db, alice)
    const one = await session('DELE 2', 'DELE 4')
    const after = await session('DELE 1', 'DELE 3')
    expect((await restore('--session', one, '--dry-run')).messages.map(({ uid }) => uid)).toEqual([
      2, 4,
    ])
    expect((await uidl()).match(/\d+\.\d+/g)).toHaveLength(1)
    expect(await restore('--session', one)).toMatchObject({ restored: 2, isDryRun: false })
    expect((await uidl()).match(/\.(\d+)/g)).toEqual(['.2', '.3', '.4'])
    expect(await restore('--session', after)).toMatchObject({ restored: 2 })
    expect(await uidl()).toBe(before)
    expect(await readStored(database.db, alice)).toEqual(stored)
    const { status, stderr } = await program.run(['message', 'restore', ALICE, '--session', one])
    expect(`${status} ${stderr}`).toMatch(/^1 popgres: the trash of alice@example.test has nothing/)
    await expectSound()
  })

  test('by time brings back what was deleted between two moments', async () => {
    const before = await uidl()
    await session('DELE 1')
    await session('DELE 1', 'DELE 3')
    const move = (uid: number, when: string) =>
      database.db.kysely
        .updateTable('trash')
        .set({ deleted_at: new Date(when) })
        .where('uid', '=', uid)
        .execute()
    await move(1, '2026-05-01T10:00:00Z')
    await move(2, '2026-05-01T11:00:00Z')
    await move(4, '2026-05-01T12:00:00Z')
    const span = ['--since', '2026-05-01T11:00', '--until', '2026-05-01T12:00']
    expect((await restore(...span)).messages.map(({ uid }) => uid)).toEqual([2])
    expect(await restore('--since', '2026-05-01')).toMatchObject({ restored: 2 })
    expect(await uidl()).toBe(before)
    await expectSound()
  })

  test('waits for no open session and shows it nothing; --kick ends it', async () => {
    const deleting = await session('DELE 1', 'DELE 2')
    const open = await login()
    const listed = (await open.askMulti('UIDL')).raw.toString()
    const refusal = await program.run(['message', 'restore', ALICE, '--session', deleting])
    expect(`${refusal.status} ${refusal.stderr}`).toMatch(/^1 popgres: .*--kick/)
    expect((await open.askMulti('UIDL')).raw.toString()).toBe(listed)
    expect(await restore('--session', deleting, '--kick')).toMatchObject({ restored: 2 })
    expect((await open.askMulti('UIDL')).raw.toString()).toBe(listed)
    await open.ask('DELE 1')
    expect(await open.ask('QUIT')).toMatch(/^-ERR/)
    await open.closed
    expect((await uidl()).match(/\d+\.\d+/g)).toHaveLength(5)
    await expectSound()
  })

  test('among deliveries, logins and deletes loses and doubles nothing', async () => {
    const all = await session('DELE 1', 'DELE 2', 'DELE 3', 'DELE 4', 'DELE 5')
    const deliveries = Promise.all(Array.from({ length: 40 }, (_, nth) => put(`new ${nth}`)))
    const restored = sql<{ count: number }>`
      select restore_messages(${ALICE}, ${all}::uuid) as count`
    const results = await Promise.allSettled([
      restored.execute(database.db.kysely),
      restored.execute(database.db.kysely),
      login().then(async (client) => {
        await client.ask('QUIT')
        await client.closed
      }),
      deliveries,
    ])
    // A login that came first keeps it out: then once more.
    const counts = results.slice(0, 2).map((result) => {
      return result.status === 'fulfilled'
        ? (result.value as { rows: { count: number }[] }).rows[0]?.count
        : 0
    })
    const sum = counts.reduce<number>((total, count) => total + (count ?? 0), 0)
    expect([0, 5]).toContain(sum)
    if (sum === 0) expect(await restore('--session', all)).toMatchObject({ restored: 5 })
    const uids = ((await uidl()).match(/\.(\d+)/g) ?? []).map((id) => Number(id.slice(1)))
    expect(uids).toEqual(Array.from({ length: 45 }, (_, nth) => nth + 1))
    await expectSound()
  })

  test('a message whose place is taken stays in the trash', async () => {
    const deleting = await session('DELE 1', 'DELE 2')
    await sql`insert into messages (domain_id, user_id, uid, octets, body_id)
      select domain_id, user_id, uid, octets, body_id from trash where uid = 1`.execute(
      database.db.kysely,
    )
    await sql`update maildrops set message_count = message_count + 1, octets = octets + (
      select octets from trash where uid = 1) where user_id = ${alice.userId}`.execute(
      database.db.kysely,
    )
    expect(await restore('--session', deleting)).toMatchObject({ restored: 1 })
    await expectSound()
  })

  test.skipIf(!hasPython)('poplib finds what it knew (python3 has no poplib)', async () => {
    const [host = '', port = ''] = node.address.split(':')
    const look = async () => (await run('python3', ['-c', POPLIB, host, port])).stdout
    const before = await look()
    const deleting = await session('DELE 1', 'DELE 4')
    expect(await look()).not.toBe(before)
    await restore('--session', deleting)
    expect(await look()).toBe(before)
  })

  test.skipIf(!hasCurl)('curl finds what it knew (there is no curl with pop3)', async () => {
    const url = `pop3://${node.address}/`
    const curl = async (...args: string[]) =>
      (await run('curl', ['-sS', '-u', `${ALICE}:secret`, ...args])).stdout
    const look = async () => [await curl(url, '-X', 'UIDL'), await curl(`${url}2`)]
    const before = await look()
    const deleting = await session('DELE 2', 'DELE 3')
    expect(await look()).not.toEqual(before)
    await restore('--session', deleting)
    expect(await look()).toEqual(before)
  })
})

describe('erase', () => {
  const count = async (table: 'messages' | 'trash' | 'bodies' | 'session_log' | 'body_chunks') =>
    (await database.db.kysely.selectFrom(table).select('domain_id').execute()).length

  test('of a user leaves nothing but what others have received too', async () => {
    await session('RETR 1', 'DELE 1', 'DELE 4')
    const { status, stdout } = await program.run(['erase', ALICE, '--yes'])
    expect(`${status} ${stdout}`).toBe(`0 erased ${ALICE} with 3 messages and 2 in the trash\n`)
    expect(await count('bodies')).toBe(1)
    expect([await count('messages'), await count('trash'), await count('session_log')]).toEqual([
      1, 0, 0,
    ])
    const client = await login(BOB)
    expect((await client.retrieve('RETR 1')).length).toBeGreaterThan(600_000)
    await client.ask('QUIT')
    await expectSound()
  })

  test('of messages: from maildrop and trash, bodies too, and not from an open session', async () => {
    await session('DELE 4')
    const open = await login()
    const args = ['message', 'erase', ALICE, '2', '4', '99', '--yes']
    expect((await program.run(args)).stderr).toMatch(/--kick/)
    await open.ask('QUIT')
    await open.closed
    const { status, stdout, stderr } = await program.run(args)
    expect(`${status} ${stdout}${stderr}`).toBe(`1 erased 2 messages of ${ALICE}\nnot there: 99\n`)
    expect(await count('trash')).toBe(0)
    expect(await count('bodies')).toBe(4)
    expect((await uidl()).match(/\.(\d+)/g)).toEqual(['.1', '.3', '.5'])
    const [{ message } = { message: undefined }] = [await history('--unique-id', '2')]
    expect(message).toMatchObject({ uid: 2, place: 'gone' })
    await expectSound()
  })

  test('is refused with the reason of the hold, as user remove is', async () => {
    await program.run(['hold', 'set', ALICE, '--reason', 'case 2026-17'])
    for (const args of [
      ['erase', ALICE, '--yes'],
      ['message', 'erase', ALICE, '1', '--yes'],
      ['user', 'remove', ALICE, '--yes'],
    ]) {
      const { status, stderr } = await program.run(args)
      expect(`${status} ${stderr}`).toMatch(
        /^1 popgres: alice@example.test is under a legal hold since [-\d]+ \(case 2026-17\): /,
      )
    }
    expect(await count('messages')).toBe(6)
  })

  test('a number that is one message’s UID and another’s unique-id names neither', async () => {
    for (const [uid, uniqueId] of Object.entries({ 1: '3', 2: '2', 3: '1', 4: 'uid:5' }))
      await database.db.kysely
        .updateTable('messages')
        .set({ unique_id: uniqueId })
        .where('user_id', '=', alice.userId)
        .where('uid', '=', Number(uid))
        .execute()
    await database.db.kysely.updateTable('maildrops').set({ has_unique_ids: true }).execute()
    const before = await uidl()
    for (const args of [
      ['erase', ALICE, '3', '--yes'],
      ['delete', ALICE, '2', '3', '--yes'],
    ]) {
      const { status, stderr } = await program.run(['message', ...args])
      expect(`${status} ${stderr}`).toMatch(/^1 .*unique-id of another: write uid:3 or id:3/)
    }
    for (const args of [
      ['show', ALICE, '1'],
      ['history', ALICE, '--unique-id', '1'],
    ])
      expect((await program.run(['message', ...args])).stderr).toMatch(/write uid:1 or id:1/)
    expect(await uidl()).toBe(before)
    expect((await history('--unique-id', 'id:3')).message).toMatchObject({ uid: 1 })
    expect((await history('--unique-id', '2')).message).toMatchObject({ uid: 2 })
    expect((await history('--unique-id', 'uid:5')).message).toMatchObject({ uid: 5 })
    expect((await history('--unique-id', 'id:uid:5')).message).toMatchObject({ uid: 4 })
    const shown = await program.run(['message', 'show', ALICE, 'uid:3'])
    expect(shown.stdout).toContain('three')
    const erased = await program.run(['message', 'erase', ALICE, 'id:3', '--yes'])
    expect(erased.stdout).toMatch(/^erased 1 /)
    expect((await uidl()).split('\r\n').slice(0, 2)).toEqual(['1 2', '2 1'])
    // UID 1 is gone, and was another message's.
    const gone = await program.run(['message', 'delete', ALICE, '1', '--yes'])
    expect(gone.stderr).toMatch(/write uid:1 or id:1/)
    await expectSound()
  })

  test('is refused where the database says that mail is held', async () => {
    await sql`create or replace function refuse_if_held(for_domain integer,
        for_user bigint default null) returns void language plpgsql as $$
      begin
        raise exception 'under a legal hold' using errcode = 'restrict_violation';
      end $$`.execute(database.db.kysely)
    for (const args of [
      ['erase', ALICE, '--yes'],
      ['message', 'erase', ALICE, '1', '--yes'],
    ])
      expect((await program.run(args)).stderr).toMatch(/under a legal hold/)
    expect(await count('messages')).toBe(6)
  })
})
