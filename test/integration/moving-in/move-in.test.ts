/**
 * Whole servers from files and tables, by the program: accounts, passwords that are known or not,
 * what is refused, a run that is killed, and that nobody logs in to half a maildrop.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { refused } from '../../../src/admin/refusal.ts'
import { type MoveInReport, moveIn, type OldUser } from '../../../src/admin/transfer/move-in.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addDomain, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { STORED_HASHES } from '../../support/stored-hashes.ts'
import { openProgram, PROGRAM, type Program } from '../admin/program.ts'

const SECRET = Buffer.from('secret')
/** One hash of each scheme, all of the same password. */
const HASHES = STORED_HASHES.filter(({ password }) => password.equals(SECRET)).map(
  ({ stored }) => stored,
)

let database: TestDatabase
let node: TestNode
let program: Program

beforeAll(async () => {
  database = await openTestDatabase()
  node = await startTestNode({ url: database.url })
  program = openProgram({ DATABASE_URL: database.url })
})

afterAll(async () => {
  program?.close()
  await node?.stop()
  await database?.close()
})

beforeEach(() => node.keeper.beat())

const path = (name: string) => join(program.directory, name)

function write(name: string, text: string): string {
  writeFileSync(path(name), text)
  return path(name)
}

/** A Maildir with a list of Dovecot's. */
function writeMaildir(name: string, texts: readonly string[]): void {
  for (const each of ['new', 'cur', 'tmp'])
    mkdirSync(join(path(name), 'Maildir', each), { recursive: true })
  const lines = texts.map((text, index) => {
    writeFileSync(join(path(name), 'Maildir/cur', `${index}.a:2,S`), text)
    return `${index + 1} :${index}.a\n`
  })
  writeFileSync(join(path(name), 'Maildir/dovecot-uidlist'), `3 V9 N9\n${lines.join('')}`)
}

async function move(
  args: readonly string[],
): Promise<{ status: number | null; report: MoveInReport }> {
  const { status, stdout, stderr } = await program.run(['import', ...args, '--json'])
  if (stdout === '') throw new Error(stderr)
  return { status, report: JSON.parse(stdout) }
}

async function uniqueIdsOf(address: string, password: string): Promise<string> {
  const session = await Pop3Client.login(node.address, address, password)
  const { raw } = await session.askMulti('UIDL')
  await session.ask('QUIT')
  return raw.toString()
}

test('Dovecot: whatever scheme a password has, it opens the maildrop; unknown ones are listed', async () => {
  expect(HASHES.length).toBeGreaterThan(10)
  const lines = HASHES.map((hash, at) => `u${at}@hashes.test:${hash}:::::\n`)
  const users = write(
    'passwd',
    `${lines.join('')}x@hashes.test:{ROT13}frperg:::::\ny@hashes.test:*:::::\n`,
  )
  const args = ['dovecot', '--users', users, '--add-domains', '--accounts-only']
  await expect(move([...args, '--only', 'u0@hashes.tset'])).rejects.toThrow(
    "nobody among the old server's users is u0@hashes.tset",
  )
  const { status, report } = await move(args)
  expect(status).toBe(1)
  expect(report.users).toMatchObject({ added: HASHES.length + 2, refused: [] })
  expect(report.users.withoutPassword).toEqual([
    { address: 'x@hashes.test', reason: expect.stringContaining('no known scheme') },
    { address: 'y@hashes.test', reason: 'has neither a password nor a hash' },
  ])
  for (const at of HASHES.keys()) expect(await uniqueIdsOf(`u${at}@hashes.test`, 'secret')).toBe('')
  await expect(uniqueIdsOf('x@hashes.test', 'secret')).rejects.toThrow('-ERR')
})

test('a second run keeps passwords that were set here, and sets what is missing', async () => {
  writeMaildir('a', ['A: 1\n'])
  const first = write('again', `a@again.test:{ROT13}x:::: :\nb@again.test:{PLAIN}secret:::::\n`)
  await move(['dovecot', '--users', first, '--add-domains', '--accounts-only'])
  const second = write(
    'again',
    'a@again.test:{PLAIN}new one:::::\nb@again.test:{PLAIN}other:::::\n',
  )
  const { report } = await move(['dovecot', '--users', second, '--accounts-only'])
  expect(report.users).toMatchObject({ added: 0, present: 2, withoutPassword: [] })
  expect(await uniqueIdsOf('a@again.test', 'new one')).toBe('')
  expect(await uniqueIdsOf('b@again.test', 'secret')).toBe('')
})

