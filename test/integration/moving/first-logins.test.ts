/**
 * The first logins of users whose domain migrates, against an old server that does what the test
 * wants. A real Dovecot and many users at once: test/interop/moving.test.ts.
 */
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { Throttle } from '../../../src/mail/auth/throttle.ts'
import { gateAt } from '../../support/old-server.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { addUser, type TestDatabase } from '../../support/postgres.ts'
import { mailTo } from './mail-to.ts'
import { listing, MovingWorld, message, PASSWORD, tryLogin, withMail } from './setting.ts'

let world: MovingWorld
let database: TestDatabase
const migrate: MovingWorld['migrate'] = (...all) => world.migrate(...all)
const startNode: MovingWorld['startNode'] = (...all) => world.startNode(...all)
const passwordHashOf: MovingWorld['passwordHashOf'] = (...all) => world.passwordHashOf(...all)

beforeAll(async () => {
  world = await MovingWorld.open()
  database = world.database
})
afterEach(() => world.clear())
afterAll(() => database.close())

test('the first login brings user, mail, unique-ids, dates and password; the next ask nobody', async () => {
  const { node, domain, domainId, old } = await migrate({ count: 40 })
  const client = await Pop3Client.login(node.address, `Alice@${domain}`.toLowerCase(), PASSWORD)
  const expected = Array.from({ length: 40 }, (_, at) => `${at + 1} 0000000${at}abc`)
  expect(await listing(client)).toEqual(expected)
  expect((await client.retrieve('RETR 7')).toString()).toBe(message('old 6'))
  await client.ask('QUIT')
  expect(await passwordHashOf(domainId, 'alice')).toMatch(/^\$argon2id\$/)
  const { rows } = await queryDates(domainId)
  expect(rows).toEqual(['2024-01-02T03:04:05.000Z'])
  const askedCount = old.count('USER')
  expect(await tryLogin(node, `alice@${domain}`, PASSWORD)).toMatch(/^\+OK/)
  expect(old.count('USER')).toBe(askedCount)
  expect(old.commands).not.toContainEqual(expect.stringMatching(/^DELE/))
  expect(old.openCount).toBe(0)
  expect(node.logged.join('\n')).not.toContain(PASSWORD)
})

async function queryDates(domainId: number): Promise<{ rows: string[] }> {
  const rows = await database.db.kysely
    .selectFrom('messages')
    .select('received_at')
    .distinct()
    .where('domain_id', '=', domainId)
    .execute()
  return { rows: rows.map((row) => row.received_at.toISOString()) }
}

test('the old server is asked by the name that it knows', async () => {
  const users = { alice: withMail(1) }
  const { node, domain } = await migrate({ users }, {}, { userFormat: 'local' })
  expect(await tryLogin(node, `alice@${domain}`, PASSWORD)).toMatch(/^\+OK/)
})

test('SASL PLAIN moves too, and is used where the old server offers it', async () => {
  const { node, domain, old } = await migrate({
    capabilities: ['SASL PLAIN', 'UIDL'],
    reply: (line) => {
      if (line === 'AUTH PLAIN') return '+ '
      const expected = Buffer.from(`\0alice@${domain}\0${PASSWORD}`).toString('base64')
      return line === expected ? '-ERR [SYS/TEMP] as far as this goes' : undefined
    },
  })
  const client = await Pop3Client.connect(node.address)
  await client.line()
  const response = Buffer.from(`\0alice@${domain}\0${PASSWORD}`).toString('base64')
  expect(await client.ask(`AUTH PLAIN ${response}`)).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect(old.count('AUTH PLAIN')).toBe(1)
  expect(old.count('USER')).toBe(0)
  client.socket.destroy()
})

test('a refusal of the old server is ours, makes nobody, and is throttled before it is asked', async () => {
  const db = database.db
  const { node, domain, domainId, old } = await migrate({})
  await world.stopNodes()
  const throttle = new Throttle({ db, log: node.db as never, keyring: undefined })
  const strict = await startNode({ authenticator: { throttle } })
  expect(await tryLogin(strict, `alice@${domain}`, 'wrong-0')).toBe(
    '-ERR [AUTH] wrong user name or password',
  )
  expect(await passwordHashOf(domainId, 'alice')).toBeUndefined()
  for (let at = 1; at < 10; at++)
    await throttle.recordFailure(
      {
        client: '127.0.0.1',
        name: { localPart: 'alice', domainName: domain, address: `alice@${domain}` },
        keys: { network: `network x`, user: `user alice@${domain}`, domain: 'd', known: 'k' },
      },
      Buffer.from(`wrong-${at}`),
    )
  const askedCount = old.count('USER')
  expect(askedCount).toBe(1)
  expect(await tryLogin(strict, `alice@${domain}`, PASSWORD)).toMatch(
    /^-ERR \[SYS\/TEMP\] too many/,
  )
  expect(old.count('USER')).toBe(askedCount)
})

