/** What becomes of a message: stored octets, one body a domain, privacy, the end of DATA. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  begin,
  openLmtp,
  readStored,
  type StoredCopy,
  sendMail,
  startTestLmtp,
  type TestLmtp,
  toStored,
} from '../../support/lmtp.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

type User = { domainId: number; userId: number }

let database: TestDatabase
let lmtp: TestLmtp
let alice: User
let bob: User
let carol: User

beforeAll(async () => {
  database = await openTestDatabase()
  alice = await addUser(database.db, 'alice@example.test')
  bob = await addUser(database.db, 'bob@example.test')
  carol = await addUser(database.db, 'carol@other.test')
  lmtp = await startTestLmtp(database.db, { messageMaxOctets: 2_000_000 })
})

afterAll(async () => {
  await lmtp?.stop()
  await database?.close()
})

async function lastOf(user: User): Promise<StoredCopy> {
  const copy = (await readStored(database.db, user)).at(-1)
  if (copy === undefined) throw new Error('nothing was delivered')
  return copy
}

/** Sends these octets after 354 as they are, to alice; returns what was stored. */
async function sendRaw(...packets: (string | Buffer)[]): Promise<string> {
  const client = await openLmtp(lmtp)
  await begin(client, '', ['alice@example.test'])
  await client.ask('DATA')
  for (const packet of packets) await client.sendAll(Buffer.from(packet as string, 'latin1'))
  expect(await client.reply()).toMatch(/^250 2\.1\.5 /)
  // Nothing that came in the message is taken for a command.
  expect(await client.ask('NOOP')).toMatch(/^250 2\.0\.0 /)
  client.destroy()
  return (await lastOf(alice)).body.toString('latin1')
}

describe('one message for recipients of two domains', () => {
  const recipients = ['alice@example.test', 'bob@example.test', 'carol@other.test']
  let copies: [StoredCopy, StoredCopy, StoredCopy]

  beforeAll(async () => {
    const client = await openLmtp(lmtp)
    const message = Buffer.from('Subject: hello\r\n\r\nto all of you\r\n')
    const replies = await sendMail(client, 'sender@from.example', recipients, message)
    expect(replies.map((reply) => reply.slice(0, 9))).toEqual(Array(3).fill('250 2.1.5'))
    client.destroy()
    copies = [await lastOf(alice), await lastOf(bob), await lastOf(carol)]
  })

  test('the message is as it came, octets count prefix and body', () => {
    for (const { octets, prefix, body } of copies) {
      expect(body.toString()).toBe('Subject: hello\r\n\r\nto all of you\r\n')
      expect(octets).toBe(Buffer.byteLength(prefix) + body.length)
    }
  })

  test('one body in each domain', async () => {
    expect(copies[0].bodyId).toBe(copies[1].bodyId)
    expect(copies[0].bodyId).not.toBe(copies[2].bodyId)
  })

  test('no address of another recipient stands in a copy', () => {
    const names = ['alice', 'bob', 'carol']
    names.forEach((name, index) => {
      const text = `${copies[index]?.prefix}${copies[index]?.body}`
      expect(text).toContain(`Delivered-To: ${name}@`)
      for (const other of names.filter((candidate) => candidate !== name))
        expect(text).not.toContain(other)
    })
  })

  test('the trace says from where, through whom, how, for whom and when', () => {
    const unfolded = copies[2].prefix.replace(/\r\n +/g, ' ')
    expect(unfolded).toMatch(
      /^Return-Path: <sender@from\.example>\r\nDelivered-To: carol@other\.test\r\nReceived: from client\.example\.test \(\[127\.0\.0\.1\]\) by mx\.example\.test with LMTP id [0-9a-f-]{36} for <carol@other\.test>; Thu, 13 Nov 2025 20:26:07 \+0000\r\n$/,
    )
  })
})

describe('the trace of a message', () => {
  test('with SMTPUTF8 says so and keeps the sender', async () => {
    const client = await openLmtp(lmtp)
    client.send(Buffer.from('MAIL FROM:<jörg@b.example> BODY=8BITMIME SMTPUTF8\r\n', 'utf8'))
    await client.reply()
    await client.ask('RCPT TO:<bob@example.test>')
    await client.ask('DATA')
    client.send(Buffer.from('Subject: Grüße\r\n\r\nä\r\n.\r\n', 'utf8'))
    expect(await client.reply()).toMatch(/^250 /)
    client.destroy()
    const { prefix, body } = await lastOf(bob)
    expect(prefix).toContain('Return-Path: <jörg@b.example>\r\n')
    expect(prefix.replace(/\r\n +/g, ' ')).toContain('with UTF8LMTP id')
    expect(body.toString('utf8')).toBe('Subject: Grüße\r\n\r\nä\r\n')
  })
})