test('accounts that cannot be taken are told by line, the others come in', async () => {
  const users = write(
    'refused',
    'a@no-domain.test:{PLAIN}x:::::\nbare:{PLAIN}x:::::\na b@again.test:{PLAIN}x:::::\n' +
      'c@again.test:{PLAIN}x:::::\nC@again.test:{PLAIN}x:::::\n' +
      'd@again.test:{PLAIN}x::::::userdb_quota_rule=*:storage=abc\n../e@again.test:{PLAIN}x:::::\n',
  )
  const { status, report } = await move(['dovecot', '--users', users, '--mail', path('none/%n')])
  expect(status).toBe(1)
  expect(report.users.added).toBe(1)
  const reasons = report.users.refused.map(({ source, reason }) => `${source.slice(-1)} ${reason}`)
  expect(reasons).toMatchObject([
    expect.stringMatching(/^1 there is no domain no-domain.test: .*--add-domains/),
    expect.stringMatching(/^2 "bare" has no domain/),
    expect.stringMatching(/^3 "a b@again.test" is not an address/),
    expect.stringMatching(/^5 the same address is at .* line 4/),
    expect.stringMatching(/^6 "abc" is no quota/),
    expect.stringMatching(/^7 .*another directory/),
  ])
  expect(report.users.unfinished).toMatchObject([
    { reason: expect.stringContaining('is it mounted?') },
  ])
})

test('PostfixAdmin in PostgreSQL: quotas, suspended users, Maildirs, and a dry run that is true', async () => {
  const old = await openTestDatabase(true)
  const client = new pg.Client(old.url)
  await client.connect()
  await client.query(`
    create table domain (domain text primary key, active boolean not null default true);
    create table mailbox (username text primary key, password text not null, name text not null,
      maildir text not null, quota bigint not null default 0, local_part text not null,
      domain text not null references domain, active boolean not null default true);
    create table alias (address text primary key, goto text not null, domain text not null);
    insert into domain values ('pfa.test');
    insert into alias values ('a@pfa.test', 'a@pfa.test', 'pfa.test')`)
  const insert = 'insert into mailbox values ($1, $2, $3, $4, $5, $6, $7, $8)'
  await client.query(insert, ['a@pfa.test', HASHES[0], 'A', 'pfa/', 25, 'a', 'pfa.test', true])
  await client.query(insert, [
    'b@pfa.test',
    '{PLAIN}secret',
    'B',
    'nobody/',
    0,
    'b',
    'pfa.test',
    false,
  ])
  await client.end()
  writeMaildir('pfa', ['A: 1\n\nx\n', 'A: 2\n\nx\n', 'A: 3\n\nx\n'])
  const url = write('pfa.url', old.url)
  const mail = `${program.directory}/%{maildir}Maildir`
  const args = ['postfixadmin', '--database', url, '--mail', mail, '--uidl-format', '%v-%u']
  const pretended = await move([...args, '--add-domains', '--dry-run'])
  const done = await move([...args, '--add-domains'])
  expect(pretended.report).toEqual({ ...done.report, isDryRun: true })
  expect(done.report).toMatchObject({
    domainsAdded: ['pfa.test'],
    users: { added: 2, refused: [] },
  })
  expect(done.report.messages.imported).toBe(2)
  expect(done.report.users.unfinished).toMatchObject([{ address: 'b@pfa.test' }])
  expect(done.report.messages.skipped).toMatchObject([
    { address: 'a@pfa.test', reason: 'the mailbox is full' },
  ])
  expect(await uniqueIdsOf('a@pfa.test', 'secret')).toBe('1 9-1\r\n2 9-2\r\n')
  await expect(uniqueIdsOf('b@pfa.test', 'secret')).rejects.toThrow('-ERR')

  const query = 'select username as user, password from mailbox'
  const again = await move(['dovecot', '--database', url, '--query', query, '--accounts-only'])
  expect(again.report.users).toMatchObject({ added: 0, present: 2, refused: [] })
  const none = await program.run(['import', 'dovecot', '--database', url])
  expect(none.stderr).toBe('popgres: --database needs the --query that finds users\n')
  await old.close()
})