test.each([
  ['is away', '-ERR [SYS/TEMP] no database', /^-ERR \[SYS\/TEMP\] login is not possible/],
  ['closes', 'cut', /^-ERR \[SYS\/TEMP\] login is not possible/],
  ['has it in use', '-ERR [IN-USE] locked', /^-ERR \[IN-USE\]/],
  ['has it locked and has no codes', '-ERR maildrop already locked', /^-ERR \[IN-USE\]/],
])('an old server that %s is no wrong password', async (_, reply, expected) => {
  const { node, domain, domainId } = await migrate({
    reply: (line) => (line.startsWith('PASS') ? reply : undefined),
  })
  expect(await tryLogin(node, `alice@${domain}`, PASSWORD)).toMatch(expected)
  expect(await passwordHashOf(domainId, 'alice')).toBeUndefined()
})

test('a password with a line end is never sent', async () => {
  const { node, domain, old } = await migrate({})
  const client = await Pop3Client.connect(node.address)
  await client.line()
  const evil = Buffer.from(`\0alice@${domain}\0x\r\nDELE 1`).toString('base64')
  expect(await client.ask(`AUTH PLAIN ${evil}`)).toMatch(/^-ERR \[AUTH\]/)
  expect(old.count('DELE')).toBe(0)
  client.socket.destroy()
})

test('nobody is made, nor asked for, where the setting says so', async () => {
  const { node, domain, old } = await migrate({}, {}, { makesUsers: false })
  expect(await tryLogin(node, `alice@${domain}`, PASSWORD)).toMatch(/^-ERR \[AUTH\]/)
  expect(old.commands).toEqual([])
  await addUser(database.db, `alice@${domain}`)
  expect(await tryLogin(node, `alice@${domain}`, PASSWORD)).toMatch(/^\+OK/)
})

test('who has a password here is not shown to the old server', async () => {
  const { node, domain, old } = await migrate({})
  await addUser(database.db, `alice@${domain}`, { password: 'Here-77' })
  expect(await tryLogin(node, `alice@${domain}`, PASSWORD)).toMatch(/^-ERR \[AUTH\]/)
  expect(await tryLogin(node, `alice@${domain}`, 'Here-77')).toMatch(/^\+OK/)
  expect(old.commands).toEqual([])
})

test('a client that waits too long is told so, and the move goes on for the next', async () => {
  const gate = gateAt(3)
  const { node, domain, old } = await migrate(
    { count: 5, reply: gate.reply },
    { moving: { patienceMs: 300 } },
  )
  const user = `alice@${domain}`
  expect(await tryLogin(node, user, PASSWORD)).toBe(
    '-ERR [SYS/TEMP] your mail is being moved to this server, try again in a few minutes',
  )
  // Joins what is under way, and another node finds the lease taken.
  expect(await tryLogin(node, user, PASSWORD)).toMatch(/^-ERR \[SYS\/TEMP\] your mail/)
  expect(old.count('USER')).toBe(1)
  const other = await startNode()
  expect(await tryLogin(other, user, PASSWORD)).toMatch(/^-ERR \[IN-USE\]/)
  gate.open()
  await node.untilLogged('a user has moved here')
  const client = await Pop3Client.login(node.address, user, PASSWORD)
  expect((await listing(client)).map((line) => line.slice(2))).toEqual(
    [0, 1, 2, 3, 4].map((at) => `0000000${at}abc`),
  )
  await client.ask('QUIT')
})

test('a second login at once waits for the same move; with another password the old server judges', async () => {
  const gate = gateAt(2)
  const { node, domain, old } = await migrate({ reply: gate.reply })
  const user = `alice@${domain}`
  const first = tryLogin(node, user, PASSWORD)
  await gate.isReached
  const second = tryLogin(node, user, PASSWORD)
  expect(await tryLogin(node, user, 'wrong')).toMatch(/^-ERR \[AUTH\]/)
  gate.open()
  const replies = await Promise.all([first, second])
  for (const reply of replies) expect(reply).toMatch(/^\+OK|^-ERR \[IN-USE\]/)
  expect(replies.some((reply) => reply.startsWith('+OK'))).toBe(true)
  expect(old.count('RETR')).toBe(3)
})

