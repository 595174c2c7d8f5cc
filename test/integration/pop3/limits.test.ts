/** How many may be in at once, and that a place is free again when its holder has gone. */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { TestAuthority } from '../../support/certificates.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode, type TestNodeOptions } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

const REFUSED = /^-ERR \[SYS\/TEMP\] too many connections/

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await openTestDatabase()
  for (const name of ['a@one.test', 'b@one.test', 'c@two.test'])
    await addUser(database.db, name, { password: 'secret' })
})
afterAll(() => database.close())
afterEach(() => node.stop())

const start = async (options: Partial<TestNodeOptions>) => {
  node = await startTestNode({ url: database.url, ...options })
}

const connect = async (count: number): Promise<Pop3Client[]> => {
  const clients: Pop3Client[] = []
  while (clients.length < count) {
    const client = await Pop3Client.connect(node.address)
    expect(await client.line()).toMatch(/^\+OK/)
    clients.push(client)
  }
  return clients
}

const refused = async (): Promise<void> => {
  const client = await Pop3Client.connect(node.address)
  expect(await client.line()).toMatch(REFUSED)
  expect(await client.closed).toHaveLength(0)
}

const leave = async (clients: readonly Pop3Client[]): Promise<void> => {
  for (const client of clients) {
    const count = node.logged.length
    client.socket.destroy()
    while (!node.logged.slice(count).some((line) => line.includes('connection closed')))
      await new Promise((resolve) => setImmediate(resolve))
  }
}

test.each([
  ['in all', { connections: 3 }, 'too many connections'],
  ['from one network', { connectionsPerNetwork: 3 }, 'too many connections from its network'],
])('connections %s', async (_, limits, reason) => {
  await start({ limits })
  const clients = await connect(3)
  await refused()
  await refused()
  expect(await node.untilLogged('connection refused')).toContain(`"reason":"${reason}"`)
  await leave(clients.slice(0, 2))
  const more = await connect(2)
  await refused()
  for (const client of [...clients, ...more]) client.socket.destroy()
})

test('both ports share the limits; on the encrypted one nothing can be said', async () => {
  const tls = await (await TestAuthority.create()).issue(['pop.example.test'])
  await start({ tls, limits: { connections: 2 } })
  const encrypted = await Pop3Client.connectTls(node.tlsAddress)
  expect(await encrypted.line()).toMatch(/^\+OK/)
  const clients = await connect(1)
  await refused()
  const client = await Pop3Client.connect(node.tlsAddress)
  expect(await client.closed).toHaveLength(0)
  for (const each of [encrypted, ...clients]) each.socket.destroy()
})

test('who is refused, or leaves before the greeting, keeps no place', async () => {
  await start({ limits: { connections: 2, connectionsPerNetwork: 1 }, balancers: ['127.0.0.1'] })
  for (let i = 0; i < 5; i++) {
    const client = await Pop3Client.connect(node.address)
    client.send('no PROXY header\r\n')
    await client.closed
  }
  const header = 'PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\n'
  const client = await Pop3Client.connect(node.address)
  client.send(header)
  expect(await client.line()).toMatch(/^\+OK/)
  for (let i = 0; i < 5; i++) {
    const second = await Pop3Client.connect(node.address)
    second.send(header)
    expect(await second.line()).toMatch(REFUSED)
    await second.closed
  }
  client.socket.destroy()
})

test('sessions of one domain; those of others go on', async () => {
  await start({ limits: { sessionsPerDomain: 1 } })
  const first = await Pop3Client.login(node.address, 'a@one.test', 'secret')
  const second = await Pop3Client.connect(node.address)
  await second.line()
  await second.ask('USER b@one.test')
  expect(await second.ask('PASS secret')).toMatch(/^-ERR \[SYS\/TEMP\]/)
  const other = await Pop3Client.login(node.address, 'c@two.test', 'secret')
  // A wrong password is told as such, whatever the limit.
  await second.ask('USER b@one.test')
  expect(await second.ask('PASS wrong')).toMatch(/^-ERR \[AUTH\]/)
  await first.ask('QUIT')
  await first.closed
  await node.untilLogged('"connection closed"')
  await second.ask('USER b@one.test')
  expect(await second.ask('PASS secret')).toMatch(/^\+OK/)
  for (const client of [second, other]) client.socket.destroy()
})

test('a login that does not get its maildrop keeps no place', async () => {
  await start({ limits: { sessionsPerDomain: 2 } })
  const first = await Pop3Client.login(node.address, 'a@one.test', 'secret')
  for (let i = 0; i < 4; i++) {
    const again = await Pop3Client.connect(node.address)
    await again.line()
    await again.ask('USER a@one.test')
    expect(await again.ask('PASS secret')).toMatch(/^-ERR \[IN-USE\]/)
    again.socket.destroy()
  }
  const second = await Pop3Client.login(node.address, 'b@one.test', 'secret')
  for (const client of [first, second]) client.socket.destroy()
})

test('who waits for a maildrop: so many, and one more is told at once', async () => {
  await start({})
  await database.db.kysely.updateTable('domains').set({ second_login: 'wait' }).execute()
  const first = await Pop3Client.login(node.address, 'a@one.test', 'secret')
  const answered: string[] = []
  const waiting = await Promise.all(
    Array.from({ length: 7 }, async () => {
      const client = await Pop3Client.connect(node.address)
      await client.line()
      await client.ask('USER a@one.test')
      return client
    }),
  )
  const answers = waiting.map(async (client) => {
    answered.push(await client.ask('PASS secret'))
  })
  const verified = () => node.logged.filter((line) => line.includes('"credential verified"'))
  await expect.poll(() => verified().length).toBe(8)
  const last = await Pop3Client.connect(node.address)
  await last.line()
  await last.ask('USER a@one.test')
  expect(await last.ask('PASS secret')).toMatch(/^-ERR \[IN-USE\]/)
  expect(answered).toEqual([])
  await first.ask('QUIT')
  await expect.poll(() => answered).toEqual([expect.stringMatching(/^\+OK/)])
  for (const client of [first, last, ...waiting]) client.socket.destroy()
  await Promise.allSettled(answers)
})
