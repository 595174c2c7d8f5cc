/**
 * Memory of messages that were read is used again for others: of the same maildrop and of other
 * people's. Everybody is given their own mail, in whatever order they all ask.
 */
import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { BodyReader } from '../../../src/mail/maildrop/body-reader.ts'
import { selectMessages } from '../../../src/storage/messages.ts'
import { FUZZ } from '../../fuzz/seed.ts'
import { putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

type Account = Awaited<ReturnType<typeof addUser>>

const USERS = 4
const MESSAGES = 40
/** Windows of several slabs; the last message of each comes in stretches. */
const OCTETS = 24_000
const LARGE_OCTETS = 900_000

let database: TestDatabase
let node: TestNode
const users: Account[] = []

const addressOf = (user: number): string => `user-${user}@example.test`

/** Octets that nobody else has anywhere: lines that name their message. */
function contentOf(user: number, number: number): string {
  const line = `${createHash('sha256').update(`${user}/${number}`).digest('base64')}\r\n`
  const octets = number === MESSAGES ? LARGE_OCTETS : OCTETS + number
  return line.repeat(Math.floor(octets / line.length))
}

beforeAll(async () => {
  database = await openTestDatabase()
  for (let user = 0; user < USERS; user++) {
    const account = await addUser(database.db, addressOf(user), { password: 'secret' })
    const { domainId, userId } = account
    users.push(account)
    for (let number = 1; number <= MESSAGES; number++)
      await putMessage(database.db, domainId, [userId], contentOf(user, number))
  }
  node = await startTestNode({ url: database.url })
})
afterAll(async () => {
  await node.stop()
  await database.close()
})

/** What one session does: RETRs of so many messages from there on, and again, then QUIT. */
const walks = fc.array(
  fc.record({
    from: fc.integer({ min: 1, max: MESSAGES }),
    count: fc.integer({ min: 1, max: 25 }),
  }),
  { minLength: 1, maxLength: 3 },
)

test('everybody is given their own mail', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(walks, { minLength: USERS, maxLength: USERS }), async (sessions) => {
      await Promise.all(
        sessions.map(async (session, user) => {
          const client = await Pop3Client.login(node.address, addressOf(user), 'secret')
          for (const { from, count } of session)
            for (let number = from; number < from + count && number <= MESSAGES; number++) {
              const message = (await client.retrieve(`RETR ${number}`)).toString('latin1')
              expect(message === contentOf(user, number), `${number} of ${user}`).toBe(true)
            }
          await client.ask('QUIT')
        }),
      )
    }),
    { ...FUZZ, numRuns: Math.ceil(FUZZ.numRuns / 30) },
  )
})

test('a stretch that was read ahead stays as it is while others are read', async () => {
  const open = async (user: number): Promise<BodyReader> => {
    const { domainId, userId } = users[user] as Account
    const [message] = await selectMessages(database.db, domainId, userId, [MESSAGES], 0)
    if (message === undefined) throw new Error('it was put there')
    return new BodyReader(node, domainId, message)
  }
  const joined = (pieces: readonly Buffer[]): string => Buffer.concat(pieces).toString('latin1')
  const [one, other] = [await open(0), await open(1)]
  const content = [0, 1].map((user) => contentOf(user, MESSAGES))
  let at = joined(await one.read()).length
  one.readAhead()
  let otherAt = 0
  while (!other.isDone) {
    const stretch = joined(await other.read())
    expect(content[1]?.startsWith(stretch, otherAt)).toBe(true)
    otherAt += stretch.length
  }
  while (!one.isDone) {
    const stretch = joined(await one.read())
    expect(content[0]?.startsWith(stretch, at)).toBe(true)
    at += stretch.length
  }
  expect([at, otherAt]).toEqual(content.map(({ length }) => length))
})