test('a CSV with mbox files and X-UIDL', async () => {
  const from = 'From a@b Thu Nov 13 20:26:07 2025\n'
  mkdirSync(path('mail'))
  write('mail/a', `${from}X-UIDL: one\n\n1\n\n${from}X-UIDL: two/2\n\n2\n`)
  const users = write('users.csv', 'address,password,quota\na@csv.test,secret,1M\n')
  const args = ['csv', '--users', users, '--mail', `mbox:${path('mail')}/%n`, '--uidl', 'x-uidl']
  const { report } = await move([...args, '--add-domains'])
  expect(report.messages).toMatchObject({ imported: 1, skipped: [{ address: 'a@csv.test' }] })
  expect(await uniqueIdsOf('a@csv.test', 'secret')).toBe('1 one\r\n')
  const lenient = await move([...args, '--new-ids'])
  expect(lenient.report.messages).toMatchObject({ imported: 1, alreadyImported: 1, skipped: [] })
  expect(await uniqueIdsOf('a@csv.test', 'secret')).toMatch(/^1 one\r\n2 \d+\.2\r\n$/)
})

test('the column mail counts without --mail, and without both nothing moves', async () => {
  const from = 'From a@b Thu Nov 13 20:26:07 2025\n'
  const mbox = write('column.mbox', `${from}X-UIDL: one\n\n1\n\n`)
  const text = `address,password,mail\na@column.test,secret,mbox:${mbox}\nb@column.test,secret,\n`
  const args = ['csv', '--users', write('column.csv', text), '--uidl', 'x-uidl', '--add-domains']
  const { status, report } = await move(args)
  expect(status).toBe(1)
  expect(report).toMatchObject({ users: { added: 1 }, messages: { imported: 1 } })
  expect(report.users.refused).toMatchObject([
    { address: 'b@column.test', reason: expect.stringContaining('--mail') },
  ])
  expect(await uniqueIdsOf('a@column.test', 'secret')).toBe('1 one\r\n')

  const bare = write('bare.csv', 'address,password\nc@column.test,secret\n')
  for (const kind of ['csv', 'postfixadmin']) {
    const none = await program.run(['import', kind, '--users', bare, '--add-domains'])
    expect(none).toMatchObject({ status: 1, stdout: '' })
    expect(none.stderr).toMatch(/^popgres: where is the mail\? .*--mail .*--accounts-only/)
  }
  const alone = await move(['csv', '--users', bare, '--accounts-only'])
  expect(alone).toMatchObject({ status: 0, report: { users: { added: 1 } } })
})

test('a run that is killed goes on, and nobody logs in before the mail is whole', async () => {
  writeMaildir(
    'killed',
    Array.from({ length: 400 }, (_, index) => `A: ${index % 7}\n\nx\n`),
  )
  const users = write(
    'killed.csv',
    `address,password,mail\na@killed.test,secret,${path('killed')}/Maildir\n`,
  )
  const args = ['import', 'csv', '--users', users, '--mail', 'x', '--add-domains', '--json']
  const child = spawn(process.execPath, [PROGRAM, ...args], {
    cwd: program.directory,
    env: { PATH: process.env.PATH, DATABASE_URL: database.url },
    stdio: 'ignore',
  })
  const ended = once(child, 'exit')
  await untilMessages('a', 20)
  child.kill('SIGKILL')
  await ended
  const before = await countMessages('a')
  expect(before).toBeLessThan(400)
  await expect(uniqueIdsOf('a@killed.test', 'secret')).rejects.toThrow('-ERR')
  const { report } = await move(args.slice(1, -1))
  expect(report).toMatchObject({ users: { added: 0, present: 1 } })
  expect(report.messages).toMatchObject({ imported: 400 - before, alreadyImported: before })
  const ids = (await uniqueIdsOf('a@killed.test', 'secret')).trimEnd().split('\r\n')
  const hex = (value: number) => value.toString(16).padStart(8, '0')
  expect(ids).toEqual(ids.map((_, index) => `${index + 1} ${hex(index + 1)}${hex(9)}`))
  expect(ids).toHaveLength(400)
})

