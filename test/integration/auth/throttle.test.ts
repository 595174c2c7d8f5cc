/**
 * Failed logins as all nodes count them. Two Throttles on two connections are two nodes; the
 * database's clock decides, so a test moves the rows instead of waiting.
 */
import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { pino } from 'pino'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Keyring } from '../../../src/base/keyring.ts'
import { Secret } from '../../../src/base/secret.ts'
import { argon2Counts } from '../../../src/mail/auth/argon2.ts'
import { Authenticator } from '../../../src/mail/auth/authenticator.ts'
import { parseLoginName } from '../../../src/mail/auth/login-name.ts'
import { Presence } from '../../../src/mail/auth/login-peer.ts'
import { sourceOf } from '../../../src/mail/auth/source.ts'
import { Throttle, type ThrottleVerdict, throttleKeys } from '../../../src/mail/auth/throttle.ts'
import { lookUpLogin } from '../../../src/storage/accounts.ts'
import type { Database } from '../../../src/storage/postgres/database.ts'
import {
  selectThrottleRows,
  shareProofKey,
  sweepThrottles,
} from '../../../src/storage/throttles.ts'
import {
  addUser,
  openTestConnection,
  openTestDatabase,
  TEST_KEYRING,
  type TestDatabase,
} from '../../support/postgres.ts'

const log = pino({ level: 'silent' })
const HOME = '198.51.100.7'
const ATTACKER = '203.0.113.9'
const REFUSE = { kind: 'refuse' }
const GO = { kind: 'go', delayMs: 0 }

let database: TestDatabase
let nodes: { db: Database; throttle: Throttle }[]
let domainName: string
let address: string
let user: { domainId: number; userId: number }

const openNode = (keyring: Keyring | undefined) => {
  const db = openTestConnection(database.url)
  return { db, throttle: new Throttle({ db, log, keyring }) }
}

beforeAll(async () => {
  database = await openTestDatabase()
  nodes = [openNode(TEST_KEYRING), openNode(TEST_KEYRING)]
})

afterAll(async () => {
  await Promise.all(nodes.map(({ db }) => db.close()))
  await database.close()
})

beforeEach(async () => {
  await sql`truncate throttles, known_networks`.execute(database.db.kysely)
  domainName = `${randomUUID()}.test`
  address = `Ada@${domainName}`
  user = await addUser(database.db, address)
})

/** As the authenticator asks it. @param node 0 or 1 */
async function ask(client: string, name = address, node = 0) {
  const [found] = [nodes[node]]
  if (found === undefined) throw new Error('there are two nodes')
  const parsed = parseLoginName(name, '')
  if (parsed === undefined) throw new Error(`${name} is no address`)
  const keys = throttleKeys(client, parsed)
  const { account, throttles } = await lookUpLogin(found.db, {
    domainName: parsed.domainName,
    localPart: parsed.localPart,
    client,
    network: sourceOf(client),
    throttleKeys: Object.values(keys),
  })
  const who = { client, name: parsed, keys, account }
  return { throttle: found.throttle, who, account, verdict: found.throttle.judge(who, throttles) }
}

/** An attempt with a wrong password. */
async function fail(
  client: string,
  password: string = randomUUID(),
  name = address,
  node = 0,
): Promise<ThrottleVerdict> {
  const { throttle, who, verdict } = await ask(client, name, node)
  if (verdict.kind === 'go') await throttle.recordFailure(who, Buffer.from(password))
  return verdict
}

async function succeed(client: string, name = address, node = 0): Promise<void> {
  const { throttle, account } = await ask(client, name, node)
  if (account === undefined) throw new Error(`${name} is unknown`)
  await throttle.recordSuccess(client, account)
}

const verdictFor = async (client: string, name = address, node = 0) =>
  (await ask(client, name, node)).verdict

const age = (hours: number) =>
  sql`update throttles set updated_at = updated_at - make_interval(secs => ${hours * 3600})`.execute(
    database.db.kysely,
  )

const rowsOf = async (): Promise<Record<string, number>> =>
  Object.fromEntries(
    (await selectThrottleRows(database.db)).map((row) => [row.key, Math.round(row.failures)]),
  )

/** The versions of all rows: any write, or even a lock, would make it another. */
async function versions(): Promise<string[]> {
  const { rows } = await sql<{ version: string }>`
    select ctid || '/' || xmin || '/' || xmax as version from throttles
    union all select ctid || '/' || xmin || '/' || xmax from known_networks`.execute(
    database.db.kysely,
  )
  return rows.map(({ version }) => version)
}

