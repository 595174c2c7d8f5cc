/**
 * Maildrops whose owners could write there, read by somebody who may read everything: links lead
 * nowhere, what cannot be read is not empty, and one user's files stop nobody else.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
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

/** A home with a Maildir and a list of Dovecot's. */
function writeHome(name: string, texts: readonly string[] = []): void {
  for (const each of ['new', 'cur', 'tmp'])
    mkdirSync(path(name, 'Maildir', each), { recursive: true })
  const lines = texts.map((text, index) => {
    writeFileSync(path(name, 'Maildir/cur', `${index}.a:2,S`), text)
    return `${index + 1} :${index}.a\n`
  })
  writeFileSync(path(name, 'Maildir/dovecot-uidlist'), `3 V9 N9\n${lines.join('')}`)
}

function replaceByLink(name: string, target: string): void {
  rmSync(path(name), { recursive: true, force: true })
  symlinkSync(target, path(name))
}

async function move(names: readonly string[], ...args: string[]): Promise<MoveInReport> {
  const users = names.map((name) => `${name}@files.test:{PLAIN}secret::::${path(name)}::\n`)
  writeFileSync(path('users'), users.join(''))
  const from = ['import', 'dovecot', '--users', path('users'), '--add-domains', '--json']
  const { stdout, stderr } = await program.run([...from, ...args])
  if (stdout === '') throw new Error(stderr)
  return JSON.parse(stdout)
}

/** Reason by name. */
function unfinishedOf({ users }: MoveInReport): Record<string, string> {
  return Object.fromEntries(
    users.unfinished.map(({ address, reason }) => [address.split('@')[0], reason]),
  )
}

async function statOf(name: string): Promise<string> {
  const session = await Pop3Client.login(node.address, `${name}@files.test`, 'secret')
  const stat = await session.ask('STAT')
  await session.ask('QUIT')
  return stat
}

const VICTIM = 'Subject: v\n\nof the victim\n'

test('no link brings in what is not its owner’s, wherever on the way it is', async () => {
  writeHome('victim', [VICTIM])
  mkdirSync(path('victim/mail'))
  writeFileSync(path('victim/mbox'), `From a@b Thu Nov 13 20:26:00 2025\n${VICTIM}\n`)
  const names = ['l-cur', 'l-new', 'l-list', 'l-maildir']
  for (const name of names) writeHome(name)
  replaceByLink('l-cur/Maildir/cur', path('victim/Maildir/cur'))
  replaceByLink('l-new/Maildir/new', '/etc')
  replaceByLink('l-list/Maildir/dovecot-uidlist', path('victim/Maildir/dovecot-uidlist'))
  replaceByLink('l-maildir/Maildir', path('victim/Maildir'))
  const report = await move(names)
  expect(report.messages).toMatchObject({ imported: 0, skipped: [] })
  const reasons = unfinishedOf(report)
  expect(reasons).toEqual({
    'l-cur': `${path('l-cur/Maildir/cur')} cannot be read: it is a link, and links are not followed`,
    'l-new': `${path('l-new/Maildir/new')} cannot be read: it is a link, and links are not followed`,
    'l-list': expect.stringContaining('dovecot-uidlist cannot be read: it is a link'),
    'l-maildir': expect.stringContaining('Maildir: it is a link, and links are not followed (see'),
  })
  for (const name of names) await expect(statOf(name)).rejects.toThrow('-ERR [AUTH]')

  mkdirSync(path('l-mbox'))
  replaceByLink('l-mbox/mbox', path('victim/mbox'))
  const mbox = await move(['l-mbox'], '--mail', 'mbox:~/mbox', '--uidl', 'none')
  expect(unfinishedOf(mbox)['l-mbox']).toMatch(/mbox: it is a link/)
  mkdirSync(path('l-above'))
  replaceByLink('l-above/mail', path('victim'))
  const above = await move(['l-above'], '--mail', 'maildir:~/mail/Maildir')
  expect(unfinishedOf(above)['l-above']).toMatch(/l-above\/mail: it is a link/)
})

test('a home, or what bears a name, may be a link of the operator’s; the mail if that is said', async () => {
  writeHome('disk/home', ['A: 1\n'])
  replaceByLink('o-home', path('disk/home'))
  expect((await move(['o-home'])).messages.imported).toBe(1)
  const named = ['--mail', `maildir:${program.directory}/%n/Maildir`]
  expect((await move(['o-home'], ...named)).messages.alreadyImported).toBe(1)
  writeHome('o-mail')
  replaceByLink('o-mail/Maildir', path('disk/home/Maildir'))
  expect((await move(['o-mail'], '--follow-links')).messages.imported).toBe(1)
  writeHome('o-cur')
  replaceByLink('o-cur/Maildir/cur', path('disk/home/Maildir/cur'))
  expect(unfinishedOf(await move(['o-cur'], '--follow-links'))['o-cur']).toMatch(/is a link/)
})

test('one user’s files: a link that is named, and one inside', async () => {
  writeHome('one', ['A: 1\n'])
  writeHome('elsewhere', ['A: 2\n'])
  await move(['one'])
  symlinkSync(path('elsewhere/Maildir'), path('one/link'))
  const args = ['import', 'one@files.test', path('one/link'), '--uidl', 'none']
  const refused = await program.run(args)
  expect(refused).toMatchObject({ status: 1, stderr: expect.stringContaining('it is a link') })
  const followed = await program.run([...args, '--follow-links'])
  expect(followed).toMatchObject({ status: 0, stdout: expect.stringContaining('imported 1') })
})

