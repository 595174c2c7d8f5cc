/**
 * A password that was verified lately opens the maildrop in the round trip that looks the account
 * up. Whatever has changed since, the lease is taken only by who may have it: what each statement
 * answered is looked at, as a lease that was held for a moment leaves no trace.
 */
import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { pino } from 'pino'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { Secret } from '../../../src/base/secret.ts'
import { hashPassword } from '../../../src/mail/auth/argon2.ts'
import { Throttle } from '../../../src/mail/auth/throttle.ts'
import type { Database } from '../../../src/storage/postgres/database.ts'
import { addAppPassword } from '../../../src/storage/tenants/credentials.ts'
import { countFailure } from '../../../src/storage/throttles.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import {
  addUser,
  openTestConnection,
  openTestDatabase,
  TEST_KEYRING,
  type TestDatabase,
} from '../../support/postgres.ts'
import { deliverTo, type User } from '../storage/fixtures.ts'

let database: TestDatabase
let other: Database
let nodes: TestNode[]
let node: TestNode
let domainName: string
let ada: string
let user: User

beforeAll(async () => {
  database = await openTestDatabase()
  other = openTestConnection(database.url)
})
afterAll(async () => {
  await other.close()
  await database.close()
})
beforeEach(async () => {
  nodes = [await startNode()]
  node = nodes[0] as TestNode
  domainName = `${randomUUID()}.test`
  ada = `ada@${domainName}`
  user = await addUser(database.db, ada, { password: 'secret' })
  await deliverTo(database.db, user, 'one')
})
afterEach(() => Promise.all(nodes.map((one) => one.stop())))

function startNode(sessionsPerDomain = 100): Promise<TestNode> {
  const log = pino({ level: 'silent' })
  const throttle = new Throttle({ db: other, log, keyring: TEST_KEYRING })
  return startTestNode({
    url: database.url,
    limits: { sessionsPerDomain },
    authenticator: { throttle },
  })
}

/** @returns the reply to PASS, and the client */
async function pass(password = 'secret', from = node): Promise<[string, Pop3Client]> {
  const client = await Pop3Client.connect(from.address)
  await client.line()
  await client.ask(`USER ${ada}`)
  return [await client.ask(`PASS ${password}`), client]
}

async function poll(password = 'secret', from = node): Promise<string> {
  const [reply, client] = await pass(password, from)
  await client.ask('QUIT')
  await client.closed
  return reply
}

/** Watches a node's statements: their names, and the leases that it got. */
function watch({ db } = node) {
  const [hot, bulk] = [vi.spyOn(db, 'hot'), vi.spyOn(db, 'bulk')]
  return {
    names: () => [...hot.mock.calls, ...bulk.mock.calls].map(([{ name }]) => name),
    leases: () =>
      hot.mock.settledResults.filter(
        ({ type, value }, index) =>
          hot.mock.calls[index]?.[0].name === 'lease-acquire' &&
          type === 'fulfilled' &&
          value[0]?.[0]?.[0] === 1,
      ).length,
  }
}

/** Whose maildrops are open. */
async function holders(): Promise<number[]> {
  const { rows } = await sql<{
    id: number
  }>`select user_id as id from sessions where domain_id = ${user.domainId}`.execute(
    database.db.kysely,
  )
  return rows.map(({ id }) => id)
}

const setUser = (set: { suspended?: boolean; password_hash?: string }) =>
  database.db.kysely.updateTable('users').set(set).where('user_id', '=', user.userId).execute()

test('a warm poll with STAT and UIDL is three statements, a cold one four', async () => {
  // Of a domain that is known: the first to ask for one asks twice.
  node.db.domainIds.set(domainName, user.domainId)
  const cold = watch()
  expect(await poll()).toMatch(/^\+OK/)
  const asked = ['login-account', 'lease-acquire', 'maildrop-open', 'lease-release']
  const login = (name: string) => /^(login|lease|maildrop)-/.test(name)
  expect(cold.names().filter(login)).toEqual(asked)
  // What the first login leaves behind; nobody waits for it.
  await vi.waitFor(() => expect(cold.names()).toContain('scram-keys'))
  vi.restoreAllMocks()
  const warm = watch()
  const [, client] = await pass()
  expect(await client.ask('STAT')).toBe('+OK 1 3')
  expect((await client.askMulti('UIDL')).raw.toString()).toMatch(/^1 \d+\.1\r\n$/)
  await client.ask('QUIT')
  expect(warm.names()).toEqual(['lease-acquire', 'maildrop-open', 'lease-release'])
})

test('a wrong password asks for no lease', async () => {
  await poll()
  const seen = watch()
  expect(await poll('wrong')).toMatch(/^-ERR \[AUTH\]/)
  expect(seen.names()).not.toContain('lease-acquire')
})