describe('guessing the password of a user', () => {
  test('is delayed more and more, then refused, on every node', async () => {
    const delays: (number | string)[] = []
    for (let attempt = 0; attempt < 11; attempt++) {
      const verdict = await fail(`203.0.113.${attempt}`, undefined, address, attempt % 2)
      delays.push(verdict.kind === 'go' ? verdict.delayMs / 1_000 : verdict.kind)
    }
    expect(delays).toEqual([0, 0, 0, 0, 1, 2, 4, 8, 8, 8, 'refuse'])
    expect(await verdictFor('192.0.2.200', address.toUpperCase(), 1)).toEqual(REFUSE)
    expect(await verdictFor('192.0.2.200', `other@${domainName}`)).toEqual(GO)
  })

  test('fades evenly: what came as a burst takes as long as if it had come one by one', async () => {
    const attempts = Array.from({ length: 30 }, (_, i) => ask(`203.0.113.${i}`))
    for (const { throttle, who } of await Promise.all(attempts))
      await throttle.recordFailure(who, Buffer.from(randomUUID()))
    expect((await rowsOf())[`user ${address.toLowerCase()}`]).toBe(30)
    await age(3)
    expect(await verdictFor(ATTACKER)).toEqual(REFUSE)
    await age(0.5)
    expect(await verdictFor(ATTACKER)).toEqual({ kind: 'go', delayMs: 8_000 })
    await age(1)
    expect(await verdictFor(ATTACKER)).toEqual(GO)
  })

  test('that does not exist is answered alike', async () => {
    const nobody = `nobody@${domainName}`
    const seen: [ThrottleVerdict, ThrottleVerdict][] = []
    for (let attempt = 0; attempt < 12; attempt++)
      seen.push([
        await fail(`203.0.113.${attempt}`, undefined, address),
        await fail(`203.0.114.${attempt}`, undefined, nobody),
      ])
    for (const [known, unknown] of seen) expect(unknown).toEqual(known)
    expect(seen.at(-1)).toEqual([REFUSE, REFUSE])
  })
})

describe('lockout as an attack (Mailu #2880)', () => {
  test('leaves the networks that the owner uses alone', async () => {
    await succeed(HOME)
    for (let attempt = 0; attempt < 60; attempt++) await fail(`203.0.113.${attempt}`)
    expect(await verdictFor('192.0.2.1')).toEqual(REFUSE)
    expect(await verdictFor(HOME, address, 1)).toEqual(GO)
  })

  test('by others behind the same address does neither', async () => {
    await succeed(HOME)
    for (let attempt = 0; attempt < 60; attempt++)
      await fail(HOME, undefined, `user${attempt}@${domainName}`)
    expect(await verdictFor(HOME, `someone@${domainName}`)).toEqual(REFUSE)
    expect(await verdictFor(HOME)).toEqual(GO)
  })

  test('a known network is no licence to guess, and its guesses hurt nowhere else', async () => {
    await succeed(HOME)
    for (let attempt = 0; attempt < 30; attempt++) await fail(HOME)
    expect(await verdictFor(HOME)).toEqual(REFUSE)
    expect(await verdictFor('192.0.2.1')).toEqual(GO)
    expect(await rowsOf()).toEqual({ [`known ${HOME} ${address.toLowerCase()}`]: 20 })
  })

  test('a network is known for a month', async () => {
    await succeed(HOME)
    for (let attempt = 0; attempt < 12; attempt++) await fail(`203.0.113.${attempt}`)
    const setAge = (days: number) =>
      sql`update known_networks set seen_at = now() - make_interval(days => ${days})`.execute(
        database.db.kysely,
      )
    await setAge(29)
    expect(await verdictFor(HOME)).toEqual(GO)
    await setAge(30)
    expect(await verdictFor(HOME)).toEqual(REFUSE)
  })
})

