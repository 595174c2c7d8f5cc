/** From DBMail's tables: messages put together again, unique-ids, order, dates, passwords. */
import { createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { MoveInReport } from '../../../src/admin/transfer/move-in.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { openProgram, type Program } from '../admin/program.ts'
import { DbmailFixture, type Part } from './dbmail-fixture.ts'

let database: TestDatabase
let old: TestDatabase
let node: TestNode
let program: Program
let args: string[]

const header = (depth: number, data: string): Part => ({ depth, isHeader: true, data })
const body = (depth: number, data: string): Part => ({ depth, isHeader: false, data })

const PLAIN = [header(0, 'Subject: 1\n'), body(0, `${'x'.repeat(700_000)}\nend\n`)]
const NESTED = [
  header(0, 'Subject: 2\nContent-Type: multipart/mixed;\n boundary="outer"\n'),
  body(0, 'preface\n'),
  header(1, 'Content-Type: text/plain\n'),
  body(1, 'first'),
  header(1, 'Content-Type: multipart/alternative; boundary=inner\n'),
  header(2, 'Content-Type: text/plain\n'),
  body(2, 'second'),
  header(2, 'Content-Type: text/html\n'),
  body(2, 'third'),
  header(1, 'Content-Type: message/rfc822\n'),
  header(1, 'Subject: inside\nContent-Type: text/plain\n'),
  body(1, 'fourth'),
]
const NESTED_TEXT = [
  'Subject: 2',
  'Content-Type: multipart/mixed;',
  ' boundary="outer"',
  ...['', 'preface', '', '--outer', 'Content-Type: text/plain', '', 'first'],
  ...['--outer', 'Content-Type: multipart/alternative; boundary=inner', '', ''],
  ...['--inner', 'Content-Type: text/plain', '', 'second'],
  ...['--inner', 'Content-Type: text/html', '', 'third', '--inner--', ''],
  ...['--outer', 'Content-Type: message/rfc822', '', 'Subject: inside'],
  ...['Content-Type: text/plain', '', 'fourth', '--outer--', ''],
].join('\r\n')

beforeAll(async () => {
  database = await openTestDatabase()
  old = await openTestDatabase(true)
  const fixture = await DbmailFixture.open(old.url, true)
  const sha512 = createHash('sha512').update('secret').digest('hex')
  const alice = await fixture.addUser('alice', sha512, 'sha512', 'alice@old.test', 900_000)
  await fixture.addMessages(alice, 'INBOX', [
    { uniqueId: 'aaa1', parts: PLAIN, date: '2019-08-07 06:05:04' },
    { uniqueId: 'aaa2', parts: NESTED },
    { uniqueId: 'gone', parts: PLAIN, status: 2 },
    { uniqueId: 'aaa3', parts: ['Subject: 3\n', '\n', 'of version 2\n'] },
    { uniqueId: 'none', parts: [] },
    { uniqueId: 'a/4', parts: [header(0, 'Subject: 4\n')] },
  ])
  await fixture.addMessages(alice, 'Sent', [{ uniqueId: 'sent', parts: PLAIN }])
  await fixture.addUser('bob@old.test', 'whirled', 'whirlpool')
  await fixture.addUser('carol@old.test', 'secret', '')
  await fixture.addUser('__@!internal_delivery_user!@__', '', '')
  await fixture.close()
  node = await startTestNode({ url: database.url })
  // Its times are in UTC, wherever the import runs.
  program = openProgram({ DATABASE_URL: database.url, TZ: 'America/New_York' })
  const file = join(program.directory, 'url')
  writeFileSync(file, `${old.url}\n`)
  args = ['import', 'dbmail', '--database', file, '--add-domains', '--json']
})

afterAll(async () => {
  program?.close()
  await node?.stop()
  await database?.close()
  await old?.close()
})

test('a dry run and the run say the same, and only the run changes something', async () => {
  const pretended = await program.run([...args, '--dry-run'])
  expect(await database.db.kysely.selectFrom('domains').selectAll().execute()).toEqual([])
  const done = await program.run(args)
  expect(done.stderr).toBe('')
  const report = JSON.parse(done.stdout) as MoveInReport
  expect(report.domainsAdded).toEqual(['old.test'])
  expect(report.users).toMatchObject({ added: 3, present: 0, refused: [], unfinished: [] })
  expect(report.users.withoutPassword).toMatchObject([
    { address: 'bob@old.test', reason: expect.stringContaining('no known scheme') },
  ])
  expect(report.messages).toMatchObject({ imported: 3, alreadyImported: 0, unseen: 0 })
  expect(report.messages.skipped).toMatchObject([
    { source: 'dbmail_messages 5', reason: 'physmessage 5 has no parts' },
    { source: 'dbmail_messages 6', reason: expect.stringContaining('"a/4"') },
  ])
  expect(JSON.parse(pretended.stdout)).toEqual({ ...report, isDryRun: true })
  expect([pretended.status, done.status]).toEqual([1, 1])
})

test('messages are whole, in order, with their unique-ids and dates', async () => {
  const session = await Pop3Client.login(node.address, 'alice@old.test', 'secret')
  expect((await session.askMulti('UIDL')).raw.toString()).toBe('1 aaa1\r\n2 aaa2\r\n3 aaa3\r\n')
  const first = await session.retrieve('RETR 1')
  expect(first.toString() === `Subject: 1\r\n\r\n${'x'.repeat(700_000)}\r\nend\r\n`).toBe(true)
  expect((await session.retrieve('RETR 2')).toString()).toBe(NESTED_TEXT)
  expect((await session.retrieve('RETR 3')).toString()).toBe('Subject: 3\r\n\r\nof version 2\r\n')
  await session.ask('QUIT')
  const rows = await database.db.kysely.selectFrom('messages').select('received_at').execute()
  for (const row of rows) expect(row.received_at).toEqual(new Date('2019-08-07T06:05:04Z'))
  const plain = await Pop3Client.login(node.address, 'carol@old.test', 'secret')
  await plain.ask('QUIT')
})

test('a second run takes nothing twice', async () => {
  const report = JSON.parse((await program.run(args)).stdout) as MoveInReport
  expect(report.users).toMatchObject({ added: 0, present: 3 })
  expect(report.messages).toMatchObject({ imported: 0, alreadyImported: 3 })
})

test('a database that is not reached, and one that is no DBMail, are told without the URL', async () => {
  const file = join(program.directory, 'other')
  const at = args.map((each) => (each.endsWith('url') ? file : each))
  writeFileSync(file, 'postgres://someone:s3cret@127.0.0.1:1/x')
  const away = await program.run(at)
  expect(away.stderr).toMatch(/^popgres: the old server's database is not reached: /)
  writeFileSync(file, database.url)
  const wrong = await program.run(at)
  expect(wrong.stderr).toContain('relation "dbmail_users" does not exist')
  expect(away.stderr + wrong.stderr).not.toMatch(/s3cret|postgres:\/\//)
})
