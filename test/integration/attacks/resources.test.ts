/** Who wants all of our memory or processor: floods after the login, huge maildrops, hostile mail. */
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { readClientHello } from '../../../src/server/tls/client-hello.ts'
import { openLmtp, sendMail, startTestLmtp } from '../../support/lmtp.ts'
import { putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

const SMALL = 'Subject: small\r\n\r\nbody\r\n'

let database: TestDatabase
let node: TestNode
let userCount = 0

beforeAll(async () => {
  database = await openTestDatabase()
  await addUser(database.db, 'witness@example.test', { password: 'secret' })
})
afterAll(() => database.close())
beforeEach(async () => {
  node = await startTestNode({ url: database.url })
})
afterEach(() => node.stop())

async function newUser(messages: number) {
  const name = `user${++userCount}@example.test`
  const ids = await addUser(database.db, name, { password: 'secret' })
  for (let i = 0; i < messages; i++)
    await putMessage(database.db, ids.domainId, [ids.userId], SMALL)
  return { name, ...ids }
}

const logIn = (name: string) => Pop3Client.login(node.address, name, 'secret')

/** Somebody else is served meanwhile. */
async function expectOthersServed(): Promise<void> {
  const client = await logIn('witness@example.test')
  expect(await client.ask('STAT')).toBe('+OK 0 0')
  expect(await client.ask('QUIT')).toMatch(/^\+OK/)
  await client.closed
}

describe('after the login', () => {
  test('thousands of DELE and RSET in one go leave everything as it was', async () => {
    const client = await logIn((await newUser(3)).name)
    const rounds = 5_000
    client.send('DELE 1\r\nDELE 3\r\nDELE 1\r\nRSET\r\n'.repeat(rounds))
    await expectOthersServed()
    for (let i = 0; i < rounds; i++)
      for (const start of ['+OK', '+OK', '-ERR', '+OK'])
        expect((await client.line()).startsWith(start)).toBe(true)
    expect(await client.ask('STAT')).toBe(`+OK 3 ${3 * SMALL.length}`)
    await client.ask('QUIT')
    await client.closed
  })

  test('a peer that asks without end and reads nothing is not read from any more', async () => {
    const client = await logIn((await newUser(1)).name)
    client.socket.pause()
    const octets = 48_000_000
    client.socket.write(Buffer.alloc(octets, 'NOOP\r\n'))
    await expectOthersServed()
    await expectOthersServed()
    expect(client.socket.writableLength).toBeGreaterThan(0)
    expect(process.memoryUsage().arrayBuffers).toBeLessThan(octets + 64_000_000)
    client.socket.destroy()
  })

  test('bad commands end a session too, and delete nothing', async () => {
    const { name } = await newUser(1)
    const client = await logIn(name)
    client.send(`DELE 1\r\n${'XYZZY\r\n'.repeat(30)}QUIT\r\n`)
    expect((await client.closed).toString().match(/^-ERR/gm)).toHaveLength(10)
    await node.untilLogged('"connection closed"')
    const again = await logIn(name)
    expect(await again.ask('STAT')).toBe(`+OK 1 ${SMALL.length}`)
    await again.ask('QUIT')
  })
})

test('a maildrop of 100000 messages is listed, marked and left, and others are served', async () => {
  const count = 100_000
  const { name, domainId, userId } = await newUser(1)
  await sql`
    insert into messages (domain_id, user_id, uid, octets, body_id)
    select domain_id, user_id, n, octets, body_id
    from messages, generate_series(2, ${count}::int) n
    where domain_id = ${domainId} and user_id = ${userId}`.execute(database.db.kysely)
  await sql`
    update maildrops set message_count = ${count}, octets = ${count * SMALL.length},
      next_uid = ${count + 1}
    where domain_id = ${domainId} and user_id = ${userId}`.execute(database.db.kysely)
  const client = await logIn(name)
  expect(await client.ask('STAT')).toBe(`+OK ${count} ${count * SMALL.length}`)
  client.socket.pause()
  client.send('LIST\r\nUIDL\r\n')
  await expectOthersServed()
  client.socket.resume()
  for (const command of ['LIST', 'UIDL'])
    for (const end = lastOf(command, count); ; )
      if (end.test(await client.line())) {
        expect(await client.line()).toBe('.')
        break
      }
  client.send(Array.from({ length: count }, (_, i) => `DELE ${count - i}\r\n`).join(''))
  await expectOthersServed()
  for (let i = 0; i < count; i++)
    if (!(await client.line()).startsWith('+OK')) throw new Error(`DELE ${count - i} failed`)
  expect(await client.ask('STAT')).toBe('+OK 0 0')
  expect(await client.ask('RSET')).toMatch(/^\+OK/)
  expect((await client.retrieve(`RETR ${count}`)).toString()).toBe(SMALL)
  expect(await client.ask('QUIT')).toMatch(/^\+OK/)
  await client.closed
})

const lastOf = (command: string, count: number): RegExp =>
  new RegExp(command === 'LIST' ? `^${count} ${SMALL.length}$` : `^${count} \\S+$`)

/** What has kept parsers of mail busy for minutes; here nothing of a message is parsed. */
const HOSTILE: [string, () => string][] = [
  ['500000 addresses (CVE-2024-23184)', () => `To: ${'a@b.test, '.repeat(500_000)}\r\n\r\n.\r\n`],
  ['a header line of 8 MB (CVE-2024-23185)', () => `Subject: ${'x'.repeat(8_000_000)}\r\n\r\n`],
  ['200000 header fields', () => `${'X-A: (((((\r\n'.repeat(200_000)}\r\nbody\r\n`],
  [
    '100000 pieces of a parameter (CVE-2026-27859)',
    () => `Content-Type: text/plain${parameters(100_000)}\r\n\r\nbody\r\n`,
  ],
  ['parts in parts, 20000 deep (CVE-2026-26312)', () => nested(20_000)],
  ['nothing but dots', () => '.\r\n'.repeat(500_000)],
]

const parameters = (count: number): string =>
  Array.from({ length: count }, (_, i) => `;\r\n name*${i}*=%FF%00`).join('')

const nested = (depth: number): string =>
  `${Array.from({ length: depth }, () => 'Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n').join('')}--b--\r\n`

describe('mail made to keep parsers busy', () => {
  test.each(HOSTILE)('%s comes in and goes out as it is', async (_, make) => {
    const { name } = await newUser(0)
    const message = Buffer.from(make(), 'latin1')
    const lmtp = await startTestLmtp(database.db)
    const sender = await openLmtp(lmtp)
    const replies = await sendMail(sender, 'x@example.test', [name], message)
    expect(replies.join()).toMatch(/^250/)
    await lmtp.stop()
    const client = await logIn(name)
    const whole = await client.retrieve('RETR 1')
    expect(whole.subarray(whole.length - message.length).equals(message)).toBe(true)
    const top = await client.retrieve('TOP 1 0')
    expect(whole.subarray(0, top.length).equals(top)).toBe(true)
    await client.ask('QUIT')
  })
})

describe('a TLS hello', () => {
  // A hello of 16128 octets is announced, and records without any octets of it follow.
  const HEAD = Buffer.from('16030100040100' + '3f00', 'hex')
  const EMPTY_RECORD = Buffer.from('1603010000', 'hex')

  test('in endless empty records is given up', () => {
    const octets = Buffer.concat([HEAD, ...Array<Buffer>(20_000).fill(EMPTY_RECORD)])
    expect(readClientHello(octets).kind).toBe('read')
  })
})
