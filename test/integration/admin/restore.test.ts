/** `popgres restore` through the real program: from a copy of the database into the living one. */
import { randomBytes, randomUUID } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { sql } from 'kysely'
import { afterEach, beforeEach, expect, inject, test } from 'vitest'
import type { MessageSummary } from '../../../src/admin/operations/messages.ts'
import type { RestoreReport } from '../../../src/admin/transfer/restore.ts'
import { readStored } from '../../support/lmtp.ts'
import { longMessage, putMessage } from '../../support/mail.ts'
import {
  addUser,
  openTestConnection,
  openTestDatabase,
  type TestDatabase,
} from '../../support/postgres.ts'
import { databaseUrl, onServer } from '../../support/postgres-setup.ts'
import { openProgram, type Program } from './program.ts'
import { type Ids, putSession } from './rows.ts'

const ALICE = 'alice@example.test'
const BOB = 'bob@example.test'
const LONG = longMessage(600_000)

let first: TestDatabase
let living: { url: string; db: TestDatabase['db'] }
let backupDb: TestDatabase['db']
let livingName: string
let program: Program
let alice: Ids
let bob: Ids

/** Two users with mail, one message of both; then a copy of it all, which lives on. */
beforeEach(async () => {
  first = await openTestDatabase()
  alice = await addUser(first.db, ALICE, { password: 'one long password' })
  bob = await addUser(first.db, BOB)
  const { domainId } = alice
  await putMessage(first.db, domainId, [alice.userId], 'A: 1\r\n\r\none\r\n')
  await putMessage(first.db, domainId, [alice.userId, bob.userId], LONG)
  await putMessage(first.db, domainId, [alice.userId], 'A: 3\r\n\r\nthree\r\n')
  await first.db.close()
  livingName = `popgres_test_${randomBytes(8).toString('hex')}`
  const serverUrl = inject('serverUrl')
  // PgBouncer, where it is between, keeps its connections, and a template must have none.
  await onServer(
    serverUrl,
    `select pg_terminate_backend(pid, 10_000) from pg_stat_activity
    where datname = '${nameOf(first.url)}'`,
  )
  await onServer(serverUrl, `create database ${livingName} template ${nameOf(first.url)}`)
  const url = databaseUrl(serverUrl, livingName)
  living = { url, db: openTestConnection(url) }
  backupDb = openTestConnection(first.url)
  program = openProgram({ DATABASE_URL: url })
  writeFileSync(join(program.directory, 'backup-url'), `${first.url}\n`)
})

afterEach(async () => {
  program.close()
  await backupDb.close()
  await living.db.close()
  await onServer(inject('serverUrl'), `drop database if exists ${livingName} with (force)`)
  await first.close()
})

const nameOf = (url: string): string => new URL(url).pathname.slice(1)

const restore = (whose: string, ...args: string[]): Promise<RestoreReport> =>
  program.json(['restore', whose, '--from-file', 'backup-url', ...args])

const list = async (address: string): Promise<MessageSummary[]> =>
  program.json(['message', 'list', address])

const stored = async (ids: Ids): Promise<string[]> =>
  (await readStored(living.db, ids)).map(({ body }) => body.toString('latin1'))

async function expectSound(): Promise<void> {
  const { status, stdout } = await program.run(['check'])
  expect(`${status} ${stdout}`).toMatch(/^0 /)
}

test('what was deleted since comes back under the unique-ids that clients know, once', async () => {
  const before = await list(ALICE)
  await program.run(['message', 'delete', ALICE, '1', '2', '--yes'])
  await putMessage(living.db, alice.domainId, [alice.userId], 'A: 4\r\n\r\nfour\r\n')
  expect((await restore(ALICE, '--dry-run')).users[0]?.restored).toBe(2)
  expect((await list(ALICE)).map(({ uid }) => uid)).toEqual([3, 4])
  const user = { address: ALICE, isUserRestored: false, isInUse: false }
  expect((await restore(ALICE)).users).toEqual([{ ...user, restored: 2, alreadyThere: 1 }])
  expect((await list(ALICE)).slice(0, 3)).toEqual(before)
  expect(await stored(alice)).toEqual([
    'A: 1\r\n\r\none\r\n',
    LONG.toString('latin1'),
    'A: 3\r\n\r\nthree\r\n',
    'A: 4\r\n\r\nfour\r\n',
  ])
  expect((await restore(ALICE)).users).toEqual([{ ...user, restored: 0, alreadyThere: 3 }])
  await expectSound()
})

