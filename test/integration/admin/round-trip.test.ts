/** Out of one database and into another: clients find the same unique-ids, order, octets and days. */
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { MessageSummary } from '../../../src/admin/operations/messages.ts'
import { deliver } from '../../../src/storage/deliveries.ts'
import { corpusFiles } from '../../support/corpus.ts'
import { longMessage, putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { openProgram, type Program } from './program.ts'

const DOMAIN = 'example.test'
const ALICE = `alice@${DOMAIN}`
const PASSWORD = 'one long password'

interface Place {
  database: TestDatabase
  program: Program
  node: TestNode
}

let here: Place
let there: Place

async function openPlace(): Promise<Place> {
  const database = await openTestDatabase()
  const program = openProgram({ DATABASE_URL: database.url })
  return { database, program, node: await startTestNode({ url: database.url }) }
}

beforeAll(async () => {
  here = await openPlace()
  there = await openPlace()
  const { db } = here.database
  const { domainId, userId } = await addUser(db, ALICE, {
    password: PASSWORD,
    quotaOctets: 2 ** 33,
  })
  const content = Buffer.from('Subject: old\r\n\r\n.From an old server\r\n')
  await deliver(db, {
    ...{ domainId, content, bodyId: randomUUID(), bodyOctets: content.length },
    recipients: [{ userId, prefix: Buffer.from('Delivered-To: alice\r\n') }],
    imported: {
      ...{ digest: Buffer.alloc(32), copy: 1, uniqueId: 'old:id,%<"1">' },
      receivedAt: new Date('2019-03-04T05:06:07.089Z'),
    },
  })
  await putMessage(db, domainId, [userId], longMessage(600_000))
  const names = corpusFiles().map(({ path }) => path)
  await here.program.run(['import', ALICE, ...names, '--format', 'eml'])
  // Twice the same, and a gap in the uids.
  for (let copy = 0; copy < 2; copy++) await putMessage(db, domainId, [userId], 'A: b\r\n\r\nc\r\n')
  await here.program.run(['message', 'delete', ALICE, '5', '--yes'])
})

afterAll(async () => {
  for (const place of [here, there]) {
    await place?.node.stop()
    place?.program.close()
    await place?.database.close()
  }
})

async function known({ program }: Place) {
  const messages = await program.json<MessageSummary[]>(['message', 'list', ALICE])
  return messages.map(({ octets, uniqueId, receivedAt }) => ({ octets, uniqueId, receivedAt }))
}

test('an export that is imported elsewhere is the same maildrop to its client', async () => {
  await here.program.json(['export', DOMAIN, '--to', 'out'])
  const out = join(here.program.directory, 'out')
  const bring = ['import', 'popgres', out, '--add-domains']
  expect(await there.program.run(bring)).toMatchObject({ status: 0, stderr: '' })
  expect(await known(there)).toEqual(await known(here))

  const clients = await Promise.all(
    [here, there].map(({ node }) => Pop3Client.login(node.address, ALICE, PASSWORD)),
  )
  const replies = async (command: string): Promise<Buffer[]> =>
    await Promise.all(clients.map(async (client) => (await client.askMulti(command)).raw))
  const [uidl, uidlThere] = await replies('UIDL')
  expect(uidlThere?.toString()).toBe(uidl?.toString())
  const count = (uidl?.toString().split('\r\n').length ?? 0) - 1
  expect(count).toBeGreaterThan(10)
  for (let number = 1; number <= count; number++) {
    const [sent, sentThere] = await replies(`RETR ${number}`)
    expect(sent && sentThere?.equals(sent), `message ${number}`).toBe(true)
  }
  for (const client of clients) expect(await client.ask('QUIT')).toMatch(/^\+OK/)

  const again = await there.program.run(bring)
  expect(again.stdout).toContain('messages: 0 imported')
  // One maildrop alone, as any Maildir: nothing comes twice.
  const alone = await there.program.run(['import', ALICE, join(out, 'alice')])
  expect(alone.stdout).toContain('imported 0 messages')
})