test('a move that is cut goes on where it was, and nothing is doubled', async () => {
  let isFirst = true
  const reply = (line: string) => {
    if (line !== 'RETR 4' || !isFirst) return undefined
    isFirst = false
    return 'cut'
  }
  const { node, domain, domainId, old } = await migrate({ count: 6, reply, capabilities: ['USER'] })
  const user = `alice@${domain}`
  expect(await tryLogin(node, user, PASSWORD)).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect(await passwordHashOf(domainId, 'alice')).toBeNull()
  await mailTo(database, domainId, user, message('new, meanwhile'))
  const client = await Pop3Client.login(node.address, user, PASSWORD)
  const uniqueIds = (await listing(client)).map((line) => line.split(' ')[1])
  expect(uniqueIds.filter((id) => id?.endsWith('abc'))).toEqual(
    [0, 1, 2, 3, 4, 5].map((at) => `0000000${at}abc`),
  )
  expect(uniqueIds).toHaveLength(7)
  expect(old.count('RETR 1')).toBe(1)
  expect(old.count('RETR')).toBe(7)
  await client.ask('QUIT')
})

test('a node that ends in the middle leaves the rest to the next', async () => {
  const gate = gateAt(3)
  const { node, domain } = await migrate({ count: 5, reply: gate.reply, capabilities: ['USER'] })
  const user = `alice@${domain}`
  const cut = tryLogin(node, user, PASSWORD).catch(() => 'closed')
  await gate.isReached
  await world.stopNodes(50)
  await cut
  gate.open()
  const other = await startNode()
  const client = await Pop3Client.login(other.address, user, PASSWORD)
  expect(await listing(client)).toHaveLength(5)
  await client.ask('QUIT')
})

test('connections to the old server are few', async () => {
  const names = Array.from({ length: 12 }, (_, at) => `user${at}`)
  const users = Object.fromEntries(names.map((name) => [name, withMail(2)]))
  const { node, domain, old } = await migrate(
    { users },
    {},
    { userFormat: 'local', connectionsMax: 3 },
  )
  const replies = await Promise.all(
    names.map((name) => tryLogin(node, `${name}@${domain}`, PASSWORD)),
  )
  for (const reply of replies) expect(reply).toMatch(/^\+OK/)
  expect(old.openMax).toBeLessThanOrEqual(3)
  expect(old.openMax).toBeGreaterThan(1)
})

test('a quota that is too small moves nobody half', async () => {
  const { node, domain, domainId } = await migrate({ count: 3 })
  await addUser(database.db, `alice@${domain}`, { quotaOctets: 150 })
  expect(await tryLogin(node, `alice@${domain}`, PASSWORD)).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect(await passwordHashOf(domainId, 'alice')).toBeNull()
  await node.untilLogged('a move was cut')
  const change = { quota_octets: 1_000_000 }
  await database.db.kysely
    .updateTable('users')
    .set(change)
    .where('domain_id', '=', domainId)
    .execute()
  expect(await tryLogin(node, `alice@${domain}`, PASSWORD)).toMatch(/^\+OK/)
})

test('APOP of who may not have moved is told what it takes, known or not alike', async () => {
  const { node, domain, old } = await migrate({}, { isApopOffered: true })
  await addUser(database.db, `here@${domain}`, { password: 'Here-77', apopSecret: 'Secret-77' })
  for (const name of ['alice', 'nobody', 'here']) {
    const client = await Pop3Client.connect(node.address)
    await client.line()
    expect(await client.ask(`APOP ${name}@${domain} ${'0'.repeat(32)}`)).toBe(
      '-ERR [AUTH] wrong user name or secret; the first login here needs USER and PASS, or PLAIN',
    )
    client.socket.destroy()
  }
  expect(old.commands).toEqual([])
})

test('a suspended user is told so when the old server has taken the password; nothing is moved', async () => {
  const { node, domain, domainId, old } = await migrate({})
  await addUser(database.db, `alice@${domain}`)
  await database.db.kysely
    .updateTable('users')
    .set({ suspended: true })
    .where('domain_id', '=', domainId)
    .execute()
  expect(await tryLogin(node, `alice@${domain}`, PASSWORD)).toMatch(/^-ERR \[SYS\/PERM\]/)
  expect(await tryLogin(node, `alice@${domain}`, 'wrong')).toMatch(/^-ERR \[AUTH\]/)
  expect(old.count('RETR')).toBe(0)
})

test('a client that has gone while it waited for its turn is not asked for', async () => {
  const gate = gateAt(1)
  const users = { alice: withMail(1), bob: withMail(1) }
  const settings = { userFormat: 'local', connectionsMax: 1 } as const
  const { node, domain, old } = await migrate({ users, reply: gate.reply }, {}, settings)
  const first = tryLogin(node, `alice@${domain}`, PASSWORD)
  await gate.isReached
  const gone = await Pop3Client.connect(node.address)
  await gone.line()
  await gone.ask(`USER bob@${domain}`)
  const judged = vi.spyOn(node.moving, 'judge')
  gone.send(`PASS ${PASSWORD}\r\n`)
  await vi.waitFor(() => expect(judged).toHaveBeenCalled(), 10_000)
  gone.socket.resetAndDestroy()
  await node.untilLogged('a command failed')
  gate.open()
  expect(await first).toMatch(/^\+OK/)
  expect(old.commands).not.toContain('USER bob')
})
