/** Chunks that got lost on a disk: what is left of a body is never taken for another's. */
import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type StoredMessage, selectMessages } from '../../../src/storage/messages.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { deliverTo, type User } from './fixtures.ts'

const OCTETS = 12_000

let database: TestDatabase
let ada: User

beforeAll(async () => {
  database = await openTestDatabase()
  ada = await addUser(database.db, 'ada@damaged.test', { password: 'secret' })
  const lost = [[1], [0], [], [0, 1]]
  for (const [at, chunks] of lost.entries()) {
    const content = Buffer.alloc(OCTETS, 'abcd'[at])
    const bodyId = randomUUID()
    await deliverTo(database.db, ada, '', { bodyId, content, bodyOctets: OCTETS })
    for (const seq of chunks)
      await sql`delete from body_chunks where body_id = ${bodyId} and seq = ${seq}`.execute(
        database.db.kysely,
      )
  }
})
afterAll(() => database.close())

const shown = ({ uid, octets, bodyOctets, content }: StoredMessage) =>
  [uid, octets, bodyOctets, content && Buffer.concat([...content]).toString()] as const

test('messages side by side: each is whole or has no content, and none is missing', async () => {
  const messages = await selectMessages(database.db, ada.domainId, ada.userId, [1, 2, 3, 4], 99_999)
  expect(messages.map(shown)).toEqual([
    [1, OCTETS, OCTETS, undefined],
    [2, OCTETS, OCTETS, undefined],
    [3, OCTETS, OCTETS, 'c'.repeat(OCTETS)],
    [4, OCTETS, OCTETS, undefined],
  ])
})

test('RETR of each damaged one is refused, of the whole one brings it', async () => {
  const node = await startTestNode({ url: database.url })
  const client = await Pop3Client.login(node.address, 'ada@damaged.test', 'secret')
  for (const number of [1, 2, 4])
    expect(await client.ask(`RETR ${number}`)).toMatch(/^-ERR \[SYS\/PERM\] .*damaged/)
  expect((await client.askMulti('RETR 3')).raw.length).toBe(OCTETS + 2)
  await client.ask('QUIT')
  await node.stop()
})