describe('octets on their way in', () => {
  test('NUL, 8-bit and bare CR stay, a bare LF becomes CRLF', async () => {
    expect(await sendRaw('a\x00\xff\x80\rb\nc\r\n.\r\n')).toBe('a\x00\xff\x80\rb\r\nc\r\n')
  })

  test('an empty message, and one of an empty line', async () => {
    expect(await sendRaw('.\r\n')).toBe('')
    expect(await sendRaw('\r\n.\r\n')).toBe('\r\n')
  })

  test('RFC 5321 §4.5.2: stuffed dots are taken off, also where packets are cut', async () => {
    expect(await sendRaw('..\r\n...x\r\n. .\r\n..\r\n.\r\n')).toBe('.\r\n..x\r\n. .\r\n.\r\n')
    const wire = '..a\r\n..\r\n\r\n..b\r\n.\r\n'
    expect(await sendRaw(...wire)).toBe('.a\r\n.\r\n\r\n.b\r\n')
  })

  test('a bare LF ends a line here too: a dot stuffed after it is taken off', async () => {
    expect(await sendRaw('a\n..b\n.c\r\n.\r\n')).toBe('a\r\n.b\r\n.c\r\n')
  })

  test.each(['\n.\n', '\n.\r\n', '\r.\r', '\r\n.\n', '\r\n.\r', '\r.\r\n', '\n.\r'])(
    'RFC 5321 §4.1.1.4: %j does not end the message',
    async (lookalike) => {
      const smuggled = 'MAIL FROM:<evil@b.example>\r\nRCPT TO:<bob@example.test>\r\nDATA\r\nx'
      const stored = await sendRaw(`a${lookalike}${smuggled}\r\n.\r\n`)
      const whole = Buffer.from(`a${lookalike}${smuggled}\r\n`)
      expect(stored).toBe(toStored(whole).toString())
    },
  )
})

describe('large messages', () => {
  test('go in stretch by stretch and come out octet for octet, one body a domain', async () => {
    const lines = Array.from({ length: 20_000 }, (_, i) => `.${i} ${'y'.repeat(i % 90)}\r\n`)
    const message = Buffer.from(lines.join(''), 'latin1')
    expect(message.length).toBeGreaterThan(3 * 259_072)
    const client = await openLmtp(lmtp)
    const recipients = ['alice@example.test', 'bob@example.test', 'carol@other.test']
    const replies = await sendMail(client, '', recipients, message)
    expect(replies.every((reply) => reply.startsWith('250 '))).toBe(true)
    client.destroy()
    for (const user of [alice, bob, carol])
      expect((await lastOf(user)).body.equals(message)).toBe(true)
    expect((await lastOf(alice)).bodyId).toBe((await lastOf(bob)).bodyId)
  })

  test.each([8_095, 8_096, 8_097, 259_071, 259_072, 259_073, 518_144])(
    'of %d octets',
    async (octets) => {
      const message = `${'z'.repeat(octets - 2)}\r\n`
      expect((await sendRaw(`${message}.\r\n`)) === message).toBe(true)
    },
  )

  test('above the limit are refused for every recipient, and the connection goes on', async () => {
    const before = (await readStored(database.db, alice)).length
    const client = await openLmtp(lmtp)
    await begin(client, '', ['alice@example.test', 'carol@other.test'])
    await client.ask('DATA')
    // Ten times the limit: more than lies in the kernel, so the server is past it.
    for (let i = 0; i < 20; i++) await client.sendAll(Buffer.from('line\r\n'.repeat(160_000)))
    expect(client.isSilent).toBe(true)
    client.send('.\r\n')
    for (const reply of await client.replies(2)) expect(reply).toMatch(/^552 5\.3\.4 /)
    const replies = await sendMail(client, '', ['alice@example.test'], Buffer.from('small\r\n'))
    expect(replies[0]).toMatch(/^250 /)
    expect((await readStored(database.db, alice)).length).toBe(before + 1)
    client.destroy()
  })

  test('the limit counts CRLF line ends and what is stored', async () => {
    const exact = await startTestLmtp(database.db, { messageMaxOctets: 1_000 })
    const client = await openLmtp(exact)
    const body = `${'\r\n'.repeat(499)}`
    const fits = await sendMail(client, '', ['alice@example.test'], Buffer.from(`${body}\r\n`))
    expect(fits[0]).toMatch(/^250 /)
    await begin(client, '', ['alice@example.test'])
    await client.ask('DATA')
    client.send(`${'\n'.repeat(501)}\r\n.\r\n`)
    expect(await client.reply()).toMatch(/^552 5\.3\.4 /)
    client.destroy()
    await exact.stop()
  })
})
