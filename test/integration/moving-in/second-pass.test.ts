/**
 * What the second run finds that the first has brought: files that a client has seen on the old
 * server meanwhile, and equal messages of which only one had been seen.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import type { MoveInReport } from '../../../src/admin/transfer/move-in.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { openProgram, type Program } from '../admin/program.ts'

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

const path = (...names: string[]) => join(program.directory, ...names)

/** @param list uid by file */
function write(home: string, files: Record<string, string>, list: Record<string, number>): void {
  const maildir = path(home, 'Maildir')
  mkdirSync(join(maildir, 'cur'), { recursive: true })
  for (const [name, text] of Object.entries(files)) writeFileSync(join(maildir, 'cur', name), text)
  const lines = Object.entries(list).map(([name, uid]) => `${uid} :${name}\n`)
  writeFileSync(join(maildir, 'dovecot-uidlist'), `3 V9 N99\n${lines.join('')}`)
}

async function move(name: string, ...args: string[]): Promise<MoveInReport['messages']> {
  const line = `${name}@pass.test:{PLAIN}secret::::${path(name)}::\n`
  writeFileSync(path('users'), line)
  const all = ['--users', path('users'), '--uidl-format', 'uid-%u', '--add-domains', '--json']
  const { stdout, stderr } = await program.run(['import', 'dovecot', ...all, ...args])
  if (stdout === '') throw new Error(stderr)
  return JSON.parse(stdout).messages
}

async function visit(name: string, command?: string): Promise<string[]> {
  const session = await Pop3Client.login(node.address, `${name}@pass.test`, 'secret')
  if (command !== undefined) await session.retrieve(command)
  const { raw } = await session.askMulti('UIDL')
  await session.ask('QUIT')
  return raw.toString().trimEnd().split('\r\n')
}

const TEXTS = { a: 'A: 1\n\nx\n', b: 'B: 1\n\nx\n', c: 'B: 1\n\nx\n', d: 'D: 1\n\nx\n' }

test('what got its unique-id on the old server after the first run gets it here', async () => {
  write('seen', TEXTS, { a: 1 })
  expect(await move('seen')).toMatchObject({ imported: 4, unseen: 3 })
  // Looked, and took nothing.
  expect(await visit('seen')).toHaveLength(4)
  write('seen', TEXTS, { a: 1, b: 2, c: 3 })
  const pretended = await move('seen', '--dry-run')
  const done = await move('seen')
  expect(done).toEqual(pretended)
  expect(done).toMatchObject({ imported: 0, alreadyImported: 4, unseen: 1, skipped: [] })
  expect(await visit('seen')).toEqual([
    '1 uid-1',
    expect.stringMatching(/^2 uid-[23]$/),
    expect.stringMatching(/^3 uid-[23]$/),
    expect.stringMatching(/^4 \d+\.4$/),
  ])
  expect(await move('seen')).toMatchObject({ imported: 0, alreadyImported: 4, skipped: [] })
})

test('what a client has fetched here keeps the unique-id that it had then', async () => {
  write('known', TEXTS, { a: 1 })
  await move('known')
  const before = await visit('known', 'RETR 2')
  write('known', TEXTS, { a: 1, b: 2 })
  const pretended = await move('known', '--dry-run')
  const done = await move('known')
  expect(done).toEqual(pretended)
  expect(done.skipped).toMatchObject([{ reason: expect.stringContaining('is in already') }])
  expect(await visit('known')).toEqual(before)
})

test('while a session is open nothing is renamed', async () => {
  write('open', TEXTS, {})
  await move('open')
  const session = await Pop3Client.login(node.address, 'open@pass.test', 'secret')
  write('open', TEXTS, { a: 1 })
  expect((await move('open')).skipped).toHaveLength(1)
  await session.ask('QUIT')
  expect(await move('open')).toMatchObject({ alreadyImported: 4, skipped: [] })
  expect((await visit('open'))[0]).toBe('1 uid-1')
})

test('one seen and one not with equal octets are two messages, in the dry run as in the run', async () => {
  write('equal', { b: TEXTS.b, c: TEXTS.c }, { b: 1 })
  expect(await move('equal', '--dry-run')).toMatchObject({ imported: 2 })
  expect(await move('equal')).toMatchObject({ imported: 2, alreadyImported: 0 })
  expect(await move('equal')).toMatchObject({ imported: 0, alreadyImported: 2, skipped: [] })
  write('equal', { b: TEXTS.b, c: TEXTS.c, e: TEXTS.c }, { b: 1 })
  expect(await move('equal')).toMatchObject({ imported: 1, alreadyImported: 2, skipped: [] })
})
