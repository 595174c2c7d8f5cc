/** What a stranger tries before it has logged in: commands, lines and exchanges of every bad kind. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { TestAuthority, type TestCertificate } from '../../support/certificates.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode, type TestNodeOptions } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { base64, greet, LOGINS, MECHANISMS } from './logins.ts'

const ALICE = 'alice@example.test'
const PLAINTEXT = ['USER and PASS', 'PLAIN', 'LOGIN', 'OAUTHBEARER', 'XOAUTH2']

let database: TestDatabase
let certificate: TestCertificate
let node: TestNode

beforeAll(async () => {
  database = await openTestDatabase()
  certificate = await (await TestAuthority.create()).issue(['pop.example.test'])
  await addUser(database.db, ALICE, { password: 'secret', apopSecret: 'shared' })
})
afterAll(() => database.close())
afterEach(() => node.stop())

const start = async (options: Partial<TestNodeOptions> = {}) => {
  node = await startTestNode({ url: database.url, tls: certificate, ...options })
}

const greeted = async () => greet(await Pop3Client.connect(node.address))

const expectUsable = async (client: Pop3Client): Promise<void> => {
  expect(await LOGINS['USER and PASS'](client, ALICE, 'secret')).toMatch(/^\+OK/)
  expect(await client.ask('QUIT')).toMatch(/^\+OK/)
  await client.closed
}

describe('who strips STLS off the list', () => {
  const plaintext = MECHANISMS.filter(([mechanism]) => PLAINTEXT.includes(mechanism))
  test.each(plaintext)('gets no use of a password or token sent by %s', async (_, login) => {
    await start({ plaintextAuth: 'never', hasBearerProvider: true })
    const client = await greeted()
    expect(await login(client, ALICE, 'secret')).toMatch(/^-ERR/)
    expect(await client.ask('PASS secret')).toMatch(/^-ERR/)
    expect(node.logged.join('')).not.toMatch(/credential verified|login refused/)
    client.socket.destroy()
  })
})

describe('arguments that are too long', () => {
  const long = 'x'.repeat(16_000)
  test.each([
    ...['USER', 'PASS', 'APOP', 'CAPA', 'LANG', 'STLS', 'XTND', 'XTND XMIT', 'TOP 1', 'RETR'],
    ...['UIDL', 'LIST', 'NOOP', 'XCLIENT', 'EHLO'],
  ])('of %s are one bad command, and nothing is kept of them', async (verb) => {
    await start()
    const client = await greeted()
    expect(await client.ask(`${verb} ${long}`)).toBe('-ERR command line too long')
    await expectUsable(client)
    expect(node.logged.join('')).not.toContain('xxx')
  })

  test.each([300, 1_100, 5_000, 12_000])(
    'names and passwords of %i octets in AUTH are refused, whatever the mechanism',
    async (octets) => {
      await start({ isScramOffered: true, hasBearerProvider: true })
      for (const [mechanism, login] of MECHANISMS) {
        const client = await greeted()
        const name = `${'n'.repeat(octets)}@example.test`
        expect(await login(client, name, 'secret'), mechanism).toMatch(/^-ERR/)
        expect(await login(client, ALICE, 'p'.repeat(octets)), mechanism).toMatch(/^-ERR/)
        await expectUsable(client)
      }
    },
  )
})

describe('exchanges that go wrong', () => {
  test('bad base64 of one peer does not touch the exchange of another (CVE-2025-59028)', async () => {
    await start({ isScramOffered: true })
    const other = await greeted()
    expect(await other.ask(`AUTH LOGIN ${base64(ALICE)}`)).toMatch(/^\+ /)
    const noise = ['====', '\xff\xfe', 'AAA', '*=', 'Zm9v Zm9v', '\0', '%00', 'Zm9vYmF=']
    for (const octets of noise)
      for (const command of ['AUTH PLAIN', 'AUTH LOGIN', 'AUTH SCRAM-SHA-256']) {
        const client = await greeted()
        expect(await client.ask(command)).toMatch(/^\+ /)
        expect(await client.ask(octets)).toMatch(/^-ERR/)
        expect(await client.ask(`${command} ${octets}`)).toMatch(/^-ERR/)
        client.socket.destroy()
      }
    expect(await other.ask(base64('secret'))).toMatch(/^\+OK/)
    await other.ask('QUIT')
    await other.closed
  })

  test('that are given up by hundreds of peers leave no session and no place', async () => {
    await start({ isScramOffered: true, limits: { connections: 25, connectionsPerNetwork: 25 } })
    const begun = ['AUTH PLAIN', 'AUTH LOGIN', `AUTH SCRAM-SHA-256 ${base64('n,,n=a,r=nonce')}`]
    for (let round = 0; round < 10; round++) {
      const clients = await Promise.all(Array.from({ length: 24 }, greeted))
      for (const [i, client] of clients.entries())
        expect(await client.ask(begun[i % 3] ?? '')).toMatch(/^\+ /)
      for (const [i, client] of clients.entries())
        if (i % 2 === 0) client.socket.destroy()
        else client.send('*\r\nQUIT\r\n')
      await Promise.all(clients.map((client) => client.closed))
      await closedCount(24 * (round + 1))
    }
    await expectUsable(await greeted())
    expect(await database.db.kysely.selectFrom('sessions').selectAll().execute()).toEqual([])
  })
})

/** Until the node knows of so many connections that they have ended. */
async function closedCount(count: number): Promise<void> {
  const closed = () => node.logged.filter((line) => line.includes('"connection closed"')).length
  while (closed() < count) await new Promise((resolve) => setImmediate(resolve))
}

describe('commands by the hundred', () => {
  test.each([
    ['unknown', 'XYZZY\r\n', 10],
    ['malformed', 'USER\r\n', 10],
    ['good', 'CAPA\r\n', 51],
    ['for after the login', 'DELE 1\r\n', 10],
  ])('%s: the connection ends, and the rest is not read', async (_, command, count) => {
    await start()
    const client = await greeted()
    client.send(command.repeat(3_000))
    const replies = (await client.closed).toString('latin1')
    expect(replies.match(/^(\+OK|-ERR)/gm)).toHaveLength(count)
  })

  test('wrong passwords: the fifth ends the connection, by whatever mechanisms', async () => {
    await start({ isScramOffered: true, isApopOffered: true })
    const client = await greeted()
    const mechanisms = ['USER and PASS', 'PLAIN', 'APOP', 'SCRAM-SHA-256', 'LOGIN'] as const
    for (const mechanism of mechanisms)
      expect(await LOGINS[mechanism](client, ALICE, 'wrong')).toMatch(/^-ERR \[AUTH\]/)
    expect(await client.closed).toHaveLength(0)
  })
})

describe('XCLIENT and PROXY from anybody', () => {
  test('are unknown, and change nothing of who is logged', async () => {
    await start()
    const client = await greeted()
    expect(await client.ask('XCLIENT ADDR=192.0.2.9')).toMatch(/^-ERR/)
    expect(await client.ask('PROXY TCP4 192.0.2.9 192.0.2.1 1 110')).toMatch(/^-ERR/)
    await expectUsable(client)
    expect(node.logged.join('')).not.toContain('192.0.2.9')
  })
})