describe('what has changed since the last login', () => {
  test('the password: the old one gets no lease, the new one gets in', async () => {
    await poll()
    await setUser({ password_hash: await hashPassword(new Secret('better')) })
    const seen = watch()
    expect(await poll()).toMatch(/^-ERR \[AUTH\]/)
    expect(seen.leases()).toBe(0)
    expect(await poll('better')).toMatch(/^\+OK/)
    expect(await poll('better')).toMatch(/^\+OK/)
    expect(seen.leases()).toBe(2)
  })

  test('suspension: no lease until it is over', async () => {
    await poll()
    await setUser({ suspended: true })
    const seen = watch()
    expect(await poll()).toMatch(/^-ERR \[SYS\/PERM\]/)
    expect(seen.leases()).toBe(0)
    await setUser({ suspended: false })
    expect(await poll()).toMatch(/^\+OK/)
    expect(seen.leases()).toBe(1)
  })

  test('the user: removed, and added again with an empty maildrop', async () => {
    await poll()
    await database.db.kysely.deleteFrom('users').where('user_id', '=', user.userId).execute()
    expect(await poll()).toMatch(/^-ERR \[AUTH\]/)
    user = await addUser(database.db, ada, { password: 'secret' })
    for (const kind of ['cold', 'warm']) {
      const [reply, client] = await pass()
      expect(reply, kind).toMatch(/^\+OK/)
      expect(await client.ask('STAT')).toBe('+OK 0 0')
      expect(await holders()).toEqual([user.userId])
      await client.ask('QUIT')
    }
  })

  test('whose the address is: a lease of the other maildrop is given back', async () => {
    await poll()
    await sql`update users set local_part = 'eve' where user_id = ${user.userId}`.execute(
      database.db.kysely,
    )
    await addUser(database.db, ada, { password: 'secret' })
    const [reply, client] = await pass()
    expect(reply).toMatch(/^\+OK/)
    expect(await client.ask('STAT')).toBe('+OK 0 0')
    expect(await holders()).not.toContain(user.userId)
    await client.ask('QUIT')
  })

  test.each([
    ['revoked', 'delete from credentials where domain_id = '],
    ['expired', 'update credentials set expires_at = now() where domain_id = '],
    ['bound to a network', `update credentials set networks = '{192.0.2.0/24}' where domain_id = `],
  ])('the app password: %s', async (_, change) => {
    const secret = await addAppPassword(database.db, ada, 'phone', {
      expiresAt: undefined,
      networks: undefined,
    })
    await poll(secret)
    const seen = watch()
    expect(await poll(secret)).toMatch(/^\+OK/)
    expect(seen.names()[0]).toBe('lease-acquire')
    await sql.raw(`${change}${user.domainId}`).execute(database.db.kysely)
    expect(await poll(secret)).toMatch(/^-ERR \[AUTH\]/)
    expect(seen.leases()).toBe(1)
  })
})

test('a throttled login with the right password gives the lease back before it is told', async () => {
  await poll()
  const known = `known 127.0.0.1 ${ada}`
  await expect
    .poll(async () => (await sql`select from known_networks`.execute(other.kysely)).rows.length)
    .toBeGreaterThan(0)
  for (let count = 0; count < 25; count++)
    await countFailure(other, [known], Buffer.from(`${count}`))
  const seen = watch()
  const [reply, client] = await pass()
  expect(reply).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect(await holders()).toEqual([])
  expect([seen.leases(), node.keeper.sessionCount]).toEqual([1, 0])
  client.socket.destroy()
})

describe('a maildrop that is open', () => {
  test('on another node is in use, after one question', async () => {
    const second = await startNode()
    nodes.push(second)
    await poll('secret', second)
    const [, holder] = await pass()
    const seen = watch(second)
    expect(await poll('secret', second)).toMatch(/^-ERR \[IN-USE\]/)
    expect(seen.names()).toEqual(['lease-acquire', 'maildrop-open'])
    await holder.ask('QUIT')
    expect(await poll('secret', second)).toMatch(/^\+OK/)
  })

  test('goes to one of two nodes that ask at once', async () => {
    const second = await startNode()
    nodes.push(second)
    for (const one of nodes) await poll('secret', one)
    for (let round = 0; round < 10; round++) {
      const both = await Promise.all(nodes.map((one) => pass('secret', one)))
      const replies = both.map(([reply]) => reply.slice(0, 3)).sort()
      expect(replies).toEqual(['+OK', '-ER'])
      expect(await holders()).toEqual([user.userId])
      for (const [, client] of both) {
        await client.ask('QUIT')
        await client.closed
      }
    }
  })
})

test('where the domain has no place left, no lease is asked for', async () => {
  node = await startNode(1)
  nodes.push(node)
  await poll()
  await addUser(database.db, `bob@${domainName}`, { password: 'secret' })
  const holder = await Pop3Client.login(node.address, `bob@${domainName}`, 'secret')
  const seen = watch()
  expect(await poll()).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect(await poll('wrong')).toMatch(/^-ERR \[AUTH\]/)
  expect(seen.names()).not.toContain('lease-acquire')
  await holder.ask('QUIT')
  await holder.closed
  await node.untilLogged(`"user":"bob@${domainName}","reason"`)
  expect(await poll()).toMatch(/^\+OK/)
})
