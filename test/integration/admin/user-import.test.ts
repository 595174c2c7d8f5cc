/** Many users from CSV: ten thousand with hashes, and a report by line of what was refused. */
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { hashSync } from 'bcryptjs'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { OldHash } from '../../../src/admin/operations/old-hashes.ts'
import { importUsers, type UserImportReport } from '../../../src/admin/transfer/user-import.ts'
import { addDomain, addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { STORED_HASHES } from '../../support/stored-hashes.ts'
import { type Outcome, openProgram, type Program } from './program.ts'
import { credentialsOf } from './rows.ts'

const BCRYPT = hashSync('secret', 4)
const ARGON2 = `$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2E$${'A'.repeat(43)}`
const USERS = 10_000

let database: TestDatabase
let program: Program

beforeAll(async () => {
  database = await openTestDatabase()
  program = openProgram({ DATABASE_URL: database.url })
  await addDomain(database.db, 'a.example')
})

afterAll(async () => {
  program?.close()
  await database?.close()
})

function importCsv(lines: readonly string[], ...args: string[]): Promise<Outcome> {
  const file = join(program.directory, 'users.csv')
  writeFileSync(file, lines.map((line) => `${line}\r\n`).join(''))
  return program.run(['user', 'import', file, ...args])
}

async function userCount(domainName: string): Promise<number> {
  const row = await database.db.kysely
    .selectFrom('users as u')
    .innerJoin('domains as d', 'd.domain_id', 'u.domain_id')
    .select((e) => e.fn.countAll().as('count'))
    .where('d.name', '=', domainName)
    .executeTakeFirstOrThrow()
  return Number(row.count)
}

test(`${USERS} users with hashes`, async () => {
  const names = Array.from({ length: USERS }, (_, i) => `user${i}@d${i % 3}.example`)
  for (const i of [0, 1, 2]) await addDomain(database.db, `d${i}.example`)
  const lines = ['address,hash,quota', ...names.map((name) => `${name},${BCRYPT},1G`)]
  const began = performance.now()
  expect(await importCsv(lines)).toEqual({
    status: 0,
    stdout: `added ${USERS} users, refused 0 lines\n`,
    stderr: '',
  })
  console.info(`${USERS} users imported in ${Math.round(performance.now() - began)} ms`)
  const counts = await Promise.all([0, 1, 2].map((i) => userCount(`d${i}.example`)))
  expect(counts.reduce((sum, count) => sum + count, 0)).toBe(USERS)

  const again = await importCsv([...lines, `late@d0.example,"${ARGON2}",`], '--json')
  expect(again.stderr).toBe('')
  const report: UserImportReport = JSON.parse(again.stdout)
  expect([again.status, report.added, report.refused.length]).toEqual([1, 1, USERS])
  expect(report.refused[0]).toEqual({
    line: 2,
    address: 'user0@d0.example',
    reason: 'exists already',
  })
})

describe('every line is told for itself', () => {
  const lines = [
    'address,password,hash,quota',
    `ok1@a.example,,${BCRYPT},`,
    `bad..name@a.example,,${BCRYPT},`,
    `x@none.example,,${BCRYPT},`,
    `OK1@A.example,,${BCRYPT},`,
    `taken@a.example,,${BCRYPT},`,
    'md5@a.example,,5f4dcc3b5aa765d61d8327deb882cf99,',
    `cost@a.example,,$2b$13$${'a'.repeat(53)},`,
    `quota@a.example,,${BCRYPT},-5`,
    `both@a.example,secret,${BCRYPT},`,
    'neither@a.example,,,1G',
    `columns@a.example,${BCRYPT}`,
    `quo"te@a.example,,${BCRYPT},`,
    '"ok2@a.example"," a, ""b"" ",,500M',
    'control@a.example,a\tb,,',
    `ok3@a.example,,"${ARGON2}",0`,
    `unquoted@a.example,,${ARGON2},0`,
    `asword1@a.example,${BCRYPT},,`,
    `asword2@a.example,"${ARGON2}",,`,
    'asword3@a.example,{SSHA512}c2FsdA==,,',
    'ok4@a.example,{no} $hash$,,',
  ]
  const reasons: [number, RegExp][] = [
    [3, /before the @/],
    [4, /no domain none\.example/],
    [5, /on line 2/],
    [6, /exists already/],
    [7, /no known scheme: known are argon2id, .*bcrypt, .*ssha512, .*plain/],
    [8, /the bcrypt hash is cut or garbled, or its cost.*: at most .*bcrypt cost 12/],
    [9, /"-5" is no quota/],
    [10, /both a password and a hash/],
    [11, /neither a password nor a hash/],
    [12, /^line 12: has 2 columns instead of 4$/],
    [13, /quote/],
    [15, /control characters/],
    [17, /^line 17: has 6 columns instead of 4[^\n]*argon2id hash needs quotes/],
    [18, /^line 18: asword1@a\.example: the password looks like a hash: [^\n]*column hash/],
    [19, /looks like a hash/],
    [20, /looks like a hash/],
  ]

  const expectRefused = (stderr: string) => {
    const told = stderr.split('\n').filter((line) => line !== '')
    expect(told.map((line) => Number(/^line (\d+): /.exec(line)?.[1]))).toEqual(
      reasons.map(([line]) => line),
    )
    for (const [index, [, why]] of reasons.entries()) expect(told[index]).toMatch(why)
  }

  beforeAll(async () => {
    await addUser(database.db, 'Taken@a.example')
  })

  test('--dry-run tells the same and writes nothing', async () => {
    const { status, stdout, stderr } = await importCsv(lines, '--dry-run')
    expect({ status, stdout }).toEqual({
      status: 1,
      stdout: 'would add 4 users, refused 16 lines\n',
    })
    expectRefused(stderr)
    expect(await userCount('a.example')).toBe(1)
  })

  test('the good ones go in', async () => {
    const { status, stdout, stderr } = await importCsv(lines)
    expect({ status, stdout }).toEqual({ status: 1, stdout: 'added 4 users, refused 16 lines\n' })
    expectRefused(stderr)
    expect(await userCount('a.example')).toBe(5)
    const hash = async (localPart: string) => {
      const row = await database.db.kysely
        .selectFrom('users')
        .select(['domain_id', 'user_id', 'quota_octets'])
        .where('local_part', '=', localPart)
        .executeTakeFirstOrThrow()
      const ids = { domainId: row.domain_id, userId: row.user_id }
      return [(await credentialsOf(database.db, ids)).password_hash, row.quota_octets]
    }
    expect(await hash('ok1')).toEqual([BCRYPT, null])
    expect(await hash('ok2')).toEqual([expect.stringMatching(/^\$argon2id\$/), 524_288_000])
    expect(await hash('ok3')).toEqual([ARGON2, 0])
  })
})

test('hashes of every scheme go in as they are, {PLAIN} hashed; the report has the others', async () => {
  await addDomain(database.db, 'moved.example')
  const stored = STORED_HASHES.filter(({ password }) => password.toString() === 'secret').map(
    (vector) => vector.stored,
  )
  const lines = stored.map((hash, i) => `u${String(i).padStart(2, '0')}@moved.example,"${hash}"`)
  const added = await importCsv(['address,hash', ...lines])
  expect(added).toMatchObject({ status: 0, stderr: '' })
  const rows = await database.db.kysely
    .selectFrom('users')
    .select('password_hash')
    .where(
      'local_part',
      'in',
      stored.map((_, i) => `u${String(i).padStart(2, '0')}`),
    )
    .orderBy('local_part')
    .execute()
  const isPlain = (hash: string): boolean =>
    hash.startsWith('{PLAIN}') || hash.startsWith('{PLAIN.')
  expect(rows.map((row) => row.password_hash)).toEqual(
    stored.map((hash) =>
      isPlain(hash) ? expect.stringMatching(/^\$argon2id\$v=19\$m=19456/) : hash,
    ),
  )

  const list = ['user', 'list', 'moved.example', '--old-hashes']
  const old = await program.json<OldHash[]>(list)
  expect(old.length).toBe(stored.filter((hash) => !isPlain(hash)).length)
  expect(new Set(old.map((row) => row.scheme))).toContain('sha512-crypt')
  expect((await program.run(list)).stdout).toMatch(
    /^ADDRESS +SCHEME\nu00@moved\.example +argon2i\n/,
  )
  const ofAll = await program.json<OldHash[]>(['user', 'list', '--old-hashes'])
  expect(ofAll).toEqual(expect.arrayContaining(old))
  expect(ofAll.length).toBeGreaterThan(old.length)
  const nothing = await program.run(['user', 'list'])
  expect(nothing).toMatchObject({ stdout: '', stderr: expect.stringMatching(/missing.*domain/) })
  expect(nothing.status).not.toBe(0)
})

test('a Dovecot passwd file is refused with the line that makes a CSV of it', async () => {
  await addDomain(database.db, 'dovecot.example')
  const ssha = '{SSHA}XWEplaWTiYDo9fdpumHLSyW+k6NvqTzc'
  const hashes = { a: `{BLF-CRYPT}${BCRYPT}`, b: `{ARGON2ID}${ARGON2}`, c: ssha, d: '{PLAIN}a"b,c' }
  const lines = Object.entries(hashes).map(
    ([name, hash], i) => `${name}@dovecot.example:${hash}${i % 2 ? '' : '::::::quota=1'}\n`,
  )
  writeFileSync(join(program.directory, 'passwd'), lines.join(''))
  const { status, stdout, stderr } = await program.run(['user', 'import', 'passwd'])
  expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
  expect(stderr).toMatch(/^popgres: this looks like a Dovecot passwd file[^\n]+\n$/)
  expect(stderr).not.toMatch(/BLF|\$2/)
  const command = /\(echo .*$/m.exec(stderr)?.[0] ?? 'none told'
  expect((await program.run(['user', 'import', '--help'])).stdout).toContain(`  ${command}\n`)
  execFileSync('sh', ['-c', command], { cwd: program.directory })
  expect(await program.run(['user', 'import', 'users.csv'])).toEqual({
    status: 0,
    stdout: 'added 4 users, refused 0 lines\n',
    stderr: '',
  })
  const old = await program.json<OldHash[]>(['user', 'list', 'dovecot.example', '--old-hashes'])
  expect(old).toContainEqual({ address: 'c@dovecot.example', scheme: 'ssha' })
})

test.each([
  ['a header that names no columns', ['x@a.example,secret'], /names a column/],
  ['an empty file', [], /is empty/],
])('%s is refused in one line', async (_, lines, why) => {
  const { status, stdout, stderr } = await importCsv(lines)
  expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
  expect(stderr).toMatch(/^popgres: [^\n]+\n$/)
  expect(stderr).toMatch(why)
})

test.each([
  ['none.csv', 'there is no such file'],
  ['.', 'it is a directory, not a file'],
])('%s is refused in one plain line', async (file, why) => {
  expect(await program.run(['user', 'import', file])).toEqual({
    status: 1,
    stdout: '',
    stderr: `popgres: cannot read ${file}: ${why}\n`,
  })
})

test('import of messages: a plain line for each file that cannot be; with --json none', async () => {
  const address = 'files@a.example'
  await addUser(database.db, address)
  writeFileSync(join(program.directory, 'host'), 'mail.example\n')
  const args = ['import', address, 'none', '.', 'host']
  expect(await program.run(args)).toEqual({
    status: 1,
    stdout: 'imported 0 messages, 0 were in already, 3 skipped\n',
    stderr:
      'none: there is no such file\n' +
      '.: is a directory without new and cur, so no Maildir\n' +
      'host: does not look like a message: use --format eml to import it anyway\n',
  })
  const { status, stdout, stderr } = await program.run([...args, '--json'])
  expect({ status, stderr }).toEqual({ status: 1, stderr: '' })
  expect(JSON.parse(stdout).skipped.length).toBe(3)
  expect((await program.run(['import', address, 'host', '--format', 'eml'])).status).toBe(0)
})

test('one row that only the database refuses does not take its batch with it', async () => {
  // Added between our question who is taken and our statement: a constraint of this test's own
  // stands for whatever the table may refuse one day and the program does not know yet.
  const { db } = database
  await addDomain(db, 'late.example')
  const rows = async function* () {
    for (let i = 0; i < 9; i += 1)
      yield { line: i, address: `u${i}@late.example`, password: '', hash: BCRYPT, quota: String(i) }
  }
  await db.kysely.schema
    .alterTable('users')
    .dropConstraint('users_quota_octets_not_negative')
    .execute()
  await db.kysely.schema
    .alterTable('users')
    .addCheckConstraint('users_quota_octets_not_negative', sql`quota_octets <> 5`)
    .execute()
  const report = await importUsers(db, rows(), { isDryRun: false })
  expect(report.added).toBe(8)
  expect(report.refused).toEqual([
    { line: 5, address: 'u5@late.example', reason: expect.stringMatching(/quota/) },
  ])
})