test('a maildrop that cannot be read is not empty: no password, and it says why', async () => {
  const names = ['e-cur', 'e-file', 'e-loop', 'away/e-none', 'empty/e-none2', 'e-odd']
  for (const name of ['e-cur', 'e-odd']) writeHome(name)
  rmSync(path('e-cur/Maildir/cur'), { recursive: true })
  writeFileSync(path('e-cur/Maildir/cur'), 'no directory')
  for (const name of ['e-file', 'e-loop', 'empty/e-none2'])
    mkdirSync(path(name), { recursive: true })
  writeFileSync(path('e-file/Maildir'), 'no mail')
  symlinkSync('Maildir', path('e-loop/Maildir'))
  for (const each of ['cur', 'new']) rmSync(path('e-odd/Maildir', each), { recursive: true })
  const users = names.map(
    (name) => `${name.split('/').at(-1)}@files.test:{PLAIN}secret::::${path(name)}::\n`,
  )
  writeFileSync(path('unreadable'), users.join(''))
  const from = ['import', 'dovecot', '--users', path('unreadable'), '--add-domains', '--json']
  const { status, stdout } = await program.run(from)
  expect(status).toBe(1)
  const report: MoveInReport = JSON.parse(stdout)
  expect(report.messages).toMatchObject({ imported: 0, skipped: [] })
  expect(unfinishedOf(report)).toEqual({
    'e-cur': `${path('e-cur/Maildir/cur')} cannot be read: there is no such file`,
    'e-file': `${path('e-file/Maildir')}: is no directory, so no Maildir`,
    'e-loop': expect.stringContaining('it is a link'),
    'e-none': expect.stringMatching(/away\/e-none: is it mounted\?.*--empty-if-missing/),
    'e-none2': expect.stringMatching(/empty\/e-none2: is it mounted\?/),
    'e-odd': expect.stringContaining('without new and cur'),
  })
  for (const name of Object.keys(unfinishedOf(report)))
    await expect(statOf(name)).rejects.toThrow('-ERR [AUTH]')
})

test('who has had no mail yet comes in: others lie beside it, or it is said', async () => {
  mkdirSync(path('n-new'))
  writeFileSync(path('n-new/.profile'), '')
  const report = await move(['n-new', 'n-none'])
  expect(Object.keys(unfinishedOf(report))).toEqual(['n-none'])
  expect(await statOf('n-new')).toBe('+OK 0 0')
  expect(unfinishedOf(await move(['n-none'], '--empty-if-missing'))).toEqual({})
  expect(await statOf('n-none')).toBe('+OK 0 0')
  mkdirSync(path('n-mbox'))
  writeFileSync(path('n-mbox/mbox'), '')
  const mbox = await move(['n-mbox'], '--mail', 'mbox:~/mbox', '--uidl', 'none')
  expect(mbox).toMatchObject({ users: { unfinished: [] }, messages: { skipped: [] } })
})

test('a list without end stops its own user alone', async () => {
  const names = ['z-fifo', 'z-zero', 'z-large', 'z-lines', 'z-line', 'z-good']
  for (const name of names) writeHome(name, ['A: 1\n'])
  const list = (name: string) => path(name, 'Maildir/dovecot-uidlist')
  for (const name of ['z-fifo', 'z-zero']) rmSync(list(name))
  execFileSync('mkfifo', [list('z-fifo'), path('z-good/Maildir/cur/9.fifo')])
  symlinkSync('/dev/zero', list('z-zero'))
  truncateSync(list('z-large'), 600_000_000)
  writeFileSync(list('z-lines'), `3 V9 N9\n${'1 :a\n'.repeat(500_000)}`)
  writeFileSync(list('z-line'), `3 V9 N9\n${'1 '.repeat(5_000)}:a\n`)
  const report = await move(names)
  expect(unfinishedOf(report)).toEqual({
    'z-fifo': expect.stringContaining('cannot be read: it is no file'),
    'z-zero': expect.stringContaining('cannot be read: it is a link'),
    'z-large': expect.stringContaining('is larger than 64 MiB'),
    'z-lines': expect.stringContaining('has more than 500000 lines'),
    'z-line': expect.stringContaining('line 2 has more than 2048 octets'),
  })
  expect(report.messages).toMatchObject({ imported: 1, skipped: [{ reason: 'not a file' }] })
  expect(await statOf('z-good')).toMatch(/^\+OK 1 /)
}, 60_000)

test('names that are no UTF-8 are names', async () => {
  writeHome('latin')
  const file = Buffer.concat([
    Buffer.from(path('latin/Maildir/cur/')),
    Buffer.from('2.caf\xe9:2,S', 'latin1'),
  ])
  writeFileSync(file, 'A: 1\n\nlatin1 name\n')
  const list = Buffer.from('3 V9 N9\n4 :2.caf\xe9\n', 'latin1')
  writeFileSync(path('latin/Maildir/dovecot-uidlist'), list)
  const report = await move(['latin'], '--uidl-format', '%u')
  expect(report.messages).toMatchObject({ imported: 1, unseen: 0, skipped: [] })
})
