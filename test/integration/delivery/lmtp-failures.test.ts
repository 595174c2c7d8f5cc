/** A delivery that does not go well: cut off, the database gone, storage slow, the worker stopping. */
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { Ingest } from '../../../src/mail/delivery/ingest.ts'
import type { Database } from '../../../src/storage/postgres/database.ts'
import type { LineClient } from '../../support/line-client.ts'
import {
  begin,
  openLmtp,
  readStored,
  sendMail,
  startTestLmtp,
  type TestLmtp,
} from '../../support/lmtp.ts'
import {
  addUser,
  openTestConnection,
  openTestDatabase,
  type TestDatabase,
} from '../../support/postgres.ts'
import { TcpProxy } from '../../support/tcp-proxy.ts'

let database: TestDatabase
let proxy: TcpProxy
/** Through the proxy. */
let db: Database
let lmtp: TestLmtp
let alice: { domainId: number; userId: number }
let client: LineClient

beforeEach(async () => {
  database = await openTestDatabase()
  alice = await addUser(database.db, 'alice@example.test')
  await addUser(database.db, 'carol@other.test')
  const url = new URL(database.url)
  proxy = await TcpProxy.open(Number(url.port))
  url.port = String(proxy.port)
  url.hostname = '127.0.0.1'
  db = openTestConnection(url.toString())
  lmtp = await startTestLmtp(db, { messageMaxOctets: 100_000_000 })
  client = await openLmtp(lmtp)
})

afterEach(async () => {
  client.destroy()
  await lmtp.stop()
  await db.close()
  await proxy.close()
  await database.close()
})

/** Looks until `condition` holds; there is no event for what it is used for. */
async function until(condition: () => Promise<boolean> | boolean): Promise<void> {
  const deadline = Date.now() + 10_000
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error('it did not come to pass')
    await sleep(10)
  }
}

const HALF = Buffer.from('half of a line\r\n'.repeat(30_000))

describe('the sender drops the connection in the middle of DATA', () => {
  test.each([10, HALF.length])('after %d octets: nothing is visible', async (octets) => {
    await begin(client, '', ['alice@example.test'])
    await client.ask('DATA')
    await client.sendAll(HALF.subarray(0, octets))
    client.destroy()
    await until(() => lmtp.logged.join('').includes('message cut off'))
    expect(await readStored(database.db, alice)).toEqual([])
    const bodies = await database.db.kysely.selectFrom('bodies').select('octets').execute()
    expect(bodies).toEqual(octets === 10 ? [] : [{ octets: null }])
  })

  test('by closing its side only', async () => {
    await begin(client, '', ['alice@example.test'])
    await client.ask('DATA')
    client.send('the dot is missing\r\n.')
    client.end()
    await client.closed
    expect(await readStored(database.db, alice)).toEqual([])
  })
})

describe('the database goes away', () => {
  test('between RCPT and DATA: 451 for each recipient, nothing delivered, then it works', async () => {
    await begin(client, '', ['alice@example.test', 'carol@other.test'])
    proxy.cut(true)
    await client.ask('DATA')
    client.send('x\r\n.\r\n')
    for (const reply of await client.replies(2)) expect(reply).toMatch(/^451 4\.3\.0 /)
    proxy.heal()
    expect(await readStored(database.db, alice)).toEqual([])
    const replies = await sendMail(client, '', ['alice@example.test'], Buffer.from('again\r\n'))
    expect(replies[0]).toMatch(/^250 /)
  })

  test('while a large message arrives: it is taken to its end, then 451', async () => {
    await begin(client, '', ['alice@example.test'])
    await client.ask('DATA')
    await client.sendAll(HALF)
    await until(async () => (await bodyCount()) === 1)
    proxy.cut(true)
    for (let i = 0; i < 10; i++) await client.sendAll(HALF)
    client.send('.\r\n')
    expect(await client.reply()).toMatch(/^451 4\.3\.0 /)
    expect(await readStored(database.db, alice)).toEqual([])
  })

  test('after the statement was sent: 451, though it may be there (the sender tries again)', async () => {
    await sendMail(client, '', ['alice@example.test'], Buffer.from('makes the maildrop\r\n'))
    await begin(client, '', ['alice@example.test'])
    proxy.swallowAnswers()
    await client.ask('DATA')
    client.send('x\r\n.\r\n')
    await until(async () => (await readStored(database.db, alice)).length === 2)
    proxy.cut(false)
    expect(await client.reply()).toMatch(/^451 4\.3\.0 /)
  })

  async function bodyCount(): Promise<number> {
    return (await database.db.kysely.selectFrom('bodies').select('body_id').execute()).length
  }
})

