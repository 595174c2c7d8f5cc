/**
 * Text of a peer that wants to be more than text: SQL, formats, line ends, escape sequences. It
 * reaches the database as a value, the log as printable ASCII inside JSON or not at all, and no
 * reply ever.
 */
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { TestAuthority, type TestCertificate } from '../../support/certificates.ts'
import { openLmtp, startTestLmtp } from '../../support/lmtp.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { proxyBlock, tlv } from '../../support/proxy-header.ts'
import { base64, greet, LOGINS, MECHANISMS } from './logins.ts'

const ALICE = 'alice@example.test'

/** As octets of latin1, which is how the test client writes them. */
const NAMES = [
  "' or 1=1 --",
  "alice'--@example.test",
  "alice@example.test';drop_table_users;--",
  'alice@example.test"',
  '$1@example.test',
  '%u%n%s%d@%h',
  // biome-ignore lint/suspicious/noTemplateCurlyInString: that is what is typed
  '${jndi:ldap://x}@example.test',
  '\\u0000@example.test',
  '../../etc/passwd',
  'al\xc3\xa9@example.test',
  'al\xff\xfe@example.test',
  '\xe2\x80\xaealice@example.test',
  'al\x1b[31mice@example.test',
  'al\x00ice@example.test',
  'al\rice@example.test',
  'al\x7fice@example.test',
  'al\xc2\x9bice@example.test',
  'alice@example.test","level":60,"msg":"login',
  `${'a'.repeat(64)}@${'b'.repeat(100)}.test`,
]

let database: TestDatabase
let certificate: TestCertificate
let node: TestNode

beforeAll(async () => {
  database = await openTestDatabase()
  certificate = await (await TestAuthority.create()).issue(['pop.example.test'])
  await addUser(database.db, ALICE, { password: 'secret', apopSecret: 'shared' })
})
afterAll(() => database.close())
beforeEach(async () => {
  node = await startTestNode({
    url: database.url,
    tls: certificate,
    isScramOffered: true,
    isApopOffered: true,
    hasBearerProvider: true,
    balancers: ['127.0.0.2'],
  })
})
afterEach(() => node.stop())

const greeted = async () => greet(await Pop3Client.connect(node.address))

/** Every line is one JSON object of one line, of printable ASCII, and only ours. */
function expectCleanLog(): void {
  for (const line of node.logged) {
    expect(line).toMatch(/^\{[\x20-\x7e]*\}\n$/)
    const { user, msg, level } = JSON.parse(line)
    if (user !== undefined) expect(user).toMatch(/^[\x21-\x7e]{1,318}$/)
    expect(msg).toMatch(
      /^(connection closed|login( refused)?|credential verified|TLS certificate in use)$/,
    )
    expect(level).toBeLessThan(60)
  }
}

describe('names', () => {
  test.each(MECHANISMS)('by %s are values, never text of ours', async (mechanism, login) => {
    for (const name of NAMES) {
      const client = await greeted()
      // What SCRAM puts around a name must stay what it is.
      const reply = await login(client, name, 'secret')
      expect(reply, name).toMatch(/^-ERR [\x20-\x7e]+$/)
      expect(reply).not.toContain('alice')
      client.socket.destroy()
      await client.closed
    }
    await node.untilLogged('"connection closed"')
    expectCleanLog()
    const rows = await sql`select from users`.execute(database.db.kysely)
    expect(rows.rows, mechanism).toHaveLength(1)
  })

  test('that are right are logged as they are', async () => {
    const client = await greeted()
    expect(await LOGINS.PLAIN(client, ALICE, 'secret')).toMatch(/^\+OK/)
    await client.ask('QUIT')
    await client.closed
    await node.untilLogged('"connection closed"')
    expectCleanLog()
    expect(node.logged.join('')).toContain(`"user":"${ALICE}"`)
  })
})

