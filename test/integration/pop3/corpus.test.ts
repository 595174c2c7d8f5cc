/** Every message of the corpus comes back over RETR as it went in, and LIST, UIDL and TOP agree. */
import { readFileSync, statSync } from 'node:fs'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { importMessages } from '../../../src/admin/transfer/import-messages.ts'
import { MailPath } from '../../../src/cli/formats/mail-path.ts'
import { readSources } from '../../../src/cli/formats/sources.ts'
import { corpusFiles } from '../../support/corpus.ts'
import { openLmtp, sendMail, startTestLmtp, toStored } from '../../support/lmtp.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await openTestDatabase()
  node = await startTestNode({ url: database.url })
})
afterAll(async () => {
  await node.stop()
  await database.close()
})

/** Everything a POP3 client can learn of the maildrop, held against the files. */
async function compare(
  name: string,
  files: readonly { name: string; path: string }[],
  hasTraceHeaders: boolean,
): Promise<void> {
  const session = await Pop3Client.login(node.address, name, 'secret')
  const sizes = (await session.askMulti('LIST')).raw.toString().trimEnd().split('\r\n')
  const ids = (await session.askMulti('UIDL')).raw.toString().trimEnd().split('\r\n')
  expect(sizes).toHaveLength(files.length)
  expect(new Set(ids.map((line) => line.split(' ')[1])).size).toBe(files.length)
  let total = 0
  for (const [index, file] of files.entries()) {
    const message = await session.retrieve(`RETR ${index + 1}`)
    const expected = toStored(readFileSync(file.path))
    expect(sizes[index], file.name).toBe(`${index + 1} ${message.length}`)
    expect(await session.ask(`LIST ${index + 1}`), file.name).toBe(`+OK ${sizes[index]}`)
    expect(await session.ask(`UIDL ${index + 1}`), file.name).toBe(`+OK ${ids[index]}`)
    const body = message.subarray(message.length - expected.length)
    expect(body.equals(expected), file.name).toBe(true)
    if (!hasTraceHeaders) expect(message.length, file.name).toBe(expected.length)
    const top = await session.retrieve(`TOP ${index + 1} 2`)
    expect(message.subarray(0, top.length).equals(top), file.name).toBe(true)
    total += message.length
  }
  expect(await session.ask('STAT')).toBe(`+OK ${files.length} ${total}`)
  await session.ask('QUIT')
}

test('delivered over LMTP', async () => {
  await addUser(database.db, 'lmtp@example.test', { password: 'secret' })
  const lmtp = await startTestLmtp(database.db)
  const client = await openLmtp(lmtp)
  for (const { name, path } of corpusFiles()) {
    const replies = await sendMail(client, '', ['lmtp@example.test'], readFileSync(path))
    expect(replies[0], name).toMatch(/^250 /)
  }
  client.destroy()
  await lmtp.stop()
  await compare('lmtp@example.test', corpusFiles(), true)
}, 120_000)

test('imported', async () => {
  await addUser(database.db, 'import@example.test', { password: 'secret' })
  const files = corpusFiles().filter(({ path }) => statSync(path).size > 0) // an empty file is no mail
  const report = await importMessages(database.db, {
    address: 'import@example.test',
    items: readSources(MailPath.given(files.map(({ path }) => path)), 'eml'),
    messageMaxOctets: 10_000_000,
  })
  expect(report.skipped).toEqual([])
  await compare('import@example.test', files, false)
}, 120_000)