async function countMessages(localPart: string): Promise<number> {
  const rows = await database.db.kysely
    .selectFrom('messages as m')
    .innerJoin('users as u', 'u.user_id', 'm.user_id')
    .innerJoin('domains as d', 'd.domain_id', 'u.domain_id')
    .select('m.uid')
    .where('u.local_part', '=', localPart)
    .where('d.name', '=', 'killed.test')
    .execute()
  return rows.length
}

/** There is no event for a row: it is asked for until the deadline. */
async function untilMessages(localPart: string, count: number): Promise<void> {
  const deadline = performance.now() + 30_000
  while ((await countMessages(localPart)) < count)
    if (performance.now() > deadline) throw new Error('no messages came in')
}

test('a maildrop that cannot be read to its end leaves its user without a password', async () => {
  await addDomain(database.db, 'cut.test')
  async function* messages(isCut: boolean) {
    yield {
      source: 'one',
      sourceOctets: 5,
      receivedAt: undefined,
      async *open() {
        yield Buffer.from('A: 1\n')
      },
    }
    if (isCut) throw refused('the line is gone')
  }
  const options = {
    messageMaxOctets: 1_000,
    isDryRun: false,
    addsDomains: false,
    replacesUniqueIds: false,
  }
  const user = (isCut: boolean): OldUser => ({
    source: 'x',
    address: 'a@cut.test',
    password: 'secret',
    maildrop: { measure: async () => 5, messages: () => messages(isCut) },
  })
  const shares: number[] = []
  const onProgress = (share: number) => shares.push(share)
  const cut = await moveIn(database.db, [user(true)], { ...options, onProgress })
  expect(cut.users.unfinished).toEqual([{ address: 'a@cut.test', reason: 'the line is gone' }])
  expect(cut.messages).toMatchObject({ imported: 1, unseen: 1 })
  expect(shares).toEqual([1, 1])
  await expect(uniqueIdsOf('a@cut.test', 'secret')).rejects.toThrow('-ERR')
  const whole = await moveIn(database.db, [user(false)], options)
  expect(whole).toMatchObject({ users: { unfinished: [] }, messages: { alreadyImported: 1 } })
  expect(await uniqueIdsOf('a@cut.test', 'secret')).toMatch(/^1 /)
})

test('as does a message that could not be read now', async () => {
  const moved = { source: 'x', sourceOctets: 0, refusal: 'moved away', unread: 'message' } as const
  const locked = {
    source: 'y',
    sourceOctets: 5,
    receivedAt: undefined,
    // biome-ignore lint/correctness/useYield: it never comes so far
    async *open(): AsyncGenerator<Buffer> {
      throw Object.assign(new Error('EACCES'), { code: 'EACCES', syscall: 'open' })
    },
  }
  const options = {
    messageMaxOctets: 1_000,
    isDryRun: false,
    addsDomains: true,
    replacesUniqueIds: false,
  }
  async function* messages() {
    yield* [moved, locked]
  }
  const maildrop = { measure: async () => 5, messages }
  const user = { source: 'x', address: 'a@unread.test', password: 'secret', maildrop }
  const report = await moveIn(database.db, [user], options)
  expect(report.users.unfinished).toEqual([
    {
      address: 'a@unread.test',
      reason: '2 of its messages could not be read: run it again',
    },
  ])
  expect(report.messages.skipped).toMatchObject([
    { reason: 'moved away' },
    { reason: 'cannot be read: permission denied' },
  ])
  await expect(uniqueIdsOf('a@unread.test', 'secret')).rejects.toThrow('-ERR')
})

test('without --json the report is for people, with what was refused on standard error', async () => {
  rmSync(path('a'), { recursive: true })
  writeMaildir('a', ['A: 1\n', ''])
  const users = write('people', 'p@again.test:{PLAIN}secret::::/a::\n')
  const args = ['--users', users, '--root', program.directory]
  const { status, stdout, stderr } = await program.run(['import', 'dovecot', ...args])
  expect(status).toBe(1)
  expect(stdout).toBe(
    'users: 1 added, 0 were there already, 0 refused, 0 without a password, 0 not finished\n' +
      'messages: 1 imported, 0 were in already, 1 refused; 0 of all have a new unique-id, as no ' +
      'client has seen them or the source has none\n',
  )
  expect(stderr).toBe(`p@again.test: ${path('a')}/Maildir/cur/1.a:2,S: empty\n`)
})
