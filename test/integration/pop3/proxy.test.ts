/** PROXY headers over real sockets: whose word is taken, and what follows from it. */
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { TestAuthority, type TestCertificate } from '../../support/certificates.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode, type TestNodeOptions } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { proxyBlock, tlv } from '../../support/proxy-header.ts'

const LINE = 'PROXY TCP4 192.0.2.7 198.51.100.1 56324 110\r\n'
const SSL = tlv(0x20, [1, 0, 0, 0, 0])
const HOST = tlv(0x02, Buffer.from('pop.customer.test'))

let database: TestDatabase
let certificate: TestCertificate
let node: TestNode

beforeAll(async () => {
  database = await openTestDatabase()
  certificate = await (await TestAuthority.create()).issue(['pop.example.test'])
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
  const balancers = ['127.0.0.0/8']
  node = await startTestNode({ url: database.url, tls: certificate, balancers, ...options })
}

const relayed = async (header: string | Buffer, address = node.address): Promise<Pop3Client> => {
  const client = await Pop3Client.connect(address)
  client.socket.write(header)
  return client
}

const lists = async (client: Pop3Client, capability: RegExp) =>
  capability.test((await client.askMulti('CAPA')).raw.toString())

test('the client that a balancer speaks for is logged, and shown as the session', async () => {
  await start({ plaintextAuth: 'always' })
  for (const header of [LINE, proxyBlock({ client: '192.0.2.7' })]) {
    const client = await relayed(header)
    expect(await client.line()).toMatch(/^\+OK/)
    await client.ask('USER alice@example.test')
    expect(await client.ask('PASS secret')).toMatch(/^\+OK/)
    const session = await database.db.kysely
      .selectFrom('sessions')
      .select('client')
      .executeTakeFirstOrThrow()
    expect(session.client).toBe('192.0.2.7')
    await client.ask('QUIT')
  }
  const clients = node.logged.filter((line) => /"(login|connection closed)"/.test(line))
  for (const line of clients) expect(line).toContain('"client":"192.0.2.7"')
})

test('the greeting waits for the header, however its octets come', async () => {
  await start()
  const client = await Pop3Client.connect(node.address)
  for (const octet of proxyBlock({ client: '2001:db8:0:0:0:0:0:7', additions: [SSL] }))
    await new Promise((resolve) => client.socket.write(Buffer.from([octet]), resolve))
  expect(await client.line()).toMatch(/^\+OK/)
  client.socket.destroy()
})

test('what follows the header in one segment is POP3, or TLS on its port', async () => {
  await start()
  const client = await relayed(`${LINE}CAPA\r\nQUIT\r\n`)
  expect((await client.closed).toString()).toMatch(
    /^\+OK [\s\S]*UIDL[\s\S]*\r\n\.\r\n\+OK [^\r]*\r\n$/,
  )
  const encrypted = await relayed(LINE, node.tlsAddress)
  await encrypted.shakeHands()
  expect(await encrypted.line()).toMatch(/^\+OK/)
  expect(await lists(encrypted, /^USER/m)).toBe(true)
  encrypted.socket.destroy()
})

test.each([
  ['nothing of the kind', 'CAPA\r\n'],
  ['a line that is wrong', 'PROXY TCP4 192.0.2.7 198.51.100.1 56324 110\n'],
  ['TLS', Buffer.from([22, 3, 1, 0, 5, 1])],
])('a balancer that begins with %s is cut without a word', async (_, octets) => {
  await start()
  const client = await relayed(octets)
  expect(await client.closed).toHaveLength(0)
  expect(await node.untilLogged('connection refused')).toContain('"reason":"no PROXY header"')
})

test('a balancer that closes its side before the header is whole is cut', async () => {
  await start()
  const client = await relayed('PROXY TCP4 192.0.2.7')
  client.socket.end()
  expect(await client.closed).toHaveLength(0)
})

test('a balancer that does not finish its header is cut', async () => {
  await start({ pace: { proxyHeaderMs: 200 } })
  const client = await relayed('PROXY TCP4 192.0.2.7 ')
  expect(await client.closed).toHaveLength(0)
})

test.each(['address', 'tlsAddress'] as const)(
  'who closes its side while its host is looked up keeps no place (%s)',
  async (port) => {
    await start({ limits: { connections: 1 } })
    const header = proxyBlock({ client: '192.0.2.7', additions: [HOST] })
    const client = await database.db.kysely.transaction().execute(async (transaction) => {
      await sql`LOCK TABLE domain_hosts`.execute(transaction)
      const waiting = sql`SELECT FROM pg_locks WHERE NOT granted`
      const early = await relayed(header, node[port])
      while ((await waiting.execute(transaction)).rows.length === 0);
      await new Promise<void>((resolve) => early.socket.end(resolve))
      return early
    })
    expect(await client.closed).toHaveLength(0)
    expect(await node.untilLogged('connection refused')).toContain('"reason":"the peer is gone"')
    const next = await relayed(header)
    expect(await next.line()).toMatch(/^\+OK/)
    next.socket.destroy()
  },
)

test('from others a PROXY header is a bad command, and changes nothing', async () => {
  await start({ balancers: ['192.0.2.0/24'] })
  const client = await relayed(LINE)
  expect(await client.line()).toMatch(/^\+OK/)
  expect(await client.line()).toMatch(/^-ERR/)
  client.socket.destroy()
  expect(await node.untilLogged('connection closed')).toContain('"client":"127.0.0.1"')
})

test('TLS that ended at the balancer counts, and is not offered again', async () => {
  await start({ plaintextAuth: 'never' })
  const encrypted = await relayed(proxyBlock({ client: '192.0.2.7', additions: [SSL] }))
  await encrypted.line()
  expect(await lists(encrypted, /^USER/m)).toBe(true)
  expect(await lists(encrypted, /^STLS/m)).toBe(false)
  const plain = await relayed(proxyBlock({ client: '192.0.2.7' }))
  await plain.line()
  expect(await lists(plain, /^USER/m)).toBe(false)
  expect(await lists(plain, /^STLS/m)).toBe(true)
  for (const client of [encrypted, plain]) client.socket.destroy()
})

test.each([
  'PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n',
  'PROXY UNKNOWN\r\n',
  proxyBlock({ command: 0x20, family: 0, block: Buffer.alloc(0) }),
])('behind a balancer nobody is on loopback: %j', async (header) => {
  await start({ plaintextAuth: 'loopback' })
  const client = await relayed(header)
  expect(await client.line()).toMatch(/^\+OK/)
  expect(await lists(client, /^USER/m)).toBe(false)
  client.socket.destroy()
})

test('a bare name belongs to the domain of the host that the client asked the balancer for', async () => {
  await start({ defaultDomain: 'example.test' })
  const client = await relayed(proxyBlock({ client: '192.0.2.7', additions: [HOST, SSL] }))
  await client.line()
  await client.ask('USER alice')
  expect(await client.ask('PASS other')).toMatch(/^\+OK/)
  client.socket.destroy()
})

test('clients behind one balancer are counted each for itself', async () => {
  await start({ limits: { connectionsPerNetwork: 1 } })
  const [first, second] = await Promise.all([
    relayed(proxyBlock({ client: '192.0.2.7' })),
    relayed(proxyBlock({ client: '192.0.2.8' })),
  ])
  expect(await first.line()).toMatch(/^\+OK/)
  expect(await second.line()).toMatch(/^\+OK/)
  const third = await relayed(proxyBlock({ client: '192.0.2.7' }))
  expect(await third.line()).toMatch(/^-ERR \[SYS\/TEMP\]/)
  for (const client of [first, second, third]) client.socket.destroy()
})
