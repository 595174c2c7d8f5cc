/**
 * A rolling upgrade: a node of an earlier commit beside one of today on one database, which is migrated
 * while the old one serves. Migrations are expand-then-contract as long as this passes. Besides those
 * that are new since then there are some that expand every table, as later ones may: prepared
 * statements and functions of the old node live through it.
 */
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sql } from 'kysely'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { LineClient } from '../support/line-client.ts'
import { NodeProcess } from '../support/node-process.ts'
import {
  buildCommit,
  type Commit,
  commitBeforeMigrations,
  copyThis,
  listCommits,
  previousCommit,
} from '../support/old-program.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import { openTestDatabase, type TestDatabase } from '../support/postgres.ts'
import { SERVING_ROLE, servingUrl } from '../support/postgres-setup.ts'

const USER = 'alice@versions.test'
const OTHER = 'bob@versions.test'
const PASSWORD = 'a password for two versions'

/** Building, three nodes, and a machine that does other things too. */
const LIMIT_MS = 240_000

/** A migration for each table that the old node knows, as each holds one table's lock and no more. */
async function expandTables(migrations: string): Promise<void> {
  const { rows } = await sql<{ name: string }>`
    select relname as name from pg_class
    where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p')
      and not relispartition and relname not like 'schema\\_%'
    order by relname`.execute(database.db.kysely)
  expect(rows.length).toBeGreaterThan(10)
  for (const [at, { name }] of rows.entries())
    writeFileSync(
      join(migrations, `${9000 + at}_expand_${name}.sql`),
      `-- lowest-node-version: 0.1.0\nalter table ${name} add column expanded text;\n`,
    )
}

const commits = listCommits()
const cases: [string, Commit | undefined][] = [
  ['the previous commit', previousCommit(commits)],
  ['the last commit before the newest migrations', commitBeforeMigrations(commits)],
]

let database: TestDatabase
let place: string
let nodes: NodeProcess[]
/** Clones: of the earlier commit, and of what lies here with the migration that expands. */
let old: string
let today: string

beforeEach(async () => {
  database = await openTestDatabase(true)
  place = mkdtempSync(join(tmpdir(), 'popgres-versions-'))
  nodes = []
  old = join(place, 'old')
  today = join(place, 'today')
})

afterEach(async () => {
  for (const node of nodes) await node.destroy()
  await database.close()
  rmSync(place, { recursive: true })
})

/** @returns what it printed */
function popgres(clone: string, args: readonly string[], input = ''): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      process.execPath,
      [join(clone, 'dist', 'main.js'), ...args],
      { cwd: place, env: { PATH: process.env.PATH, DATABASE_URL: database.url } },
      (error, stdout, stderr) => (error === null ? resolve(stdout + stderr) : reject(error)),
    )
    child.stdin?.end(input)
  })
}

async function start(clone: string): Promise<{ node: NodeProcess; pop3: string; lmtp: string }> {
  const env = { DATABASE_URL: servingUrl(database.url), POPGRES_WORKERS: '1' }
  // Settings that a node of yesterday does not know would end its start.
  const unknown = clone === old ? { POPGRES_HTTP_LISTEN: undefined } : {}
  const node = new NodeProcess({ clone, env: { ...env, ...unknown } })
  nodes.push(node)
  return { node, ...(await node.addresses()) }
}

async function deliver(address: string, subject: string, octets = 100): Promise<void> {
  const client = await LineClient.connect(address)
  await client.reply()
  for (const command of ['LHLO mta.test', 'MAIL FROM:<>', `RCPT TO:<${USER}>`, 'DATA'])
    expect(await client.ask(command)).toMatch(/^[23]\d\d/)
  const body = `${'x'.repeat(70)}\r\n`.repeat(Math.ceil(octets / 72))
  expect(await client.ask(`Subject: ${subject}\r\n\r\n${body}.`)).toMatch(/^250/)
  client.destroy()
}

const login = (address: string): Promise<Pop3Client> => Pop3Client.login(address, USER, PASSWORD)

