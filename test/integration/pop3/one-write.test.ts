/**
 * A reply leaves in one write, and with Nagle's algorithm off. One that ends in a second small write
 * waits, with Nagle on, until the client has acknowledged the first: 40 ms for each RETR, if the
 * client delays its acknowledgements.
 */
import { Socket } from 'node:net'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { TestAuthority } from '../../support/certificates.ts'
import { putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

const MESSAGES = 100
let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await openTestDatabase()
  const authority = await TestAuthority.create()
  const tls = await authority.issue(['pop.example.test'])
  node = await startTestNode({ url: database.url, tls })
  const { domainId, userId } = await addUser(database.db, 'alice@example.test', {
    password: 'secret',
  })
  const lines = '.a line that begins with a dot\r\n'.repeat(300)
  for (let i = 1; i <= MESSAGES; i++)
    await putMessage(database.db, domainId, [userId], `N: ${i}\r\n\r\n${lines}`)
})
afterAll(async () => {
  await node.stop()
  await database.close()
})
afterEach(() => {
  vi.restoreAllMocks()
})

const MULTI_LINE = /^(CAPA|LIST|UIDL|RETR .*|TOP .*)$/

/** Each is asked for by itself. RETR 1 comes from the database, RETR 2 and 3 were read ahead. */
const COMMANDS = [
  ...['USER alice@example.test', 'PASS secret', 'CAPA', 'STAT', 'LIST', 'LIST 1', 'UIDL', 'UIDL 1'],
  ...['RETR 1', 'RETR 2', 'RETR 3', 'TOP 50 3', 'TOP 3 0', 'NOOP', 'RETR 999', 'DELE 1', 'RSET'],
  'QUIT',
]

/** Writes so far, one system call each, of the node's sockets at this address. */
function countWrites(address: string): () => number {
  const port = Number(address.split(':').at(-1))
  const { _write, _writev } = Socket.prototype
  let writes = 0
  const count = (socket: Socket): void => {
    if (socket.localPort === port) writes++
  }
  vi.spyOn(Socket.prototype, '_write').mockImplementation(function (this: Socket, ...what) {
    count(this)
    _write.apply(this, what)
  })
  vi.spyOn(Socket.prototype, '_writev').mockImplementation(function (this: Socket, ...what) {
    count(this)
    _writev?.apply(this, what)
  })
  return () => writes
}

const ways = {
  plain: { addressOf: () => node.address, connect: () => Pop3Client.connect(node.address) },
  TLS: { addressOf: () => node.tlsAddress, connect: () => Pop3Client.connectTls(node.tlsAddress) },
}

test.each(Object.entries(ways))(
  '%s: each reply is one write',
  async (_, { addressOf, connect }) => {
    const writes = countWrites(addressOf())
    const client = await connect()
    await client.line()
    const counted: Record<string, number> = { greeting: writes() }
    for (const command of COMMANDS) {
      const before = writes()
      if (MULTI_LINE.test(command)) await client.askMulti(command)
      else await client.ask(command)
      counted[command] = writes() - before
    }
    const expected = Object.fromEntries(['greeting', ...COMMANDS].map((command) => [command, 1]))
    expect(counted).toEqual(expected)
  },
)

test('pipelined commands whose answers are at hand share a write', async () => {
  const client = await Pop3Client.login(node.address, 'alice@example.test', 'secret')
  await client.retrieve('RETR 1')
  await client.retrieve('RETR 2')
  const writes = countWrites(node.address)
  client.send('NOOP\r\nSTAT\r\nLIST 1\r\nRETR 3\r\n')
  for (let line = ''; line !== '.'; line = await client.line());
  expect(writes()).toBe(1)
})

test('Nagle is off on every connection that is accepted', async () => {
  const probe = await Pop3Client.connect(node.address)
  const handles: { setNoDelay(isOn: boolean): unknown } = Object.getPrototypeOf(
    Reflect.get(probe.socket, '_handle'),
  )
  const setNoDelay = vi.spyOn(handles, 'setNoDelay')
  for (const { connect } of Object.values(ways)) {
    setNoDelay.mockClear()
    const client = await connect()
    await client.line()
    expect(setNoDelay.mock.calls).toEqual([[true]])
  }
})