describe('the same wrong password', () => {
  test('of a phone that tries it 500 times counts once, wherever it is and on both nodes', async () => {
    for (let attempt = 0; attempt < 500; attempt++)
      await fail(`198.51.${attempt % 100}.7`, 'the old password', address, attempt % 2)
    expect(Object.values(await rowsOf())).toEqual([1, 1, 1])
    expect(await verdictFor('192.0.2.1')).toEqual(GO)
  })

  test('three times, as Thunderbird tries it, is one failure; another password is another', async () => {
    for (const password of ['old', 'old', 'old', 'new', 'new', 'new']) await fail(HOME, password)
    expect((await rowsOf())[`user ${address.toLowerCase()}`]).toBe(2)
  })

  test('for another user is another proof: spraying one password counts each time', async () => {
    for (const name of ['a', 'b', 'c']) await fail(ATTACKER, '123456', `${name}@${domainName}`)
    expect((await rowsOf())[`network ${ATTACKER}`]).toBe(3)
  })

  test('is one of the last eight that are remembered', async () => {
    const passwords = Array.from({ length: 9 }, (_, i) => `guess ${i}`)
    for (const [i, password] of passwords.entries()) await fail(`203.0.113.${i}`, password)
    await fail(ATTACKER, 'guess 1')
    expect((await rowsOf())[`user ${address.toLowerCase()}`]).toBe(9)
    await fail(ATTACKER, 'guess 0')
    expect((await rowsOf())[`user ${address.toLowerCase()}`]).toBe(10)
    const { rows } = await sql<{ most: number }>`
      select max(cardinality(recent)) as most from throttles`.execute(database.db.kysely)
    expect(rows).toEqual([{ most: 8 }])
  })

  test('is not in the table, and without a secret key the nodes share one all the same', async () => {
    const two = [openNode(undefined), openNode(undefined)]
    const [first, second] = await Promise.all(
      two.map(({ db }, node) => shareProofKey(db, Buffer.alloc(32, node))),
    )
    expect(first).toEqual(second)
    const name = parseLoginName(address, '')
    const who = { client: HOME, name, keys: throttleKeys(HOME, name) }
    for (const { throttle } of two)
      await throttle.recordFailure(who, Buffer.from('the old password'))
    expect((await rowsOf())[`user ${address.toLowerCase()}`]).toBe(1)
    const { rows } = await sql<{ row: string }>`
      select throttles::text as row from throttles`.execute(database.db.kysely)
    expect(rows.length).toBe(4)
    expect(rows.some(({ row }) => row.includes(Buffer.from('the old').toString('hex')))).toBe(false)
    await Promise.all(two.map(({ db }) => db.close()))
  })
})

describe('spraying over a domain', () => {
  const spray = async (): Promise<void> => {
    for (let attempt = 0; attempt < 450; attempt++)
      await fail(
        `10.${attempt % 250}.${Math.floor(attempt / 250)}.1`,
        '123456',
        `u${attempt}@${domainName}`,
      )
  }

  test('delays unknown networks and refuses nobody; known ones do not notice', async () => {
    await succeed(HOME)
    await spray()
    expect(await verdictFor('192.0.2.1', `u1000@${domainName}`)).toEqual({
      kind: 'go',
      delayMs: 8_000,
    })
    expect(await verdictFor(HOME)).toEqual(GO)
    expect(await verdictFor('192.0.2.1', `u1@elsewhere-${domainName}`)).toEqual(GO)
  })
})

describe('a network', () => {
  test('is refused whatever names it tries; others go on', async () => {
    for (let attempt = 0; attempt < 50; attempt++)
      await fail(ATTACKER, undefined, `u${attempt}@${randomUUID()}.test`)
    expect(await verdictFor(ATTACKER)).toEqual(REFUSE)
    expect(await verdictFor(HOME)).toEqual(GO)
  })

  test('of IPv6 is a /64', async () => {
    for (let attempt = 0; attempt < 50; attempt++)
      await fail(`2001:db8:0:1::${attempt}`, undefined, `u${attempt}@${domainName}`)
    expect(await verdictFor('2001:db8:0:1:ffff::1')).toEqual(REFUSE)
    expect(await verdictFor('2001:db8:0:2::1')).toEqual(GO)
  })

  test('counts names that cannot be addresses', async () => {
    const [node] = nodes
    const keys = throttleKeys(ATTACKER, undefined)
    const who = { client: ATTACKER, name: undefined, keys }
    for (let attempt = 0; attempt < 50; attempt++)
      await node?.throttle.recordFailure(who, Buffer.from(`guess ${attempt}`))
    const counts = await node?.throttle.read(keys)
    expect(counts && node?.throttle.judge(who, counts)).toEqual(REFUSE)
  })
})

test('a good login writes nothing but, once a day, from where it came', async () => {
  await succeed(HOME)
  const first = await versions()
  expect(first).toHaveLength(1)
  for (let login = 0; login < 5; login++) await succeed(HOME, address, login % 2)
  expect(await versions()).toEqual(first)
  await sql`update known_networks set seen_at = now() - interval '25 hours'`.execute(
    database.db.kysely,
  )
  const aged = await versions()
  await succeed(HOME)
  const second = await versions()
  expect(second).toHaveLength(1)
  expect(second).not.toEqual(aged)
  await succeed(HOME)
  expect(await versions()).toEqual(second)
})

