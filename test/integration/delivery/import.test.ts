/** Import: resumable, never twice, never back, byte for byte, and every refusal told. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import {
  type ImportItem,
  type ImportProgress,
  importMessages,
} from '../../../src/admin/transfer/import-messages.ts'
import { MailPath } from '../../../src/cli/formats/mail-path.ts'
import { measureSources, readSources } from '../../../src/cli/formats/sources.ts'
import { readStored } from '../../support/lmtp.ts'
import { longMessage } from '../../support/mail.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

const ADDRESS = 'alice@example.test'

let database: TestDatabase
let alice: { domainId: number; userId: number }
let directory: string

beforeEach(async () => {
  database = await openTestDatabase()
  alice = await addUser(database.db, ADDRESS)
  directory = await mkdtemp(join(tmpdir(), 'popgres-import-'))
})

afterEach(async () => {
  await rm(directory, { recursive: true })
  await database.close()
})

async function write(name: string, content: string | Buffer): Promise<string> {
  const path = join(directory, name)
  await writeFile(path, content)
  return path
}

function runImport(paths: string[], messageMaxOctets = 10_000_000) {
  return importMessages(database.db, {
    address: ADDRESS,
    items: readSources(MailPath.given(paths)),
    messageMaxOctets,
  })
}

async function storedTexts(): Promise<string[]> {
  return (await readStored(database.db, alice)).map((copy) => `${copy.prefix}${copy.body}`)
}

async function deleteMessage(uid: number): Promise<void> {
  await database.db.kysely
    .deleteFrom('messages')
    .where('domain_id', '=', alice.domainId)
    .where('uid', '=', uid)
    .execute()
}

const FROM = 'From bob@sender.example Thu Nov 13 20:26:07 2025\n'
const MBOX = `${FROM}A: 1\n\none\n\n${FROM}A: 2\n\ntwo\n\n${FROM}A: 1\n\none\n\n`

test('messages go in as they are, with CRLF, in order, and with their day of receipt', async () => {
  const report = await runImport([await write('old.mbox', MBOX)])
  expect(report).toEqual({ imported: 3, alreadyImported: 0, skipped: [] })
  expect(await storedTexts()).toEqual([
    'A: 1\r\n\r\none\r\n',
    'A: 2\r\n\r\ntwo\r\n',
    'A: 1\r\n\r\none\r\n',
  ])
  const rows = await database.db.kysely.selectFrom('messages').select('received_at').execute()
  for (const row of rows) expect(row.received_at).toEqual(new Date('2025-11-13T20:26:07Z'))
})

test('a second run brings in what is new, not what is there, not what was deleted since', async () => {
  const path = await write('old.mbox', MBOX)
  await runImport([path])
  await deleteMessage(2)
  await deleteMessage(3)
  expect(await runImport([path])).toEqual({ imported: 0, alreadyImported: 3, skipped: [] })
  expect((await storedTexts()).length).toBe(1)
  await write('old.mbox', `${MBOX}${FROM}A: 1\n\none\n\n${FROM}A: 3\n\n`)
  expect(await runImport([path])).toEqual({ imported: 2, alreadyImported: 3, skipped: [] })
})

test('the same message with other line ends is the same', async () => {
  await runImport([await write('lf.eml', 'A: 1\n\none\n')])
  const report = await runImport([await write('crlf.eml', 'A: 1\r\n\r\none\r\n')])
  expect(report).toMatchObject({ imported: 0, alreadyImported: 1 })
})

test('a run that was cut goes on where it was', async () => {
  const path = await write('old.mbox', MBOX)
  async function* cutShort(): AsyncGenerator<ImportItem> {
    let count = 0
    for await (const item of readSources(MailPath.given([path]))) {
      if (count++ === 2) throw new Error('the machine went down')
      yield item
    }
  }
  const cut = importMessages(database.db, {
    address: ADDRESS,
    items: cutShort(),
    messageMaxOctets: 10_000,
  })
  await expect(cut).rejects.toThrow('the machine went down')
  expect(await runImport([path])).toEqual({ imported: 1, alreadyImported: 2, skipped: [] })
})

test('a large message goes in by stretches, and a second run writes none', async () => {
  const message = longMessage(900_000)
  const path = await write('large.eml', message.toString('latin1').replaceAll('\r\n', '\n'))
  expect(await runImport([path])).toMatchObject({ imported: 1 })
  const [copy] = await readStored(database.db, alice)
  expect(copy?.body.equals(message)).toBe(true)
  await deleteMessage(1)
  const countBodies = async () =>
    (await database.db.kysely.selectFrom('bodies').select('body_id').execute()).length
  const before = await countBodies()
  expect(await runImport([path])).toMatchObject({ imported: 0, alreadyImported: 1 })
  expect(await countBodies()).toBe(before)
})

test('what is skipped is told with the reason, the rest comes in', async () => {
  await database.db.kysely.updateTable('users').set({ quota_octets: 150 }).execute()
  await mkdir(join(directory, 'folder'))
  const paths = [
    await write('empty.eml', ''),
    await write('large.eml', 'x'.repeat(1_000)),
    await write('good.eml', 'A: 1\n'),
    join(directory, 'folder'),
    join(directory, 'missing.eml'),
    await write('much.eml', 'y'.repeat(200)),
  ]
  const report = await runImport(paths, 999)
  expect(report.imported).toBe(1)
  expect(report.skipped).toEqual([
    { source: paths[0], reason: 'empty' },
    { source: paths[1], reason: 'larger than 999 octets' },
    { source: paths[3], reason: 'is a directory without new and cur, so no Maildir' },
    { source: paths[4], reason: 'there is no such file' },
    { source: paths[5], reason: 'the mailbox is full' },
  ])
})

test('progress ends at the size of the files', async () => {
  const paths = [await write('a.mbox', MBOX), await write('b.eml', 'B: 1\n')]
  const seen: ImportProgress[] = []
  await importMessages(database.db, {
    address: ADDRESS,
    items: readSources(MailPath.given(paths)),
    messageMaxOctets: 10_000,
    onProgress: (progress) => seen.push(progress),
  })
  expect(seen.map((progress) => progress.messages)).toEqual([1, 2, 3, 4])
  expect(seen.at(-1)?.octets).toBe(await measureSources(MailPath.given(paths)))
})

test('an unknown address is refused', async () => {
  const path = await write('a.eml', 'A: 1\n')
  const items = readSources(MailPath.given([path]))
  await expect(
    importMessages(database.db, { address: 'no@example.test', items, messageMaxOctets: 1_000 }),
  ).rejects.toThrow('no@example.test')
})

test('an unknown address is refused in a dry run too', async () => {
  const items = readSources(MailPath.given([await write('a.eml', 'A: 1\n')]))
  await expect(
    importMessages(database.db, {
      address: 'no@example.test',
      items,
      messageMaxOctets: 1_000,
      isDryRun: true,
    }),
  ).rejects.toThrow('no@example.test')
})
