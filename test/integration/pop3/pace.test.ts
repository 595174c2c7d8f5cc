/** Peers that are too slow, before login and after, and those that are slow but not too slow. */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { TestAuthority, type TestCertificate } from '../../support/certificates.ts'
import { longMessage, putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode, type TestNodeOptions } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase
let certificate: TestCertificate
let node: TestNode

beforeAll(async () => {
  database = await openTestDatabase()
  certificate = await (await TestAuthority.create()).issue(['pop.example.test'])
  const { domainId, userId } = await addUser(database.db, 'alice@example.test', {
    password: 'secret',
  })
  await putMessage(database.db, domainId, [userId], 'A: b\r\n\r\none\r\n')
  await putMessage(database.db, domainId, [userId], longMessage(16_000_000))
})
afterAll(() => database.close())
afterEach(() => node.stop())

const start = async (options: Partial<TestNodeOptions>) => {
  node = await startTestNode({ url: database.url, ...options })
}

const greeted = async (): Promise<Pop3Client> => {
  const client = await Pop3Client.connect(node.address)
  await client.line()
  return client
}

const logIn = () => Pop3Client.login(node.address, 'alice@example.test', 'secret')

const closeReason = async (): Promise<string> =>
  JSON.parse(await node.untilLogged('"connection closed"')).reason

/** Goes on sending until the connection is closed. */
const dripUntilClosed = async (client: Pop3Client, text: string): Promise<void> => {
  const timer = setInterval(() => client.send(text), 20)
  await client.closed
  clearInterval(timer)
}

test('the time to log in is total: a peer that goes on talking is cut too', async () => {
  await start({ pace: { loginMs: 300 } })
  await dripUntilClosed(await greeted(), 'NOOP')
  expect(await closeReason()).toBe('login-timeout')
})

test('the time to log in holds for a handshake and for what follows it', async () => {
  await start({ pace: { loginMs: 500 }, tls: certificate })
  const client = await greeted()
  await client.startTls()
  await client.closed
  expect(await closeReason()).toBe('login-timeout')
  const silent = await Pop3Client.connect(node.tlsAddress)
  await silent.closed
  expect(await node.untilLogged('connection refused')).toContain('"reason":"login-timeout"')
})

test('a session that has begun has no time to log in any more', async () => {
  await start({ pace: { loginMs: 1_000 }, autologoutMs: 2_000 })
  const client = await logIn()
  expect(await client.closed).toHaveLength(0)
  expect(await closeReason()).toBe('idle')
})

test('before login no more than so many octets are read, in whatever form', async () => {
  await start({})
  const client = await greeted()
  // One line without an end: nothing of it is kept, and no command of it is counted.
  client.send('x'.repeat(80_000))
  await client.closed
  expect(await closeReason()).toBe('too-much-before-login')
})

test('after login there is no such limit', async () => {
  await start({})
  const client = await logIn()
  client.send('NOOP\r\n'.repeat(20_000))
  for (let i = 0; i < 20_000; i++) await client.line()
  expect(await client.ask('QUIT')).toMatch(/^\+OK/)
})

test('a line that is begun and not ended is cut, however busily it grows', async () => {
  await start({ pace: { lineMs: 300 } })
  const client = await logIn()
  await dripUntilClosed(client, 'x')
  expect(await closeReason()).toBe('slow-line')
})

/** Until another peer has been cut for its open line. */
const lineTimePasses = async (): Promise<void> => {
  const other = await greeted()
  other.send('NOO')
  await other.closed
}

test('lines that end in time are as many as one likes', async () => {
  await start({ pace: { lineMs: 300 } })
  const client = await logIn()
  let isOver = false
  void lineTimePasses().then(() => {
    isOver = true
  })
  while (!isOver) {
    // Each segment ends one line and begins another.
    client.send('NOOP\r\nNO')
    expect(await client.line()).toMatch(/^\+OK/)
    client.send('OP\r\nNO')
    expect(await client.line()).toMatch(/^\+OK/)
    client.send('OP\r\n')
    expect(await client.line()).toMatch(/^\+OK/)
  }
  expect(await client.ask('QUIT')).toMatch(/^\+OK/)
})

test('an open line is not held against a peer while it waits for us', async () => {
  await start({ pace: { lineMs: 200 } })
  const client = await logIn()
  client.socket.pause()
  client.send('RETR 2\r\nNOO')
  await lineTimePasses()
  await lineTimePasses()
  client.send('P\r\n')
  client.socket.resume()
  expect(await client.line()).toMatch(/^\+OK/)
  while ((await client.line()) !== '.');
  expect(await client.line()).toMatch(/^\+OK/)
  client.socket.destroy()
})

const RATE = { rateCheckMs: 100, rateWindowMs: 400 }

test.each(['plain', 'TLS'])(
  'a peer that stops reading is cut, its lease given back: %s',
  async (kind) => {
    await start({ pace: RATE, tls: certificate })
    const client = kind === 'TLS' ? await Pop3Client.connectTls(node.tlsAddress) : await greeted()
    client.send('USER alice@example.test\r\nPASS secret\r\nRETR 2\r\n')
    while (!(await client.line()).endsWith('octets'));
    client.socket.pause()
    expect(await closeReason()).toBe('slow-reader')
    client.socket.destroy()
    const next = await logIn()
    await next.ask('QUIT')
  },
)

test.each(['plain', 'TLS'])('a peer that reads slowly but steadily is not: %s', async (kind) => {
  await start({ pace: { rateCheckMs: 100, rateWindowMs: 1_500 }, tls: certificate })
  const client = kind === 'TLS' ? await Pop3Client.connectTls(node.tlsAddress) : await greeted()
  client.send('USER alice@example.test\r\nPASS secret\r\nRETR 2\r\nQUIT\r\n')
  const bursts = setInterval(() => {
    client.socket.resume()
    setImmediate(() => client.socket.pause())
  }, 20)
  const { reason, octets } = JSON.parse(await node.untilLogged('"connection closed"'))
  clearInterval(bursts)
  expect({ reason, isWhole: octets > 16_000_000 }).toEqual({ reason: 'quit', isWhole: true })
})

test('a slow reader that says QUIT is held to the rate too', async () => {
  await start({ pace: RATE })
  const client = await logIn()
  client.send('RETR 2\r\nQUIT\r\n')
  client.socket.pause()
  expect(await closeReason()).toBe('slow-reader')
  client.socket.destroy()
})