/** Subjects in their order, and the unique-ids. */
async function contentAt(address: string): Promise<{ subjects: string[]; uidl: string }> {
  const client = await login(address)
  const count = Number((await client.ask('STAT')).split(' ')[1])
  const subjects: string[] = []
  for (let number = 1; number <= count; number++) {
    const size = Number((await client.ask(`LIST ${number}`)).split(' ')[2])
    const message = await client.retrieve(`RETR ${number}`)
    expect(message.length).toBe(size)
    subjects.push(/Subject: (.*)\r/.exec(message.toString())?.[1] ?? '')
  }
  const { raw } = await client.askMulti('UIDL')
  expect(await client.ask('QUIT')).toMatch(/^\+OK/)
  return { subjects, uidl: raw.toString() }
}

/** Deletes the first message by one node while the other is told that the maildrop is in use. */
async function deleteFirst(address: string, other: string): Promise<void> {
  const client = await login(address)
  await expect(login(other)).rejects.toThrow(/^-ERR \[IN-USE\]/)
  expect(await client.ask('DELE 1')).toMatch(/^\+OK/)
  expect(await client.ask('QUIT')).toMatch(/^\+OK/)
  await client.closed
}

/** Logs in again and again, until told to stop; throws if it is ever refused. */
async function poll(address: string, until: { isOver: boolean }): Promise<number> {
  let polls = 0
  while (!until.isOver || polls === 0) {
    const client = await Pop3Client.login(address, OTHER, PASSWORD)
    expect(await client.ask('STAT')).toBe('+OK 0 0')
    expect(await client.ask('QUIT')).toMatch(/^\+OK/)
    await client.closed
    polls++
  }
  return polls
}

for (const [which, commit] of cases)
  test(`a node of ${which} serves beside one of today`, { timeout: LIMIT_MS }, async (context) => {
    if (commit === undefined)
      return context.skip(
        'there is no such commit here: nothing was migrated since, or there is no git history',
      )
    await serveBeside(commit, which)
  })

async function serveBeside(commit: Commit, which: string): Promise<void> {
  buildCommit(commit, old)
  copyThis(today)
  const serveRole = ['migrate', '--serve-role', SERVING_ROLE]
  await popgres(old, serveRole)
  await expandTables(join(today, 'migrations'))
  await popgres(old, ['domain', 'add', 'versions.test'])
  for (const user of [USER, OTHER])
    await popgres(old, ['user', 'add', user, '--password-stdin'], `${PASSWORD}\n`)
  const before = await start(old)
  await deliver(before.lmtp, 'old to old')
  await deliver(before.lmtp, 'old and large', 200_000)
  const open = await login(before.pop3)

  // The schema changes under the old node, which goes on with all it does.
  const until = { isOver: false }
  const polling = poll(before.pop3, until)
  const migrated = await popgres(today, serveRole)
  until.isOver = true
  const polls = await polling
  console.log(`${which} (${commit.hash.slice(0, 7)}): ${polls} polls meanwhile; ${migrated.trim()}`)
  expect((await open.retrieve('RETR 1')).toString()).toContain('Subject: old to old')
  expect(await open.ask('DELE 1')).toMatch(/^\+OK/)
  expect(await open.ask('QUIT')).toMatch(/^\+OK/)
  await open.closed

  const after = await start(today)
  await deliver(after.lmtp, 'new')
  await deliver(after.lmtp, 'new and large', 200_000)
  await deliver(before.lmtp, 'old')
  const all = ['old and large', 'new', 'new and large', 'old']
  const seen = [await contentAt(before.pop3), await contentAt(after.pop3)]
  expect(seen.map(({ subjects }) => subjects)).toEqual([all, all])
  expect(seen[1]?.uidl).toBe(seen[0]?.uidl)

  await deleteFirst(before.pop3, after.pop3)
  expect((await contentAt(after.pop3)).subjects).toEqual(all.slice(1))
  await deleteFirst(after.pop3, before.pop3)
  expect((await contentAt(before.pop3)).subjects).toEqual(all.slice(2))
  await popgres(today, ['check'])

  expect(await before.node.stop()).toEqual({ status: 0, signal: null })
  expect((await contentAt(after.pop3)).subjects).toEqual(all.slice(2))
}
