/** Old servers that mean harm, or are broken in ways that would do it: what they can cost a node. */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { Secret } from '../../../src/base/secret.ts'
import type { OldServer } from '../../../src/remote/old-server.ts'
import { Pop3Client } from '../../../src/remote/pop3-client.ts'
import { Wire } from '../../../src/remote/wire.ts'
import { addUser } from '../../support/postgres.ts'
import { type RawServer, startRawServer, usualAnswer } from './raw-server.ts'
import { MovingWorld, PASSWORD, tryLogin } from './setting.ts'

const MANY = 100_000_000

let world: MovingWorld
let raw: RawServer | undefined

beforeAll(async () => {
  world = await MovingWorld.open()
})
afterEach(async () => {
  await world.clear()
  await raw?.stop()
  raw = undefined
})
afterAll(() => world.database.close())

/** So much that who has no bound does not end before the test; it does end. */
function* endless(first: string, line: string): Generator<string> {
  yield first
  const block = line.repeat(Math.ceil(65_536 / line.length))
  for (let sent = 0; sent < MANY; sent += block.length) yield block
}

function* listed(count: number, line: (number: number) => string): Generator<string> {
  yield '+OK\r\n'
  for (let from = 1; from <= count; from += 1_000)
    yield Array.from({ length: 1_000 }, (_, at) => line(from + at)).join('')
  yield '.\r\n'
}

/** Octets that lie in buffers of both sides while nobody reads them. */
const BUFFERED = 8_000_000

test.each([
  ['CAPA', 'short lines', 'X\r\n'],
  ['CAPA', 'long lines', `${'X'.repeat(4_000)}\r\n`],
  ['CAPA', 'one line', 'X'],
  ['LIST', 'one line', '1'],
  ['LIST', 'lines that list nothing', 'X\r\n'],
  ['UIDL', 'lines of 600 octets', `1 ${'X'.repeat(600)}\r\n`],
])('a reply to %s without end, in %s, ends at its bound', async (verb, _, line) => {
  const server = await startRawServer((command) =>
    command === verb ? endless('+OK\r\n', line) : usualAnswer(command),
  )
  const { node, domain } = await world.migrateFrom(server)
  expect(await tryLogin(node, `alice@${domain}`, PASSWORD)).toMatch(/^-ERR \[SYS\/TEMP\]/)
  await node.untilLogged(`its reply to ${verb} is too long`)
  expect(server.sentCount()).toBeLessThan(verb === 'LIST' ? MANY : BUFFERED)
})

test('a maildrop of too many messages is left to the operator, who is told how', async () => {
  const server = await startRawServer((command) =>
    command === 'LIST' ? listed(300_000, (number) => `${number} 1\r\n`) : usualAnswer(command),
  )
  const { node, domain, domainId } = await world.migrateFrom(server)
  expect(await tryLogin(node, `alice@${domain}`, PASSWORD)).toMatch(/^-ERR \[SYS\/TEMP\]/)
  await node.untilLogged('over 200000 messages: \\"popgres import pop3\\" takes more')
  expect(await world.passwordHashOf(domainId, 'alice')).toBeNull()
})

async function serve(answer: Parameters<typeof startRawServer>[0]): Promise<OldServer> {
  raw = await startRawServer(answer)
  return { host: '127.0.0.1', port: raw.port, security: 'none', authority: undefined }
}

/** An octet at a time, for ever. */
async function* trickle(): AsyncGenerator<string> {
  for (;;) {
    yield '+'
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

test('who says something for ever has one deadline until the verdict on the password', async () => {
  const server = await serve((command) => (command === 'PASS x' ? trickle() : usualAnswer(command)))
  const client = await Pop3Client.connect(server, { loginMs: 500 })
  await expect(client.logIn('alice', new Secret('x'))).rejects.toThrow(/it takes too long/)
})

test('who says less than a minimum is given up as if silent', async () => {
  const wire = await Wire.open(await serve(trickle))
  await wire.line()
  wire.silenceMs = 300
  wire.send('RETR 1\r\n')
  await expect(wire.line()).rejects.toThrow(/it fell silent, or is too slow/)
})

test('a node that stops waits for no old server', async () => {
  const server = await startRawServer(() => undefined)
  const { node, domain } = await world.migrateFrom(server)
  const replied = tryLogin(node, `alice@${domain}`, PASSWORD).catch(() => 'closed')
  await expect.poll(() => server.sockets.size, { timeout: 10_000 }).toBe(1)
  await node.moving.stop()
  await expect.poll(() => server.sockets.size, { timeout: 5_000 }).toBe(0)
  await replied
})

const bodyCount = async (domainId: number): Promise<number> => {
  const { db } = world.database
  const rows = db.kysely.selectFrom('bodies').select('body_id').where('domain_id', '=', domainId)
  return (await rows.execute()).length
}

const BIG = `Subject: big\r\n\r\n${`${'z'.repeat(98)}\r\n`.repeat(10_000)}`

test('what was listed larger than the room is not fetched', async () => {
  const { node, domain, old } = await world.migrate(
    {
      users: { alice: { password: PASSWORD, messages: [{ uniqueId: 'a1', text: BIG }] } },
    },
    {},
    { userFormat: 'local' },
  )
  const user = `alice@${domain}`
  await addUser(world.database.db, user, { quotaOctets: 1_000 })
  expect(await tryLogin(node, user, PASSWORD)).toMatch(/^-ERR \[SYS\/TEMP\]/)
  await node.untilLogged('is too small for the old mail')
  expect(old.count('RETR')).toBe(0)
})

test('what had no room after all leaves nothing in the database', async () => {
  const users = { alice: { password: PASSWORD, messages: [{ uniqueId: 'a1', text: BIG }] } }
  const { node, domain, domainId, old } = await world.migrate(
    { users, reply: (line) => (line === 'LIST' ? '+OK\r\n1 900\r\n.' : undefined) },
    {},
    { userFormat: 'local' },
  )
  const user = `alice@${domain}`
  await addUser(world.database.db, user, { quotaOctets: 1_000 })
  expect(await tryLogin(node, user, PASSWORD)).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect(old.count('RETR')).toBe(1)
  expect(await bodyCount(domainId)).toBe(0)
})

test('a message without end is cut off not far behind its listed size, and leaves nothing', async () => {
  const server = await startRawServer((command) =>
    command.startsWith('RETR') ? endless('+OK\r\n', `${'z'.repeat(98)}\r\n`) : usualAnswer(command),
  )
  const { node, domain, domainId } = await world.migrateFrom(server)
  expect(await tryLogin(node, `alice@${domain}`, PASSWORD)).toMatch(/^-ERR \[SYS\/TEMP\]/)
  await node.untilLogged('message 1 is longer than 100 octets, as it was listed')
  expect(server.sentCount()).toBeLessThan(BUFFERED)
  expect(await bodyCount(domainId)).toBe(0)
})
