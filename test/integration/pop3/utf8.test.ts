/** Messages with header fields beyond ASCII, to clients that did and did not say UTF8 (RFC 6856). */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { longMessage, putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase
let node: TestNode

/** ä, as UTF-8 in latin1. */
const UMLAUT = Buffer.from('ä').toString('latin1')

const MESSAGES: readonly (Buffer | string)[] = [
  `Subject: ${UMLAUT}\r\n\r\nbody\r\n`,
  `Subject: plain\r\n\r\n${UMLAUT} in the body\r\n`,
  `Subject: no body\r\nX: ${UMLAUT}\r\n`,
  Buffer.concat([Buffer.from(`X: ${UMLAUT}\r\n`, 'latin1'), longMessage(600_000)]),
  Buffer.concat([longMessage(600_000), Buffer.from(`${UMLAUT}\r\n`, 'latin1')]),
]
const NEEDS_UTF8 = [1, 3, 4]

beforeAll(async () => {
  database = await openTestDatabase()
  const { domainId, userId } = await addUser(database.db, 'alice@example.test', {
    password: 'secret',
  })
  for (const message of MESSAGES) await putMessage(database.db, domainId, [userId], message)
})
afterAll(() => database.close())
afterEach(() => node.stop())

const logIn = () => Pop3Client.login(node.address, 'alice@example.test', 'secret')

const expectAll = async (client: Pop3Client): Promise<void> => {
  for (const [index, message] of MESSAGES.entries()) {
    const got = await client.retrieve(`RETR ${index + 1}`)
    expect(got.equals(Buffer.from(message as string, 'latin1'))).toBe(true)
  }
}

test('by default every message is sent as it is, asked for or not', async () => {
  node = await startTestNode({ url: database.url })
  const client = await logIn()
  await expectAll(client)
  await client.ask('QUIT')
})

test.each([
  ['one after the other', [1, 2, 3, 4, 5]],
  ['backwards', [5, 4, 3, 2, 1]],
])('where UTF8 is wanted, RETR and TOP refuse without it, read %s', async (_, numbers) => {
  node = await startTestNode({ url: database.url, isUtf8Asked: true })
  const client = await logIn()
  for (const command of ['RETR', 'TOP'])
    for (const number of numbers) {
      const { status } = await client.askMulti(
        `${command} ${number}${command === 'TOP' ? ' 0' : ''}`,
      )
      expect(status).toMatch(NEEDS_UTF8.includes(number) ? /^-ERR \[UTF8\]/ : /^\+OK/)
    }
  expect(await client.ask('NOOP')).toMatch(/^\+OK/)
  await client.ask('QUIT')
})

test('where UTF8 is wanted, who says it gets every message', async () => {
  node = await startTestNode({ url: database.url, isUtf8Asked: true })
  const client = await Pop3Client.connect(node.address)
  await client.line()
  expect(await client.ask('UTF8')).toMatch(/^\+OK/)
  await client.ask('USER alice@example.test')
  expect(await client.ask('PASS secret')).toMatch(/^\+OK/)
  await expectAll(client)
  await client.ask('QUIT')
})