describe('storage is slower than the sender', () => {
  let other: pg.Client

  beforeEach(async () => {
    other = new pg.Client(database.url)
    await other.connect()
  })

  afterEach(() => other.end())

  /** While `run` goes, whoever writes a chunk waits. */
  async function whileChunksWait(run: () => Promise<void>): Promise<void> {
    await other.query('begin')
    await other.query('lock table body_chunks in exclusive mode')
    await run()
    await other.query('commit')
  }

  test('Ingest.write resolves when the stretch is in the database, not before', async () => {
    const ingest = new Ingest(db, { domainIds: [alice.domainId], maxOctets: 10_000_000 })
    let isTaken = false
    let writing = Promise.resolve()
    await whileChunksWait(async () => {
      writing = ingest.write(HALF).then(() => {
        isTaken = true
      })
      await until(isChunkWaiting)
      expect(isTaken).toBe(false)
    })
    await writing
    expect((await ingest.finish()).octets).toBe(HALF.length)
  })

  test('the sender is held up, however much it has, and nothing is lost', async () => {
    const parts = 100
    let sentParts = 0
    let sending = Promise.resolve()
    await begin(client, '', ['alice@example.test'])
    await client.ask('DATA')
    await whileChunksWait(async () => {
      sending = (async () => {
        for (; sentParts < parts; sentParts++) await client.sendAll(HALF)
      })()
      await until(isChunkWaiting)
      let lastSeen = -1
      // The kernel's buffers fill; then nothing moves any more.
      for (let still = 0; still < 20; still = sentParts === lastSeen ? still + 1 : 0) {
        lastSeen = sentParts
        await sleep(10)
      }
      expect(sentParts).toBeLessThan(parts / 2)
    })
    await sending
    client.send('.\r\n')
    expect(await client.reply()).toMatch(/^250 /)
    const [copy] = await readStored(database.db, alice)
    expect(copy?.body.length).toBe(parts * HALF.length)
  })

  async function isChunkWaiting(): Promise<boolean> {
    const { rowCount } = await other.query('select 1 from pg_locks where not granted')
    return (rowCount ?? 0) > 0
  }
})

describe('the worker stops', () => {
  test('an idle connection is told, a running transaction ends first', async () => {
    const idle = await openLmtp(lmtp)
    await sendMail(idle, '', ['alice@example.test'], Buffer.from('before\r\n'))
    await begin(client, '', ['alice@example.test'])
    await client.ask('DATA')
    client.send('first half, ')
    const stopped = lmtp.stop(60_000)
    expect(await idle.reply()).toMatch(/^421 4\.3\.2 /)
    await idle.closed
    await expect(lmtp.connect()).rejects.toThrow('ECONNREFUSED')
    client.send('second half\r\n.\r\n')
    expect(await client.reply()).toMatch(/^250 /)
    expect(await client.reply()).toMatch(/^421 4\.3\.2 /)
    await client.closed
    await stopped
    expect((await readStored(database.db, alice)).at(-1)?.body.toString()).toBe(
      'first half, second half\r\n',
    )
  })

  test('a sender that does not go on is not waited for longer than the grace', async () => {
    await begin(client, '', ['alice@example.test'])
    await client.ask('DATA')
    client.send('half')
    await lmtp.stop(50)
    await client.closed
    expect(await readStored(database.db, alice)).toEqual([])
  })
})
