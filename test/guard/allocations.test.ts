/**
 * What a session allocates, in a whole node with so much room for young objects that nothing is
 * collected meanwhile: what memory has grown by is what was allocated. Code is not optimised, so
 * that the figures do not depend on when that happens.
 */
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { putMessage } from '../support/mail.ts'
import { NodeProcess } from '../support/node-process.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../support/postgres.ts'
import { servingUrl } from '../support/postgres-setup.ts'
import { expectWithin } from './figure.ts'

const USER = 'alice@example.test'
const PASSWORD = 'secret'
const MESSAGES = 50
const POLLS = 120
/** More would fill the memory beside the heap that V8 lets grow without collecting. */
const ROUNDS_OF_RETR = 5
const MESSAGE = `Subject: 10 KB\r\n\r\n${`${'x'.repeat(78)}\r\n`.repeat(128)}`

const NODE_OPTIONS = [
  '--min-semi-space-size=512',
  '--max-semi-space-size=512',
  '--no-opt',
  '--import',
  join(import.meta.dirname, 'allocation-report.mjs'),
]

interface Memory {
  heap: number
  buffers: number
}

let database: TestDatabase
let node: NodeProcess
let address: string
let worker: number

beforeAll(async () => {
  database = await openTestDatabase()
  const { domainId, userId } = await addUser(database.db, USER, { password: PASSWORD })
  for (let i = 0; i < MESSAGES; i++) await putMessage(database.db, domainId, [userId], MESSAGE)
  const env = { DATABASE_URL: servingUrl(database.url), POPGRES_WORKERS: '1' }
  node = new NodeProcess({ env, nodeOptions: NODE_OPTIONS })
  address = (await node.addresses()).pop3
  worker = (await node.crew(1))[0] ?? 0
})
afterAll(async () => {
  await node.destroy()
  await database.close()
})

async function memory(): Promise<Memory & { collections: number }> {
  const from = node.records.length
  process.kill(worker, 'SIGUSR2')
  const { heapUsed, arrayBuffers, collections } = await node.record('allocations', from)
  return {
    heap: Number(heapUsed),
    buffers: Number(arrayBuffers),
    collections: Number(collections),
  }
}

/** Octets of one piece of work. */
async function allocationsOf(count: number, work: () => Promise<unknown>): Promise<Memory> {
  const before = await memory()
  await work()
  const after = await memory()
  expect(after.collections, 'nothing was collected meanwhile').toBe(before.collections)
  return {
    heap: (after.heap - before.heap) / count,
    buffers: (after.buffers - before.buffers) / count,
  }
}

async function poll(times: number): Promise<void> {
  for (let i = 0; i < times; i++) {
    const client = await Pop3Client.login(address, USER, PASSWORD)
    await client.ask('STAT')
    await client.askMulti('UIDL')
    expect(await client.ask('QUIT')).toMatch(/^\+OK/)
    await client.closed
  }
}

async function retrieveAll(client: Pop3Client, rounds: number): Promise<void> {
  for (let i = 0; i < rounds; i++)
    for (let number = 1; number <= MESSAGES; number++)
      expect((await client.askMulti(`RETR ${number}`)).raw).toHaveLength(MESSAGE.length)
}

test('a warm poll', async () => {
  await poll(30)
  const { heap, buffers } = await allocationsOf(POLLS, () => poll(POLLS))
  expectWithin('warm poll with UIDL: octets allocated on the heap', heap)
  expectWithin('warm poll with UIDL: octets allocated in buffers', buffers)
})

test('RETRs of 10 KB', async () => {
  const client = await Pop3Client.login(address, USER, PASSWORD)
  await retrieveAll(client, 2)
  const { heap, buffers } = await allocationsOf(ROUNDS_OF_RETR * MESSAGES, () =>
    retrieveAll(client, ROUNDS_OF_RETR),
  )
  expectWithin('RETR one at a time: octets allocated on the heap', heap)
  expectWithin('RETR one at a time: octets allocated in buffers', buffers)
  await client.ask('QUIT')
})
