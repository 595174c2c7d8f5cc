/** A domain that migrates: what an operator says, sees, and is refused. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { OldServerStub } from '../../support/old-server.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { openProgram, type Program } from './program.ts'

let database: TestDatabase
let program: Program
let old: OldServerStub

beforeAll(async () => {
  database = await openTestDatabase()
  await addUser(database.db, 'here@one.test', { password: 'Right-Horse-77' })
  old = await OldServerStub.start({
    users: { bob: { password: 'Old 77', messages: [{ uniqueId: 'a1', text: 'A: b\r\n\r\n' }] } },
  })
  program = openProgram({ DATABASE_URL: database.url })
})
afterAll(async () => {
  program?.close()
  await old?.stop()
  await database?.close()
})

const migrate = (...args: string[]) => program.run(['domain', 'migrate', 'one.test', ...args])
const from = (): string => `pop3://127.0.0.1:${old.port}`

test('passwords do not go in the clear unless that is said', async () => {
  const { status, stderr } = await migrate('--from', from())
  expect(stderr).toContain('passwords would go in the clear')
  expect(status).toBe(1)
  expect((await migrate('--from', 'pop3s://u:p@old.test')).stderr).toContain('is not pop3s://host')
  expect((await migrate('--from', 'pop3s://old.test', '--stls')).stderr).toContain('drop --stls')
  expect((await migrate()).stderr).toContain('does not migrate')
})

test('an old server that is away is told before anything is set', async () => {
  const { status, stderr } = await migrate('--from', 'pop3://127.0.0.1:1', '--plain')
  expect(stderr).toMatch(/the POP3 server pop3:\/\/127\.0\.0\.1:1: .*ECONNREFUSED/)
  expect(status).toBe(1)
  expect(await database.db.kysely.selectFrom('old_servers').selectAll().execute()).toEqual([])
})

test('begins, shows, expects, lists, and ends', async () => {
  const begun = await migrate('--from', from(), '--plain', '--user-format', 'local', '--no-users')
  expect(begun.stderr).toBe('')
  expect(begun.stdout).toMatch(/users:? +1 user moved, 0 known here who have not yet/)
  const file = join(program.directory, 'addresses')
  writeFileSync(file, 'alice@one.test\r\nbob\n\n')
  expect((await migrate('--expect', file)).stdout).toBe('made 2 users without a password\n')
  expect((await migrate('--expect', file)).stdout).toBe('made 0 users without a password\n')
  writeFileSync(file, 'carol\neve@two.test\n')
  expect((await migrate('--expect', file)).stderr).toContain('is not of one.test')
  expect((await migrate('--waiting')).stdout).toBe('alice@one.test\nbob@one.test\n')
  expect((await program.run(['domain', 'show', 'one.test'])).stdout).toContain(
    `from ${from()}: 1 user moved, 2 known here who have not yet`,
  )
  expect(await program.json(['domain', 'migrate', 'one.test'])).toMatchObject({
    ...{ domain: 'one.test', from: from(), security: 'none', userFormat: 'local' },
    ...{ makesUsers: false, connectionsMax: 20, moved: 1, waiting: 2 },
  })
  const early = await migrate('--done')
  expect(early.stderr).toContain('users of one.test who have not moved yet: 2 ')
  expect(early.status).toBe(1)
  expect((await migrate('--done', '--yes')).stdout).toContain('one.test migrates no more')
  expect((await migrate()).stderr).toContain('does not migrate')
})

test('a maildrop is imported by its password, which is never an argument', async () => {
  const args = ['import', 'pop3', 'here@one.test', from(), '--plain', '--remote-user', 'bob']
  expect((await program.run(args)).stderr).toContain('--password-file or --password-stdin')
  const wrong = await program.run([...args, '--password-stdin'], 'wrong\n')
  expect(wrong.stderr).toContain('does not let bob in: -ERR [AUTH]')
  expect(wrong.status).toBe(1)
  const right = await program.run([...args, '--password-stdin', '--json'], 'Old 77\n')
  expect(JSON.parse(right.stdout)).toMatchObject({ imported: 1, alreadyImported: 0, skipped: [] })
})
