/** Every message of the corpus, by LMTP and by import: what PostgreSQL holds is the file with CRLF. */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { importMessages } from '../../../src/admin/operations/import-messages.ts'
import { readSources } from '../../../src/cli/formats/sources.ts'
import { corpusFiles } from '../../support/corpus.ts'
import { openLmtp, readStored, sendMail, startTestLmtp, toStored } from '../../support/lmtp.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await openTestDatabase()
})

afterAll(() => database?.close())

test('over LMTP', async () => {
  const user = await addUser(database.db, 'lmtp@example.test')
  const files = corpusFiles()
  const lmtp = await startTestLmtp(database.db)
  const client = await openLmtp(lmtp)
  for (const { name, path } of files) {
    const replies = await sendMail(client, '', ['lmtp@example.test'], readFileSync(path))
    expect(replies[0], name).toMatch(/^250 2\.1\.5 /)
  }
  client.destroy()
  await lmtp.stop()
  const copies = await readStored(database.db, user)
  expect(copies.length).toBe(files.length)
  files.forEach(({ name, path }, index) => {
    const { octets, prefix, body } = copies[index] ?? {
      octets: 0,
      prefix: '',
      body: Buffer.alloc(0),
    }
    expect(body.equals(toStored(readFileSync(path))), name).toBe(true)
    expect(octets, name).toBe(prefix.length + body.length)
  })
}, 120_000)

test('by import', async () => {
  const user = await addUser(database.db, 'import@example.test')
  const contents = corpusFiles().map(({ name, path }) => ({ name, path, file: readFileSync(path) }))
  const report = await importMessages(database.db, {
    address: 'import@example.test',
    items: readSources(
      contents.map(({ path }) => path),
      'eml',
    ),
    messageMaxOctets: 10_000_000,
  })
  const empty = contents.filter(({ file }) => file.length === 0)
  expect(report.skipped).toEqual(empty.map(({ path }) => ({ source: path, reason: 'empty' })))
  const copies = await readStored(database.db, user)
  const messages = contents.filter(({ file }) => file.length > 0)
  expect(copies.length).toBe(messages.length)
  messages.forEach(({ name, file }, index) => {
    const { octets, prefix, body } = copies[index] ?? {
      octets: 0,
      prefix: '',
      body: Buffer.alloc(0),
    }
    expect(prefix, name).toBe('')
    expect(body.equals(toStored(file)), name).toBe(true)
    expect(octets, name).toBe(body.length)
  })
}, 120_000)
