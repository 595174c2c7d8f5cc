/**
 * Every message of the corpus, by LMTP and by import: what PostgreSQL holds is the file with CRLF, and
 * that is what RETR gives, with sizes and unique-ids that fit.
 */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { importMessages } from '../../../src/admin/transfer/import-messages.ts'
import { MailPath } from '../../../src/cli/formats/mail-path.ts'
import { readSources } from '../../../src/cli/formats/sources.ts'
import { corpusFiles } from '../../support/corpus.ts'
import {
  openLmtp,
  readStored,
  type StoredCopy,
  sendMail,
  startTestLmtp,
  toStored,
} from '../../support/lmtp.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await openTestDatabase()
})

afterAll(() => database?.close())

test('over LMTP', async () => {
  const user = await addUser(database.db, 'lmtp@example.test', { password: 'secret' })
  const files = corpusFiles().map(({ name, path }) => ({ name, content: readFileSync(path) }))
  const lmtp = await startTestLmtp(database.db)
  const client = await openLmtp(lmtp)
  for (const { name, content } of files) {
    const replies = await sendMail(client, '', ['lmtp@example.test'], content)
    expect(replies[0], name).toMatch(/^250 2\.1\.5 /)
  }
  client.destroy()
  await lmtp.stop()
  const copies = await readStored(database.db, user)
  expect(copies.length).toBe(files.length)
  files.forEach(({ name, content }, index) => {
    expect(copies[index]?.body.equals(toStored(content)), name).toBe(true)
    expect(copies[index]?.prefix, name).toMatch(/^Return-Path: <>\r\n/)
  })
  await expectOverPop3('lmtp@example.test', copies)
}, 120_000)

test('by import', async () => {
  const user = await addUser(database.db, 'import@example.test', { password: 'secret' })
  const files = corpusFiles().map(({ name, path }) => ({ name, path, content: readFileSync(path) }))
  const paths = files.map(({ path }) => path)
  const report = await importMessages(database.db, {
    address: 'import@example.test',
    items: readSources(MailPath.given(paths), 'eml'),
    messageMaxOctets: 10_000_000,
  })
  const empty = files.filter(({ content }) => content.length === 0)
  expect(report.skipped).toEqual(empty.map(({ path }) => ({ source: path, reason: 'empty' })))
  const copies = await readStored(database.db, user)
  const messages = files.filter(({ content }) => content.length > 0)
  expect(copies.length).toBe(messages.length)
  messages.forEach(({ name, content }, index) => {
    expect(copies[index]?.body.equals(toStored(content)), name).toBe(true)
    expect(copies[index]?.prefix, name).toBe('')
  })
  await expectOverPop3('import@example.test', copies)
}, 120_000)

async function expectOverPop3(address: string, copies: readonly StoredCopy[]): Promise<void> {
  const node = await startTestNode({ url: database.url })
  const client = await Pop3Client.login(node.address, address, 'secret')
  const sizes: string[] = []
  for (const [index, { prefix, body }] of copies.entries()) {
    const expected = Buffer.concat([Buffer.from(prefix), body])
    const retrieved = await client.retrieve(`RETR ${index + 1}`)
    expect(retrieved.equals(expected), `message ${index + 1}`).toBe(true)
    sizes.push(`${index + 1} ${expected.length}`)
  }
  const list = (await client.askMulti('LIST')).raw.toString()
  expect(list.split('\r\n').slice(0, -1)).toEqual(sizes)
  const unique = (await client.askMulti('UIDL')).raw.toString().split('\r\n').slice(0, -1)
  expect(new Set(unique.map((line) => line.split(' ')[1])).size).toBe(copies.length)
  expect(unique.map((line) => line.split(' ')[0])).toEqual(copies.map((_, i) => `${i + 1}`))
  client.socket.destroy()
  await node.stop()
}