test('a domain that was removed comes back, with its users and passwords', async () => {
  const before = [await list(ALICE), await list(BOB)]
  await program.run(['domain', 'remove', 'example.test', '--yes'])
  const report = await restore('example.test')
  expect(report.isDomainRestored).toBe(true)
  expect(report.users.map(({ isUserRestored, restored }) => [isUserRestored, restored])).toEqual([
    [true, 3],
    [true, 1],
  ])
  expect([await list(ALICE), await list(BOB)]).toEqual(before)
  const hashes = living.db.kysely.selectFrom('users').select('password_hash').orderBy('user_id')
  const [row] = await hashes.execute()
  expect(row?.password_hash).toMatch(/^\$argon2id\$/)
  await expectSound()
})

test('in another database too: the ids that came with it are given to nobody else', async () => {
  await program.run(['domain', 'remove', 'example.test', '--yes'])
  for (const column of ['domains alter column domain_id', 'users alter column user_id'])
    await sql.raw(`alter table ${column} restart`).execute(living.db.kysely)
  expect((await restore('example.test')).isDomainRestored).toBe(true)
  const added = await program.run(['domain', 'add', 'other.test'])
  expect(`${added.status} ${added.stderr}`).toMatch(/^0 /)
  const user = await program.run(['user', 'add', 'carol@example.test', '--generate'])
  expect(`${user.status} ${user.stderr}`).toMatch(/^0 /)
})

test('in a maildrop that was made anew old messages keep their old unique-ids', async () => {
  const before = await list(ALICE)
  await program.run(['user', 'remove', ALICE, '--yes'])
  const again = await addUser(living.db, ALICE)
  await putMessage(living.db, again.domainId, [again.userId], 'A: new\r\n\r\nnew\r\n')
  const [{ restored } = { restored: -1 }] = (await restore(ALICE)).users
  expect(restored).toBe(3)
  const after = await list(ALICE)
  expect(after.map(({ uid }) => uid)).toEqual([1, 2, 3, 4])
  expect(after.slice(1).map(({ uniqueId }) => uniqueId)).toEqual(
    before.map(({ uniqueId }) => uniqueId),
  )
  const [once = { restored: -1 }] = (await restore(ALICE)).users
  expect(once.restored).toBe(0)
  await expectSound()
})

test('of a session that deleted, exactly what it deleted', async () => {
  const sessionId = randomUUID()
  const moved = { session_id: sessionId, deleted_at: new Date() }
  // The backup is of after the session: it has the messages in its trash.
  for (const db of [living.db, backupDb]) {
    const rows = await db.kysely
      .deleteFrom('messages')
      .where('uid', 'in', [1, 3])
      .where('user_id', '=', alice.userId)
      .returningAll()
      .execute()
    await db.kysely
      .insertInto('trash')
      .values(rows.map((row) => ({ ...row, ...moved })))
      .execute()
    await db.kysely
      .updateTable('maildrops')
      .set({ message_count: 1, octets: LONG.length })
      .where('user_id', '=', alice.userId)
      .execute()
  }
  await program.run(['message', 'delete', ALICE, '2', '--yes'])
  const [user] = (await restore(ALICE, '--session', sessionId)).users
  expect(user?.restored).toBe(2)
  expect((await list(ALICE)).map(({ uid }) => uid)).toEqual([1, 3])
  const trash = await living.db.kysely.selectFrom('trash').select('uid').execute()
  expect(trash).toEqual([{ uid: 2 }])
  await expectSound()
})

test('a maildrop that is open is passed over and told', async () => {
  await program.run(['message', 'delete', ALICE, '1', '--yes'])
  await putSession(living.db, alice)
  const { status, stdout } = await program.run(['restore', ALICE, '--from-file', 'backup-url'])
  expect(status).toBe(1)
  expect(stdout).toMatch(/alice@example\.test +0 +\d+ +open in a session: run it again/)
  expect((await list(ALICE)).map(({ uid }) => uid)).toEqual([2, 3])
})

test('refusals name what is wrong', async () => {
  const run = async (...args: string[]): Promise<string> => {
    const { status, stderr } = await program.run(['restore', ...args])
    return `${status} ${stderr}`
  }
  const from = ['--from-file', 'backup-url']
  expect(await run('carol@example.test', ...from)).toBe(
    '1 popgres: the backup has no user carol@example.test\n',
  )
  expect(await run('other.test', ...from)).toBe('1 popgres: the backup has no domain other.test\n')
  expect(await run(ALICE, '--from-file', 'none')).toMatch(/^1 popgres: none cannot be read: there/)
  expect(await run(ALICE, ...from, '--session', '0c6f')).toMatch(
    /^2 popgres: .* is named by its whole id/,
  )
  await backupDb.kysely.deleteFrom('schema_migrations').where('name', '>=', '0010').execute()
  expect(await run(ALICE, ...from)).toMatch(/another version .*run "popgres migrate"/)
})