describe('arguments', () => {
  const NOISE = ['%s%s%n', '\x1b]0;title\x07', 'a\rb', '\x00', '\xff', '+OK', "'; select 1", '</b>']
  test('of every command come back in no reply', async () => {
    for (const noise of NOISE) {
      const client = await greeted()
      for (const verb of ['LANG', 'CAPA', 'XTND', 'TOP 1', 'APOP x', 'AUTH', 'AUTH PLAIN', noise]) {
        const reply = await client.ask(`${verb} ${noise}`)
        expect(reply).toMatch(/^-ERR [\x20-\x7e]+$/)
        expect(reply).not.toContain(noise)
      }
      client.socket.destroy()
      await client.closed
    }
    expectCleanLog()
  })

  test('CR, LF and NUL inside base64 are no command and no second log line', async () => {
    const client = await greeted()
    const name = 'x@y\r\nUSER alice@example.test\r\nPASS secret\r\n'
    expect(await LOGINS.PLAIN(client, name, 'secret')).toMatch(/^-ERR/)
    expect(await LOGINS.LOGIN(client, `${ALICE}\n`, 'secret')).toMatch(/^-ERR/)
    expect(await client.ask(`AUTH PLAIN ${base64(`${ALICE}\0${ALICE}\0secret\0x`)}`)).toMatch(
      /^-ERR/,
    )
    expect(await client.ask('STAT')).toMatch(/^-ERR/)
    client.socket.destroy()
    await client.closed
    expectCleanLog()
  })
})

test('a host name of TLS that holds more than one is none', async () => {
  for (const servername of ["a'b.test", 'pop.example.test\n', '%s.example.test', '../key']) {
    const client = await Pop3Client.connectTls(node.tlsAddress, { servername })
    expect(await client.line()).toMatch(/^\+OK/)
    client.socket.destroy()
    await client.closed
  }
  await node.untilLogged('"connection closed"')
  expect(node.logged.join('')).not.toMatch(/a'b|%s|\.\.\/key|\\n/)
})

test('what a balancer passes on of the client is checked too', async () => {
  await node.stop()
  node = await startTestNode({ url: database.url, balancers: ['127.0.0.0/8'] })
  const hosts = ["pop'; select 1", 'pop\r\n.test', '\x1b[31m', '\xff', 'a'.repeat(300)]
  for (const host of hosts) {
    const client = await Pop3Client.connect(node.address)
    const header = proxyBlock({ additions: [tlv(2, Buffer.from(host, 'latin1'))] })
    client.send(header.toString('latin1'))
    expect(await client.line()).toMatch(/^\+OK/)
    client.socket.destroy()
    await client.closed
  }
  const lines = ["PROXY TCP4 1.2.3.4'-- 192.0.2.1 1 2", 'PROXY TCP4 \x1b[31m 192.0.2.1 1 2']
  for (const line of lines) {
    const client = await Pop3Client.connect(node.address)
    client.send(`${line}\r\n`)
    expect(await client.closed).toHaveLength(0)
  }
  for (const line of node.logged) expect(line).toMatch(/^\{[\x20-\x7e]*\}\n$/)
  expect(node.logged.join('')).not.toMatch(/select 1|\[31m|aaaa|'--/)
})

test('the sender and recipients of a delivery are values too', async () => {
  const lmtp = await startTestLmtp(database.db)
  const client = await openLmtp(lmtp)
  const senders = ["x');drop_table_users;--@example.test", '%u@example.test', '"a\\" b"@c.test']
  for (const sender of senders) {
    expect(await client.ask(`MAIL FROM:<${sender}>`)).toMatch(/^250 /)
    for (const name of ["alice'--@example.test", "alice' or 1=1@example.test", '$2@example.test'])
      expect(await client.ask(`RCPT TO:<${name}>`)).toMatch(/^5\d\d /)
    expect(await client.ask(`RCPT TO:<${ALICE}>`)).toMatch(/^250 /)
    expect(await client.ask('RSET')).toMatch(/^250 /)
  }
  client.destroy()
  await lmtp.stop()
  for (const line of lmtp.logged) expect(line).toMatch(/^\{[\x20-\x7e]*\}\n$/)
  expect((await sql`select from users`.execute(database.db.kysely)).rows).toHaveLength(1)
})
