/** STLS over a real socket: TLS begins, and nothing that was sent before it counts (RFC 2595 §4). */
import { connect } from 'node:net'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { TestAuthority, type TestCertificate } from '../../support/certificates.ts'
import { longMessage, putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode, type TestNodeOptions } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase
let authority: TestAuthority
let certificate: TestCertificate
let node: TestNode

beforeAll(async () => {
  database = await openTestDatabase()
  authority = await TestAuthority.create()
  certificate = await authority.issue(['pop.example.test'])
  const { domainId, userId } = await addUser(database.db, 'alice@example.test', {
    password: 'secret',
  })
  await putMessage(database.db, domainId, [userId], 'A: b\r\n\r\none\r\n')
  await putMessage(database.db, domainId, [userId], longMessage(2_000_000))
})
afterAll(() => database.close())
afterEach(() => node.stop())

const start = async (options: Partial<TestNodeOptions> = {}) => {
  node = await startTestNode({
    url: database.url,
    plaintextAuth: 'never',
    tls: certificate,
    ...options,
  })
}

const greeted = async (): Promise<Pop3Client> => {
  const client = await Pop3Client.connect(node.address)
  expect(await client.line()).toMatch(/^\+OK/)
  return client
}

const capabilities = async (client: Pop3Client) =>
  (await client.askMulti('CAPA')).raw.toString().split('\r\n')

test.each(['TLSv1.2', 'TLSv1.3'] as const)('%s: a whole session after STLS', async (version) => {
  await start()
  const client = await greeted()
  expect(await capabilities(client)).toContain('STLS')
  expect(await capabilities(client)).not.toContain('USER')
  const socket = await client.startTls({
    minVersion: version,
    maxVersion: version,
    rejectUnauthorized: true,
    ca: authority.cert,
    servername: 'pop.example.test',
  })
  expect(socket.alpnProtocol).toBe('pop3')
  expect(await capabilities(client)).not.toContain('STLS')
  expect(await capabilities(client)).toContain('USER')
  expect(await client.ask('USER alice@example.test')).toMatch(/^\+OK/)
  expect(await client.ask('PASS secret')).toMatch(/^\+OK/)
  expect((await client.retrieve('RETR 1')).toString()).toContain('one')
  expect((await client.retrieve('RETR 2')).equals(longMessage(2_000_000))).toBe(true)
  expect(await client.ask('QUIT')).toMatch(/^\+OK/)
  expect(await client.closed).toHaveLength(0)
  expect(JSON.parse(await node.untilLogged('"login"'))).toMatchObject({
    ...{ client: '127.0.0.1', tls: version, host: 'pop.example.test' },
    ...{ user: 'alice@example.test', mechanism: 'password' },
  })
})

test('commands in the segment of STLS are forgotten, not obeyed inside TLS', async () => {
  await start({ plaintextAuth: 'always' })
  const client = await greeted()
  client.send('STLS\r\nUSER alice@example.test\r\nPASS secret\r\nSTAT\r\nNOO')
  expect(await client.line()).toMatch(/^\+OK/)
  await client.shakeHands()
  expect(await client.ask('PASS secret')).toMatch(/^-ERR/)
  expect(await client.ask('STAT')).toMatch(/^-ERR/)
  expect(node.logged.join('')).not.toContain('credential verified')
  client.socket.destroy()
})

test('a name that was given before STLS is not known after it', async () => {
  await start({ plaintextAuth: 'always' })
  const client = await greeted()
  expect(await client.ask('USER alice@example.test')).toMatch(/^\+OK/)
  await client.startTls()
  expect(await client.ask('PASS secret')).toMatch(/^-ERR/)
  client.socket.destroy()
})

test('octets that slip in between STLS and the handshake end the connection', async () => {
  await start({ plaintextAuth: 'always' })
  const client = await greeted()
  expect(await client.ask('STLS')).toMatch(/^\+OK/)
  client.send('USER alice@example.test\r\nPASS secret\r\n')
  const rest = (await client.closed).toString('latin1')
  expect(rest).not.toContain('+OK')
  await node.untilLogged('"reason":"tls"')
  expect(node.logged.join('')).not.toContain('credential verified')
})

test('a peer that goes away in the handshake leaves nothing behind', async () => {
  await start({ tls: { ...certificate, handshakeMs: 1_000 } })
  const client = await greeted()
  expect(await client.ask('STLS')).toMatch(/^\+OK/)
  client.socket.destroy()
  await node.untilLogged('connection closed')
})

test('a handshake that never ends is cut', async () => {
  await start({ tls: { ...certificate, handshakeMs: 200 } })
  const client = await greeted()
  expect(await client.ask('STLS')).toMatch(/^\+OK/)
  await client.closed
  await node.untilLogged('"reason":"tls"')
})

test('an HTTP verb that is the first thing to be said inside TLS ends the connection', async () => {
  await start()
  const early = await Pop3Client.connectTls(node.tlsAddress)
  await early.line()
  const late = await greeted()
  await late.startTls()
  for (const client of [early, late]) {
    client.send('GET / HTTP/1.1\r\nHost: pop.example.test\r\nUSER a\r\n\r\n')
    expect(await client.closed).toHaveLength(0)
  }
})

test('STLS is neither listed nor obeyed without a certificate, nor twice', async () => {
  node = await startTestNode({ url: database.url })
  const plain = await greeted()
  expect(await capabilities(plain)).not.toContain('STLS')
  expect(await plain.ask('STLS')).toMatch(/^-ERR/)
  plain.socket.destroy()
  await node.stop()
  await start()
  const client = await greeted()
  await client.startTls()
  expect(await client.ask('STLS')).toMatch(/^-ERR/)
  client.socket.destroy()
})

test('a stop of the node ends an encrypted session in words, and an unfinished handshake', async () => {
  await start()
  const client = await greeted()
  await client.startTls()
  const other = await greeted()
  expect(await other.ask('STLS')).toMatch(/^\+OK/)
  await node.stop()
  expect((await client.closed).toString()).toMatch(/^-ERR \[SYS\/TEMP\]/)
  await other.closed
  node = await startTestNode({ url: database.url })
})

test('a client that sends all and closes its side gets every reply inside TLS', async () => {
  await start()
  const client = await greeted()
  await client.startTls()
  client.send('USER alice@example.test\r\nPASS secret\r\nRETR 2\r\nRETR 1\r\nQUIT\r\n')
  client.socket.end()
  const all = (await client.closed).toString('latin1')
  expect(all).toMatch(/one\r\n\.\r\n\+OK [^\r]*\r\n$/)
  expect(all.length).toBeGreaterThan(2_000_000)
})

test('replies to commands before STLS arrive before the handshake', async () => {
  await start()
  const [host, port] = node.address.split(':')
  const socket = connect(Number(port), host)
  const received: Buffer[] = []
  socket.on('data', (chunk) => received.push(chunk))
  socket.write(`${'CAPA\r\n'.repeat(40)}STLS\r\n`)
  const text = () => Buffer.concat(received).toString('latin1')
  const done = () => text().split('\r\n.\r\n').length === 41 && text().endsWith('\r\n')
  while (!done()) await new Promise((resolve) => socket.once('data', resolve))
  expect(text().split('\r\n.\r\n').at(-1)).toMatch(/^\+OK/)
  socket.destroy()
})
