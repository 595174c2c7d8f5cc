/** What LMTP commands are answered: RFC 2033, RFC 5321, and the extensions that are offered. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Secret } from '../../../src/base/secret.ts'
import { openDatabase } from '../../../src/storage/postgres/database.ts'
import type { LineClient } from '../../support/line-client.ts'
import {
  begin,
  openLmtp,
  readStored,
  sendMail,
  startTestLmtp,
  type TestLmtp,
} from '../../support/lmtp.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase
let lmtp: TestLmtp
let alice: { domainId: number; userId: number }

beforeAll(async () => {
  database = await openTestDatabase()
  alice = await addUser(database.db, 'alice@example.test')
  await addUser(database.db, 'bob@example.test')
  await addUser(database.db, 'full@example.test', { quotaOctets: 100 })
  await addUser(database.db, 'ida@xn--bcher-kva.example')
  lmtp = await startTestLmtp(database.db, { messageMaxOctets: 1_000_000 })
})

afterAll(async () => {
  await lmtp?.stop()
  await database?.close()
})

async function withClient(run: (client: LineClient) => Promise<void>): Promise<void> {
  const client = await openLmtp(lmtp)
  try {
    await run(client)
  } finally {
    client.destroy()
  }
}

describe('greeting', () => {
  test('RFC 2033 §4.1: LHLO names exactly what is offered, HELO and EHLO are refused', async () => {
    const client = await lmtp.connect()
    expect(await client.reply()).toBe('220 mx.example.test LMTP')
    expect(await client.ask('EHLO x')).toMatch(/^500 /)
    expect(await client.ask('HELO x')).toMatch(/^500 /)
    expect(await client.ask('MAIL FROM:<a@b.example>')).toMatch(/^503 5\.5\.1 /)
    const lines = (await client.ask('LHLO client.example')).split('\n')
    expect(lines[0]).toBe('250-mx.example.test')
    expect(lines.slice(1).map((line) => line.slice(4))).toEqual([
      'PIPELINING',
      '8BITMIME',
      'SMTPUTF8',
      'ENHANCEDSTATUSCODES',
      'SIZE 1000000',
    ])
    expect(await client.ask('NOOP')).toMatch(/^250 2\.0\.0 /)
    for (const command of ['AUTH PLAIN', 'STARTTLS', 'XCLIENT ADDR=1.2.3.4', 'WIZ', 'SHELL'])
      expect(await client.ask(command)).toMatch(/^500 5\.5\.2 /)
    expect(await client.ask('QUIT')).toMatch(/^221 2\.0\.0 /)
    await client.closed
  })
})

describe('recipients', () => {
  test('an unknown user or domain is refused at RCPT, the others stay', () =>
    withClient(async (client) => {
      expect(await client.ask('MAIL FROM:<a@sender.example>')).toMatch(/^250 2\.1\.0 /)
      expect(await client.ask('RCPT TO:<nobody@example.test>')).toMatch(/^550 5\.1\.1 /)
      expect(await client.ask('RCPT TO:<alice@elsewhere.example>')).toMatch(/^550 5\.1\.1 /)
      expect(await client.ask('RCPT TO:<postmaster>')).toMatch(/^550 5\.1\.1 /)
      expect(await client.ask('DATA')).toMatch(/^503 5\.5\.1 /)
      expect(await client.ask('RCPT TO:<ALICE@Example.TEST>')).toMatch(/^250 2\.1\.5 /)
      expect(await client.ask('DATA')).toMatch(/^354 /)
      client.send('x\r\n.\r\n')
      expect(await client.reply()).toMatch(/^250 2\.1\.5 /)
    }))

  test('a full maildrop is temporary, at RCPT and after DATA', () =>
    withClient(async (client) => {
      await client.ask('MAIL FROM:<>')
      expect(await client.ask('RCPT TO:<full@example.test>')).toMatch(/^250 /)
      expect(await client.ask('RCPT TO:<bob@example.test>')).toMatch(/^250 /)
      await client.ask('DATA')
      client.send(`${'x'.repeat(200)}\r\n.\r\n`)
      const replies = await client.replies(2)
      expect(replies[0]).toMatch(/^452 4\.2\.2 /)
      expect(replies[1]).toMatch(/^250 2\.1\.5 /)
      await database.db.kysely
        .updateTable('users')
        .set({ quota_octets: 0 })
        .where('local_part', '=', 'full')
        .execute()
      await client.ask('MAIL FROM:<>')
      expect(await client.ask('RCPT TO:<full@example.test>')).toMatch(/^452 4\.2\.2 /)
    }))

  test('RFC 2033 §4.2: one reply for each RCPT, also for one user named twice, and one copy', () =>
    withClient(async (client) => {
      const before = (await readStored(database.db, alice)).length
      await begin(client, 'a@sender.example', [
        'alice@example.test',
        'bob@example.test',
        'ALICE@example.test',
        'alice@example.test',
      ])
      await client.ask('DATA')
      client.send('twice\r\n.\r\n')
      for (const reply of await client.replies(4)) expect(reply).toMatch(/^250 2\.1\.5 /)
      expect(await client.ask('NOOP')).toMatch(/^250 2\.0\.0 /)
      expect((await readStored(database.db, alice)).length).toBe(before + 1)
    }))

  test('a domain in letters of its script is found by its ASCII form', () =>
    withClient(async (client) => {
      client.send('MAIL FROM:<a@sender.example> SMTPUTF8\r\n')
      await client.reply()
      client.send(Buffer.from('RCPT TO:<ida@Bücher.example>\r\n', 'utf8'))
      expect(await client.reply()).toMatch(/^250 /)
    }))

  test('no more than 1000 in one transaction', () =>
    withClient(async (client) => {
      await client.ask('MAIL FROM:<a@sender.example>')
      client.send('RCPT TO:<alice@example.test>\r\n'.repeat(1_001))
      const replies = await client.replies(1_001)
      expect(replies.slice(0, 1_000).every((reply) => reply.startsWith('250 '))).toBe(true)
      expect(replies[1_000]).toMatch(/^452 4\.5\.3 /)
    }))
})

describe('parameters', () => {
  test('RFC 1870: a declared size above the limit is refused at MAIL', () =>
    withClient(async (client) => {
      expect(await client.ask('MAIL FROM:<a@b.example> SIZE=1000001')).toMatch(/^552 5\.3\.4 /)
      expect(await client.ask('MAIL FROM:<a@b.example> SIZE=1000000')).toMatch(/^250 /)
    }))

  test.each(['"john doe"', '"a@b"', '"<x>, (y)"', '"q\\\\\\"q"', '""'])(
    'RFC 5321 §4.1.2: a sender may be quoted: %s',
    (localPart) =>
      withClient(async (client) => {
        const sender = `${localPart}@sender.example`
        expect(await client.ask(`MAIL FROM:<${sender}> SIZE=10 BODY=8BITMIME`)).toMatch(/^250 /)
        expect(await client.ask('RCPT TO:<alice@example.test>')).toMatch(/^250 /)
        expect(await client.ask('DATA')).toMatch(/^354 /)
        expect(await client.ask('Subject: quoted\r\n\r\n.')).toMatch(/^250 /)
        const stored = await readStored(database.db, alice)
        const [returnPath] = stored.at(-1)?.prefix.split('\r\n') ?? []
        expect(returnPath).toBe(`Return-Path: <${sender.replace(/[<>]/g, '')}>`)
      }),
  )

  test('a sender that no header line could hold is refused', () =>
    withClient(async (client) => {
      const long = 'x'.repeat(600)
      expect(await client.ask(`MAIL FROM:<${long}@sender.example>`)).toMatch(/^501 5\.1\.7 /)
    }))

  test('RFC 5321 §4.1.1.11: what was not offered is 555', () =>
    withClient(async (client) => {
      expect(await client.ask('MAIL FROM:<a@b.example> RET=HDRS')).toMatch(/^555 5\.5\.4 /)
      expect(await client.ask('MAIL FROM:<a@b.example> BODY=8BITMIME SMTPUTF8')).toMatch(/^250 /)
      expect(await client.ask('RCPT TO:<alice@example.test> NOTIFY=NEVER')).toMatch(/^555 5\.5\.4 /)
    }))

  test('RFC 6531: a local part beyond ASCII needs SMTPUTF8', () =>
    withClient(async (client) => {
      client.send(Buffer.from('MAIL FROM:<jörg@b.example>\r\n', 'utf8'))
      expect(await client.reply()).toMatch(/^553 5\.6\.7 /)
      client.send(Buffer.from('MAIL FROM:<jörg@b.example> SMTPUTF8\r\n', 'utf8'))
      expect(await client.reply()).toMatch(/^250 /)
    }))

  test('senders of the old world are taken', () =>
    withClient(async (client) => {
      for (const sender of ['a..b@docomo.example', '.x@y.example', 'x.@[192.0.2.1]', '']) {
        expect(await client.ask(`MAIL FROM:<${sender}>`)).toMatch(/^250 /)
        await client.ask('RSET')
      }
    }))
})

describe('a stream of commands', () => {
  test('RFC 2920: a whole dialogue in one packet, message and QUIT included', async () => {
    const client = await lmtp.connect()
    await client.reply()
    client.send(
      'LHLO c.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<alice@example.test>\r\n' +
        'RCPT TO:<no@example.test>\r\nDATA\r\nSubject: piped\r\n\r\nx\r\n.\r\nNOOP\r\nQUIT\r\n',
    )
    const codes = (await client.replies(8)).map((reply) => reply.slice(0, 3))
    expect(codes).toEqual(['250', '250', '250', '550', '354', '250', '250', '221'])
  })

  test('several messages over one connection; RSET forgets the recipients', () =>
    withClient(async (client) => {
      for (const text of ['one\r\n', 'two\r\n']) {
        const replies = await sendMail(client, '', ['alice@example.test'], Buffer.from(text))
        expect(replies[0]).toMatch(/^250 /)
      }
      await begin(client, '', ['alice@example.test'])
      expect(await client.ask('RSET')).toMatch(/^250 2\.0\.0 /)
      expect(await client.ask('DATA')).toMatch(/^503 /)
      const last = (await readStored(database.db, alice)).slice(-2)
      expect(last.map((copy) => copy.body.toString())).toEqual(['one\r\n', 'two\r\n'])
    }))

  test('a line without end is not kept', async () => {
    const client = await openLmtp(lmtp)
    client.send('x'.repeat(5_000))
    expect(await client.reply()).toMatch(/^421 /)
    await client.closed
  })
})

describe('who may deliver', () => {
  test('a peer outside the trusted networks is told 554 5.7.1 and closed', async () => {
    const strict = await startTestLmtp(database.db, { trusted: '192.0.2.0/24' })
    const client = await strict.connect()
    expect(await client.reply()).toMatch(/^554 5\.7\.1 /)
    await client.closed
    await strict.stop()
  })
})

describe('limits of a connection', () => {
  test('one too many is told 421 4.3.2; when one is gone the next may come', async () => {
    const small = await startTestLmtp(database.db, { connectionsMax: 1 })
    const first = await openLmtp(small)
    const second = await small.connect()
    expect(await second.reply()).toMatch(/^421 4\.3\.2 /)
    await second.closed
    await first.ask('QUIT')
    await first.closed
    const third = await small.connect()
    expect(await third.reply()).toMatch(/^220 /)
    third.destroy()
    await small.stop()
  })

  test('a silent one is told 421 4.4.2, in the middle of a message too', async () => {
    const impatient = await startTestLmtp(database.db, { idleTimeoutMs: 100 })
    const silent = await openLmtp(impatient)
    const halfway = await openLmtp(impatient)
    await begin(halfway, '', ['alice@example.test'])
    await halfway.ask('DATA')
    halfway.send('half')
    expect(await silent.reply()).toMatch(/^421 4\.4\.2 /)
    expect(await halfway.reply()).toMatch(/^421 4\.4\.2 /)
    await Promise.all([silent.closed, halfway.closed])
    await impatient.stop()
  })
})

test('more commands at once than replies may wait to be sent: each gets its own', async () => {
  await withClient(async (client) => {
    const count = 30_000
    client.send('NOOP\r\n'.repeat(count))
    const replies = await client.replies(count)
    expect(replies.every((reply) => reply.startsWith('250 2.0.0 '))).toBe(true)
  })
})

describe('the database is away', () => {
  test('RCPT is answered 451 4.3.0, the connection stays', async () => {
    const db = openDatabase({
      url: new Secret('postgres://popgres@127.0.0.1:1/none'),
      applicationName: 'popgres test',
      connectionsMax: 2,
    })
    const away = await startTestLmtp(db)
    const client = await openLmtp(away)
    await client.ask('MAIL FROM:<a@b.example>')
    expect(await client.ask('RCPT TO:<alice@example.test>')).toMatch(/^451 4\.3\.0 /)
    expect(await client.ask('DATA')).toMatch(/^503 /)
    expect(away.logged.join('')).toContain('STORAGE_UNAVAILABLE')
    client.destroy()
    await away.stop()
    await db.close()
  })
})
