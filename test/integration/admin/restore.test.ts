/** `popgres restore` through the real program: from a copy of the database into the living one. */
import { randomUUID } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { sql } from 'kysely'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { putMessage } from '../../support/mail.ts'
import { addUser } from '../../support/postgres.ts'
import { ALICE, type BackupPair, BOB, LONG, moveToTrash, openBackupPair } from './backup-pair.ts'
import type { Program } from './program.ts'
import { type Ids, putSession } from './rows.ts'

let pair: BackupPair
let living: BackupPair['living']
let backupDb: BackupPair['backup']['db']
let program: Program
let alice: Ids

beforeEach(async () => {
  pair = await openBackupPair()
  ;({ living, program, alice } = pair)
  backupDb = pair.backup.db
})

afterEach(() => pair.close())

const restore: BackupPair['restore'] = (...args) => pair.restore(...args)
const list: BackupPair['list'] = (address) => pair.list(address)

test('what was deleted since comes back under the unique-ids that clients know, once', async () => {
  const before = await list(ALICE)
  await program.run(['message', 'delete', ALICE, '1', '2', '--yes'])
  await putMessage(living.db, alice.domainId, [alice.userId], 'A: 4\r\n\r\nfour\r\n')
  expect((await restore(ALICE, '--dry-run')).users[0]?.restored).toBe(2)
  expect((await list(ALICE)).map(({ uid }) => uid)).toEqual([3, 4])
  const user = { address: ALICE, isUserRestored: false, renumbered: 0, isInUse: false }
  expect((await restore(ALICE)).users).toEqual([{ ...user, restored: 2, alreadyThere: 1 }])
  expect((await list(ALICE)).slice(0, 3)).toEqual(before)
  expect(await pair.stored(alice)).toEqual([
    'A: 1\r\n\r\none\r\n',
    LONG.toString('latin1'),
    'A: 3\r\n\r\nthree\r\n',
    'A: 4\r\n\r\nfour\r\n',
  ])
  expect((await restore(ALICE)).users).toEqual([{ ...user, restored: 0, alreadyThere: 3 }])
  await pair.expectSound()
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
  await pair.expectSound()
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
  await pair.expectSound()
})

test('of a session that deleted, exactly what it deleted', async () => {
  const sessionId = randomUUID()
  // The backup is of after the session: it has the messages in its trash.
  for (const db of [living.db, backupDb]) await moveToTrash(db, alice, [1, 3], sessionId)
  await program.run(['message', 'delete', ALICE, '2', '--yes'])
  const [user] = (await restore(ALICE, '--session', sessionId)).users
  expect(user?.restored).toBe(2)
  expect((await list(ALICE)).map(({ uid }) => uid)).toEqual([1, 3])
  const trash = await living.db.kysely.selectFrom('trash').select('uid').execute()
  expect(trash).toEqual([{ uid: 2 }])
  await pair.expectSound()
})

test('a maildrop that is open is passed over and told', async () => {
  await program.run(['message', 'delete', ALICE, '1', '--yes'])
  await putSession(living.db, alice)
  const { status, stdout } = await program.run(['restore', ALICE, '--from-file', 'backup-url'])
  expect(status).toBe(1)
  expect(stdout).toMatch(/alice@example\.test +0 +\d+ +open in a session: run it again/)
  expect((await list(ALICE)).map(({ uid }) => uid)).toEqual([2, 3])
})

test.each([
  ['another password', (url: URL) => Object.assign(url, { password: 'hunter2' }), 'user, password'],
  [
    'another database',
    (url: URL) => Object.assign(url, { pathname: '/nowhere' }),
    'user, password',
  ],
  ['nobody there', (url: URL) => Object.assign(url, { port: '1' }), 'does the backup run'],
  ['no URL at all', () => 'nothing of the kind', 'a postgres:// URL'],
])('a wrong URL of the backup is told of its file: %s', async (_, change, words) => {
  const url = new URL(readFileSync(join(program.directory, 'backup-url'), 'utf8').trim())
  writeFileSync(join(program.directory, 'wrong-url'), `${change(url)}\n`)
  const { status, stderr } = await program.run(['restore', ALICE, '--from-file', 'wrong-url'])
  expect(`${status} ${stderr}`).toMatch(/^1 popgres: [^\n]*wrong-url[^\n]*\n$/)
  expect(stderr).toContain(words)
  expect(stderr).not.toMatch(/DATABASE_URL|hunter2/)
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
    /^2 popgres: .* is named by its id, the first 8 digits at least/,
  )
  await backupDb.kysely.deleteFrom('schema_migrations').where('name', '>=', '0010').execute()
  expect(await run(ALICE, ...from)).toMatch(/another version .*run "popgres migrate"/)
})
