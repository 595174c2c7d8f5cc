/** Reading ahead: few statements for who moves through the maildrop, none wasted on who does not. */
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

const MESSAGES = 100
let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await openTestDatabase()
  node = await startTestNode({ url: database.url })
  const user = await addUser(database.db, 'alice@example.test', { password: 'secret' })
  for (let i = 1; i <= MESSAGES; i++)
    await putMessage(database.db, user.domainId, [user.userId], `N: ${i}\r\n\r\nbody\r\n`)
})
afterAll(async () => {
  await node.stop()
  await database.close()
})

/** Fetches these message numbers; returns how many statements read messages, and how many rows. */
async function fetchAll(numbers: readonly number[]): Promise<{ statements: number; rows: number }> {
  const bulk = vi.spyOn(node.db, 'bulk')
  const session = await Pop3Client.login(node.address, 'alice@example.test', 'secret')
  for (const number of numbers)
    expect((await session.retrieve(`RETR ${number}`)).toString()).toContain(`N: ${number}\r\n`)
  await session.ask('QUIT')
  const reads = bulk.mock.calls.flatMap(([statement], index) =>
    statement.name === 'messages' ? [bulk.mock.results[index]?.value as Promise<unknown[]>] : [],
  )
  bulk.mockRestore()
  const rows = (await Promise.all(reads)).reduce((sum, result) => sum + result.length, 0)
  return { statements: reads.length, rows }
}

const upwards = Array.from({ length: MESSAGES }, (_, i) => i + 1)

test('upwards and downwards, one statement does for many messages', async () => {
  for (const numbers of [upwards, upwards.toReversed()]) {
    const { statements, rows } = await fetchAll(numbers)
    expect(statements).toBeLessThanOrEqual(MESSAGES / 20)
    expect(rows).toBe(MESSAGES)
  }
})

test('who fetches one again and again, or here and there, reads nothing ahead', async () => {
  const again = await fetchAll(Array.from({ length: 20 }, () => 50))
  expect(again.rows).toBeLessThan(30)
  const scattered = await fetchAll(upwards.filter((number) => number % 7 === 0))
  expect(scattered.rows).toBeLessThan(30)
})
