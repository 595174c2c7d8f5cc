/**
 * PostfixAdmin's aliases and domain aliases, from its database and from files: what comes in, that mail
 * goes where it went, and that whatever is left out is told.
 */
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { MoveInReport } from '../../../src/admin/transfer/move-in.ts'
import { lookUpRecipient } from '../../../src/mail/delivery/recipients.ts'
import { openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { openProgram, type Program } from '../admin/program.ts'

let database: TestDatabase
let program: Program

beforeAll(async () => {
  database = await openTestDatabase()
  program = openProgram({ DATABASE_URL: database.url })
})

afterAll(async () => {
  program?.close()
  await database?.close()
})

function write(name: string, text: string): string {
  const path = join(program.directory, name)
  writeFileSync(path, text)
  return path
}

async function move(...args: string[]): Promise<MoveInReport> {
  const done = await program.run(['import', ...args, '--accounts-only', '--json'])
  if (done.stdout === '') throw new Error(done.stderr)
  return JSON.parse(done.stdout)
}

/** Whom RCPT names. */
async function recipientsOf(address: string): Promise<string[]> {
  const found = await lookUpRecipient(database.db, address)
  if (found.kind !== 'known') return []
  return found.recipients.map(({ localPart, domainName }) => `${localPart}@${domainName}`).sort()
}

/** [address, goto, active] */
const ALIASES: readonly (readonly [string, string, boolean])[] = [
  ['a@pfa.test', 'a@pfa.test', true],
  ['b@pfa.test', 'b@pfa.test,friend@gmail.example', true],
  ['c@two.test', 'c@two.test', false],
  ['sales@pfa.test', 'A@pfa.test, b@pfa.test,c@two.test,boss@gmail.example,a@pfa.test', true],
  ['all@pfa.test', 'sales@pfa.test,nobody@pfa.test,all@pfa.test', true],
  ['by-domain@pfa.test', 'a@old.test', true],
  ['@two.test', 'sales@pfa.test', true],
  ['@pfa.test', '@pfa.test', true],
  ['round@pfa.test', 'about@pfa.test', true],
  ['about@pfa.test', 'round@pfa.test', true],
  ['off@pfa.test', 'a@pfa.test', false],
  ['program@pfa.test', '"|/usr/bin/vacation a b"', true],
  ['away@pfa.test', 'a#pfa.test@autoreply.pfa.test', true],
  ['only-alias@third.test', 'a@pfa.test', true],
  ['gone@fourth.test', 'x@gmail.example', true],
  ['@ancient.test', '@pfa.test', true],
  ['x@old.test', 'a@pfa.test', true],
]
/** [alias_domain, target_domain, active] */
const DOMAINS: readonly (readonly [string, string, boolean])[] = [
  ['old.test', 'pfa.test', true],
  ['older.test', 'old.test', true],
  ['off-domain.test', 'pfa.test', false],
  ['two.test', 'elsewhere.test', true],
]

async function makePostfixAdmin(url: string): Promise<void> {
  const client = new pg.Client(url)
  await client.connect()
  await client.query(`
    create table mailbox (username text primary key, password text not null, maildir text not null,
      quota bigint not null default 0, domain text not null, active boolean not null default true);
    create table alias (address text primary key, goto text not null, domain text not null,
      created timestamptz default now(), modified timestamptz default now(), active boolean);
    create table alias_domain (alias_domain text primary key, target_domain text not null,
      created timestamptz default now(), modified timestamptz default now(), active boolean)`)
  for (const user of ['a@pfa.test', 'b@pfa.test', 'c@two.test'])
    await client.query('insert into mailbox values ($1, $2, $1, 0, $3)', [
      user,
      '{PLAIN}secret',
      user.slice(2),
    ])
  for (const row of ALIASES)
    await client.query('insert into alias values ($1, $2, $4, now(), now(), $3)', [
      ...row,
      row[0].split('@')[1],
    ])
  for (const row of DOMAINS)
    await client.query('insert into alias_domain values ($1, $2, now(), now(), $3)', [...row])
  await client.end()
}

/** As the report has them, without their places. */
const told = ({ refused }: MoveInReport['aliases']) =>
  Object.fromEntries(refused.map(({ name, target, reason }) => [`${name} to ${target}`, reason]))

test('PostfixAdmin in PostgreSQL: aliases come to users, what does not is told; again: nothing', async () => {
  const old = await openTestDatabase(true)
  await makePostfixAdmin(old.url)
  const args = ['postfixadmin', '--database', write('db.url', old.url)]
  const pretended = await move(...args, '--add-domains', '--dry-run')
  expect(await recipientsOf('sales@pfa.test')).toEqual([])
  const done = await move(...args, '--add-domains')
  expect(pretended).toEqual({ ...done, isDryRun: true })

  expect(done.domainsAdded.sort()).toEqual(
    ['pfa.test', 'two.test', 'old.test', 'ancient.test', 'third.test'].sort(),
  )
  expect(done.domainAliases).toMatchObject({ added: 2, present: 0 })
  expect(told(done.domainAliases)).toEqual({
    'older.test to old.test': 'old.test stands for pfa.test: name that one',
    'off-domain.test to pfa.test': 'is switched off there',
    'two.test to elsewhere.test': 'there is no domain elsewhere.test here',
  })
  expect(done.aliases).toMatchObject({ added: 5, present: 0 })
  const abroad = 'gmail.example is not of this server, and mail is not sent on'
  const round = 'leads back to itself, and is no user'
  expect(told(done.aliases)).toEqual({
    'b@pfa.test to friend@gmail.example':
      'the address is a user here, who keeps the mail: a copy goes nowhere else',
    'sales@pfa.test to boss@gmail.example': abroad,
    'all@pfa.test to boss@gmail.example': abroad,
    'all@pfa.test to nobody@pfa.test': 'there is no user with the address nobody@pfa.test',
    '@two.test to boss@gmail.example': abroad,
    'round@pfa.test to about@pfa.test': round,
    'about@pfa.test to round@pfa.test': round,
    'off@pfa.test to a@pfa.test': 'is switched off there',
    'program@pfa.test to "|/usr/bin/vacation a b"': expect.stringContaining('has no domain'),
    'away@pfa.test to a#pfa.test@autoreply.pfa.test':
      'autoreply.pfa.test is not of this server, and mail is not sent on',
    'gone@fourth.test to x@gmail.example': abroad,
    'x@old.test to a@pfa.test': 'old.test stands for pfa.test: name the address there',
  })

  const all = ['a@pfa.test', 'b@pfa.test', 'c@two.test']
  expect(await recipientsOf('sales@pfa.test')).toEqual(all)
  expect(await recipientsOf('all@pfa.test')).toEqual(all)
  expect(await recipientsOf('whoever@two.test')).toEqual(all)
  expect(await recipientsOf('c@two.test')).toEqual(['c@two.test'])
  expect(await recipientsOf('sales@old.test')).toEqual(all)
  expect(await recipientsOf('b@ancient.test')).toEqual(['b@pfa.test'])
  expect(await recipientsOf('by-domain@pfa.test')).toEqual(['a@pfa.test'])
  expect(await recipientsOf('only-alias@third.test')).toEqual(['a@pfa.test'])
  expect(await recipientsOf('round@pfa.test')).toEqual([])

  const again = await move(...args)
  expect(again).toMatchObject({
    domainsAdded: [],
    users: { added: 0, present: 3 },
    aliases: { added: 0, present: 5, refused: done.aliases.refused },
    domainAliases: { added: 0, present: 2, refused: done.domainAliases.refused },
  })
  await old.close()
})

const tsv = (names: string, rows: readonly (readonly unknown[])[]): string =>
  [names.split(' '), ...rows].map((row) => `${row.join('\t')}\n`).join('')

test('as mysql prints the tables; --only takes what it names', async () => {
  const users = write(
    'mailbox.tsv',
    tsv('username password domain active', [
      ['a@my.test', '{PLAIN}x', 'my.test', 1],
      ['b@other.test', '{PLAIN}x', 'other.test', 1],
    ]),
  )
  const aliases = write(
    'alias.tsv',
    tsv('address goto domain active', [
      ['a@my.test', 'a@my.test', 'my.test', 1],
      ['info@my.test', 'all@other.test', 'my.test', 1],
      ['all@other.test', 'b@other.test,a@my.test', 'other.test', 1],
      ['broken@my.test'],
    ]),
  )
  const domains = write(
    'alias_domain.tsv',
    tsv('alias_domain target_domain active', [['mine.test', 'my.test', 1]]),
  )
  const args = ['postfixadmin', '--users', users, '--aliases', aliases]
  const first = await move(
    ...args,
    '--domain-aliases',
    domains,
    '--add-domains',
    '--only',
    'my.test',
  )
  expect(first.aliases).toEqual({
    added: 1,
    present: 0,
    refused: [
      {
        ...{ source: `${aliases} line 3`, name: 'info@my.test', target: 'b@other.test' },
        reason: 'other.test is not of this server, and mail is not sent on',
      },
      { source: `${aliases} line 5`, name: '', target: '', reason: 'has 1 columns instead of 4' },
    ],
  })
  expect(first.domainAliases).toMatchObject({ added: 0, refused: [] })
  expect(await recipientsOf('info@my.test')).toEqual(['a@my.test'])

  const rest = await move(...args, '--domain-aliases', domains, '--add-domains')
  expect(rest.aliases).toMatchObject({ added: 2, present: 0 })
  expect(rest.domainAliases).toMatchObject({ added: 1, refused: [] })
  expect(await recipientsOf('info@mine.test')).toEqual(['a@my.test', 'b@other.test'])
})

test('lists of one’s own, a report for people, and a file that is not such a list', async () => {
  const users = write('users.csv', 'address,password\na@own.test,secret\n')
  const aliases = write('aliases.csv', 'alias,targets\nx@own.test,"a@own.test,b@own.test"\n')
  const args = ['import', 'csv', '--users', users, '--accounts-only', '--add-domains']
  const { status, stdout, stderr } = await program.run([...args, '--aliases', aliases])
  expect(status).toBe(1)
  expect(stdout).toContain('\naliases: 1 added, 0 were there already, 1 target refused\n')
  expect(stderr).toBe(
    `${aliases} line 2: x@own.test to b@own.test: there is no user with the address b@own.test\n`,
  )
  const wrong = await program.run([...args, '--aliases', users])
  expect(wrong.stderr).toBe(
    `popgres: ${users} line 1 has no column of targets: one of goto, targets\n`,
  )
  rmSync(aliases)
  const missing = await program.run([...args, '--aliases', aliases])
  expect(missing.stderr).toBe(`popgres: cannot read ${aliases}: there is no such file\n`)
  const twice = ['--database', users, '--aliases', aliases]
  const both = await program.run(['import', 'postfixadmin', ...twice])
  expect(both.stderr).toBe('popgres: a file and --database are both given: keep one\n')
})
