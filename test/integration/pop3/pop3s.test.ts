/** POP3S, RFC 8314: TLS from the first octet, and what the host name in it decides. */
import { connect as connectPlain } from 'node:net'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { TestAuthority, type TestCertificate } from '../../support/certificates.ts'
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
  certificate = await authority.issue(['pop.example.test', 'pop.customer.test'])
  await addUser(database.db, 'alice@example.test', { password: 'secret' })
  const { domainId } = await addUser(database.db, 'alice@customer.test', { password: 'other' })
  await database.db.kysely
    .insertInto('domain_hosts')
    .values({ domain_id: domainId, host_name: 'pop.customer.test' })
    .execute()
})
afterAll(() => database.close())
afterEach(() => node.stop())

const start = async (options: Partial<TestNodeOptions> = {}) => {
  node = await startTestNode({
    url: database.url,
    plaintextAuth: 'never',
    tls: certificate,
    defaultDomain: 'example.test',
    ...options,
  })
}

const logIn = async (client: Pop3Client, name: string, password: string) => {
  await client.line()
  expect(await client.ask(`USER ${name}`)).toMatch(/^\+OK/)
  return client.ask(`PASS ${password}`)
}

test.each(['TLSv1.2', 'TLSv1.3'] as const)('%s: greeted after the handshake', async (version) => {
  await start()
  const client = await Pop3Client.connectTls(node.tlsAddress, {
    minVersion: version,
    maxVersion: version,
  })
  expect(await logIn(client, 'alice@example.test', 'secret')).toMatch(/^\+OK/)
  const { raw } = await client.askMulti('CAPA')
  expect(raw.toString()).not.toContain('STLS')
  expect(await client.ask('QUIT')).toMatch(/^\+OK/)
})

test('a bare name belongs to the domain of the host name that the client asked for', async () => {
  await start()
  const customer = { servername: 'pop.customer.test' }
  const client = await Pop3Client.connectTls(node.tlsAddress, customer)
  expect(await logIn(client, 'alice', 'other')).toMatch(/^\+OK/)
  const standard = await Pop3Client.connectTls(node.tlsAddress, { servername: 'pop.example.test' })
  expect(await logIn(standard, 'alice', 'secret')).toMatch(/^\+OK/)
  const other = await Pop3Client.connectTls(node.tlsAddress, { servername: 'elsewhere.test' })
  expect(await logIn(other, 'alice', 'other')).toMatch(/^-ERR \[AUTH\]/)
  for (const each of [client, standard, other]) each.socket.destroy()
})

test('after STLS too, a bare name belongs to the domain of the host name', async () => {
  await start()
  const client = await Pop3Client.connect(node.address)
  await client.line()
  await client.startTls({ servername: 'pop.customer.test' })
  await client.ask('USER alice')
  expect(await client.ask('PASS other')).toMatch(/^\+OK/)
  client.socket.destroy()
})

test('what is no TLS is not answered, HTTP included', async () => {
  await start()
  for (const text of ['USER alice\r\n', 'GET / HTTP/1.1\r\n\r\n']) {
    const client = await Pop3Client.connect(node.tlsAddress)
    client.send(text)
    const answer = (await client.closed).toString('latin1')
    expect(answer).not.toMatch(/OK|ERR|HTTP/)
  }
  const lines = node.logged.filter((line) => line.includes('connection refused'))
  expect(lines).toHaveLength(2)
})

test('a peer that connects and says nothing is cut', async () => {
  await start({ tls: { ...certificate, handshakeMs: 200 } })
  const client = await Pop3Client.connect(node.tlsAddress)
  expect(await client.closed).toHaveLength(0)
})

test('while no certificate is there, the port closes and goes on listening', async () => {
  await start()
  node.door?.close()
  const [host, port] = node.tlsAddress.split(':')
  for (let i = 0; i < 3; i++) {
    const socket = connectPlain(Number(port), host)
    socket.on('error', () => undefined)
    await new Promise((resolve) => socket.once('close', resolve))
  }
  const plain = await Pop3Client.connect(node.address)
  expect(await plain.line()).toMatch(/^\+OK/)
  plain.socket.destroy()
})

test('autologout and a stop of the node reach encrypted sessions', async () => {
  await start({ autologoutMs: 500 })
  const idle = await Pop3Client.connectTls(node.tlsAddress)
  await idle.line()
  expect(await idle.closed).toHaveLength(0)
  await node.stop()
  await start()
  const client = await Pop3Client.connectTls(node.tlsAddress)
  await client.line()
  const stopped = node.stop()
  expect((await client.closed).toString()).toMatch(/^-ERR \[SYS\/TEMP\]/)
  await stopped
  await start()
})