test('failures at once on the same keys neither deadlock nor get lost', async () => {
  const names = Array.from({ length: 20 }, (_, i) => `u${i % 4}@${domainName}`)
  await Promise.all(names.map((name, i) => fail(`203.0.113.${i % 3}`, undefined, name, i % 2)))
  expect((await rowsOf())[`domain ${domainName}`]).toBe(20)
})

test('the sweep takes what has faded, networks of long ago and of removed users', async () => {
  await fail(HOME)
  await fail(ATTACKER)
  await succeed(HOME)
  const gone = await addUser(database.db, `gone@${domainName}`)
  await succeed(HOME, `gone@${domainName}`)
  await database.db.kysely.deleteFrom('users').where('user_id', '=', gone.userId).execute()
  await age(0.2)
  await sweepThrottles(database.db)
  expect(Object.keys(await rowsOf())).toEqual([`user ${address.toLowerCase()}`])
  const known = await database.db.kysely.selectFrom('known_networks').selectAll().execute()
  expect(known).toMatchObject([{ user_id: user.userId, network: HOME }])
  const { rows } = await sql<{
    keys: number
  }>`select count(*)::integer as keys from throttles`.execute(database.db.kysely)
  expect(rows).toEqual([{ keys: 1 }])
})

test('the table is bounded: those with the fewest failures go first', async () => {
  await sql`insert into throttles select 'user u' || n || '@flood.test', 1, '{}', now()
    from generate_series(1, 100010) n`.execute(database.db.kysely)
  for (let attempt = 0; attempt < 5; attempt++) await fail(`203.0.113.${attempt}`)
  await sweepThrottles(database.db)
  const { rows } = await sql<{
    keys: number
  }>`select count(*)::integer as keys from throttles`.execute(database.db.kysely)
  expect(rows).toEqual([{ keys: 100_000 }])
  expect((await rowsOf())[`user ${address.toLowerCase()}`]).toBe(5)
})

describe('through the authenticator', () => {
  const openAuthenticator = (): Authenticator => {
    const [node] = nodes
    if (node === undefined) throw new Error('there are two nodes')
    const { db, throttle } = node
    const options = { db, log, defaultDomain: '', keyring: TEST_KEYRING, failureDelayMs: 0 }
    return new Authenticator({ ...options, throttle })
  }

  test('a throttled attempt is refused, right password or not; from home it is not', async () => {
    const name = `eve@${domainName}`
    await addUser(database.db, name, { password: 'right' })
    const authenticator = openAuthenticator()
    const verify = (client: string, password: string) =>
      authenticator.verify(
        { mechanism: 'password', name, password: new Secret(password) },
        { client, isEncrypted: true, hostDomain: undefined, certificateDigest: undefined },
      )
    expect(await verify(HOME, 'right')).toMatchObject({ kind: 'accepted' })
    await expect.poll(async () => (await ask(HOME, name)).account?.isKnownNetwork).toBe(true)
    expect(await verify(ATTACKER, 'wrong')).toEqual({ kind: 'refused', reason: 'bad-credentials' })
    expect((await rowsOf())[`user ${name.toLowerCase()}`]).toBe(1)
    for (let attempt = 0; attempt < 12; attempt++)
      await fail(`203.0.113.${attempt}`, undefined, name)
    expect(await verify(ATTACKER, 'right')).toEqual({ kind: 'refused', reason: 'throttled' })
    expect(await verify(HOME, 'right')).toMatchObject({ kind: 'accepted' })
  })

  test('many attempts at once get no further than one after the other', async () => {
    const name = `flo@${domainName}`
    await addUser(database.db, name, { password: 'right' })
    const authenticator = openAuthenticator()
    const patience = new Presence()
    const before = argon2Counts().verified
    let throttled = 0
    const attempts = Array.from({ length: 40 }, async (_, i) => {
      const verdict = await authenticator.verify(
        { mechanism: 'password', name, password: new Secret(`wrong ${i}`) },
        {
          client: `203.0.113.${i}`,
          isEncrypted: true,
          hostDomain: undefined,
          certificateDigest: undefined,
        },
        patience,
      )
      if (verdict.kind === 'refused' && verdict.reason === 'throttled') throttled += 1
    })
    await expect.poll(() => throttled).toBeGreaterThanOrEqual(25)
    patience.leave() // those that are delayed
    await Promise.allSettled(attempts)
    expect(argon2Counts().verified - before).toBeLessThanOrEqual(10)
    expect((await ask(HOME, `other@${domainName}`)).verdict).toEqual(GO)
  })
})
