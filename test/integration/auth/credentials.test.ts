/**
 * The ways in besides the password, at the one door and on real PostgreSQL: app passwords, client
 * certificates, SCRAM. What a refusal costs is counted in argon2 computations and statements.
 */
import { createHash, randomBytes } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import { hashSync } from 'bcryptjs'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { openLog } from '../../../src/base/log.ts'
import { Secret } from '../../../src/base/secret.ts'
import { argon2Counts } from '../../../src/mail/auth/argon2.ts'
import {
  Authenticator,
  type AuthenticatorOptions,
  type LoginVerdict,
} from '../../../src/mail/auth/authenticator.ts'
import { type LoginPeer, Presence } from '../../../src/mail/auth/login-peer.ts'
import { selectLoginAccount } from '../../../src/storage/accounts.ts'
import {
  addAppPassword,
  addCertificate,
  revokeCredential,
} from '../../../src/storage/tenants/credentials.ts'
import { updateMainPasswordAllowed } from '../../../src/storage/tenants/users.ts'
import {
  addUser,
  openTestDatabase,
  TEST_KEYRING,
  type TestDatabase,
} from '../../support/postgres.ts'
import { ScramClient } from '../../support/scram-client.ts'

const PASSWORD = 'Right-Horse-77'
const WRONG = 'Wrong-Horse-78'
const PEER: LoginPeer = {
  client: '192.0.2.7',
  isEncrypted: true,
  hostDomain: undefined,
  certificateDigest: undefined,
}
const ANYTIME = { expiresAt: undefined, networks: undefined }
const BAD_CREDENTIALS: LoginVerdict = { kind: 'refused', reason: 'bad-credentials' }

let database: TestDatabase
let lines: string[] = []
const log = openLog('trace', {}, { write: (line: string) => void lines.push(line) })

beforeAll(async () => {
  database = await openTestDatabase()
})

afterAll(async () => {
  await database.close()
})

function open(options: Partial<AuthenticatorOptions> = {}): Authenticator {
  const { db } = database
  const base = { db, log, defaultDomain: '', keyring: TEST_KEYRING, failureDelayMs: 0 }
  return new Authenticator({ ...base, ...options })
}

function byPassword(
  name: string,
  password: string,
  peer: Partial<LoginPeer> = {},
  door = open(),
): Promise<LoginVerdict> {
  const attempt = { mechanism: 'password', name, password: new Secret(password) } as const
  return door.verify(attempt, { ...PEER, ...peer })
}

function byCertificate(
  digest: Buffer | undefined,
  name = '',
  peer: Partial<LoginPeer> = {},
): Promise<LoginVerdict> {
  const from = { ...PEER, certificateDigest: digest, ...peer }
  return open().verify({ mechanism: 'external', name }, from)
}

async function byScram(name: string, password: string, door = open()): Promise<LoginVerdict> {
  const client = new ScramClient({ name, password, nonce: 'rOprNGfwEbeRWgbNEkqO' })
  const { salt, iterations, nonce } = await door.scramSalt(name, PEER)
  const first = `r=rOprNGfwEbeRWgbNEkqO${nonce},s=${salt.toString('base64')},i=${iterations}`
  const [withoutProof = '', proof = ''] = client.final(first).split(',p=')
  const authMessage = `${client.first().slice('n,,'.length)},${first},${withoutProof}`
  const clientProof = Buffer.from(proof, 'base64')
  const verdict = await door.verify({ mechanism: 'scram', name, authMessage, clientProof }, PEER)
  if (verdict.kind === 'accepted')
    expect(client.isServer(`v=${verdict.serverSignature?.toString('base64')}`)).toBe(true)
  return verdict
}

async function find(address: string) {
  const [localPart = '', domainName = ''] = address.split('@')
  const account = await selectLoginAccount(database.db, domainName, localPart)
  if (account === undefined) throw new Error(`${address} is missing`)
  return account
}

const setUser = (address: string, assignment: string): Promise<unknown> =>
  sql`update users u set ${sql.raw(assignment)} from find_user(${address}) f
    where u.domain_id = f.domain_id and u.user_id = f.user_id`.execute(database.db.kysely)

const reasonOf = (line: string | undefined): unknown => JSON.parse(line ?? '{}').reason

/** Reason and cost of one attempt. Statements are those that the door waits for. */
async function costOf(attempt: (door: Authenticator) => Promise<LoginVerdict>) {
  lines = []
  const statements: string[] = []
  const db = new Proxy(database.db, {
    get: (target, key) => {
      if (key !== 'hot') return Reflect.get(target, key, target)
      return (statement: { name: string; text: string }, values: unknown[]) => {
        statements.push(statement.name)
        return target.hot(statement, values)
      }
    },
  })
  const before = argon2Counts()
  const verdict = await attempt(open({ db }))
  const after = argon2Counts()
  await vi.waitFor(() => expect(lines.length).toBeGreaterThan(0), { timeout: 5_000, interval: 5 })
  return {
    verdict,
    reason: reasonOf(lines[0]),
    argon2: after.verified - before.verified + after.hashed - before.hashed,
    statements,
  }
}

describe('an app password', () => {
  const address = 'app@example.test'
  let secret: string

  beforeAll(async () => {
    await addUser(database.db, address, { password: PASSWORD })
    secret = await addAppPassword(database.db, address, 'phone', ANYTIME)
  })

  test('opens the maildrop at no argon2, typed with blanks, hyphens or capitals', async () => {
    expect(secret).toMatch(/^([a-z2-7]{4}-){5}[a-z2-7]{4}$/)
    const plain = secret.replaceAll('-', '')
    for (const typed of [secret, plain, secret.replaceAll('-', ' '), secret.toUpperCase()]) {
      const { verdict, argon2 } = await costOf((door) => byPassword(address, typed, {}, door))
      expect(verdict).toMatchObject({ kind: 'accepted', account: { localPart: 'app' } })
      expect(argon2).toBe(0)
      expect(lines.join('')).not.toContain(plain)
    }
  })

  test('is told apart from the others: the verdict and the log name the credential', async () => {
    const verdict = await byPassword(address, secret)
    const { credential_id: id } = await database.db.kysely
      .selectFrom('credentials')
      .select('credential_id')
      .where('name', '=', 'phone')
      .executeTakeFirstOrThrow()
    expect(verdict).toMatchObject({ kind: 'accepted', credentialId: id })
    expect(lines.some((line) => JSON.parse(line).credential === id)).toBe(true)
    expect(await byPassword(address, PASSWORD)).toMatchObject({ credentialId: undefined })
  })

  test('that is wrong costs what a wrong password costs, whoever it is', async () => {
    const wrong = 'aaaa-bbbb-cccc-dddd-eeee-ffff'
    for (const name of [address, 'nobody@example.test', 'nobody@elsewhere.test'])
      for (const typed of [wrong, WRONG]) {
        const { verdict, argon2, statements } = await costOf((door) =>
          byPassword(name, typed, {}, door),
        )
        expect(verdict).toEqual(BAD_CREDENTIALS)
        expect({ argon2, statements }).toEqual({ argon2: 1, statements: ['login-account'] })
      }
  })

  test.each([
    ['another user of the domain', 'second@example.test'],
    ['a user of the same name in another domain', 'app@other.test'],
  ])('of %s is nobody’s here', async (_, other) => {
    await addUser(database.db, other, { password: PASSWORD })
    const theirs = await addAppPassword(database.db, other, 'phone', ANYTIME)
    expect(await byPassword(address, theirs)).toEqual(BAD_CREDENTIALS)
    expect(await byPassword(other, secret)).toEqual(BAD_CREDENTIALS)
    expect((await byPassword(other, theirs)).kind).toBe('accepted')
  })

  test('that was revoked, has expired, or comes from elsewhere is as wrong as any', async () => {
    const revoked = await addAppPassword(database.db, address, 'lost phone', ANYTIME)
    expect((await byPassword(address, revoked)).kind).toBe('accepted')
    expect(await revokeCredential(database.db, address, 'lost phone')).toBe(true)
    expect(await byPassword(address, revoked)).toEqual(BAD_CREDENTIALS)

    const expiresAt = new Date(Date.now() - 1)
    const expired = await addAppPassword(database.db, address, 'old', { ...ANYTIME, expiresAt })
    expect(await byPassword(address, expired)).toEqual(BAD_CREDENTIALS)

    const networks = ['198.51.100.0/24', '2001:db8:1::1/48']
    const bound = await addAppPassword(database.db, address, 'office', { ...ANYTIME, networks })
    for (const [client, kind] of [
      ['198.51.100.200', 'accepted'],
      ['198.51.101.1', 'refused'],
      ['2001:db8:1:ffff::2', 'accepted'],
      ['2001:db8:2::1', 'refused'],
      ['fe80::1%eth0', 'refused'],
      ['local', 'refused'],
    ] as const)
      expect((await byPassword(address, bound, { client })).kind).toBe(kind)
  })

  test('does not open a suspended maildrop, but is told so', async () => {
    await setUser(address, 'suspended = true')
    expect(await byPassword(address, secret)).toEqual({ kind: 'refused', reason: 'suspended' })
    await setUser(address, 'suspended = false')
  })

  test('is the only way in where the main password is not allowed', async () => {
    const { domainId, userId, fingerprint } = await find(address)
    await byPassword(address, PASSWORD)
    await updateMainPasswordAllowed(database.db, domainId, userId, false)
    expect((await find(address)).fingerprint).not.toBe(fingerprint)
    for (const typed of [PASSWORD, WRONG]) {
      const { verdict, argon2 } = await costOf((door) => byPassword(address, typed, {}, door))
      expect([verdict, argon2]).toEqual([BAD_CREDENTIALS, 1])
    }
    expect((await costOf((door) => byPassword(address, PASSWORD, {}, door))).reason).toBe(
      'main password not allowed',
    )
    expect(await byScram(address, PASSWORD)).toEqual(BAD_CREDENTIALS)
    expect((await byPassword(address, secret)).kind).toBe('accepted')
    await updateMainPasswordAllowed(database.db, domainId, userId, true)
    expect((await byPassword(address, PASSWORD)).kind).toBe('accepted')
  })

  test('notes its use once an hour', async () => {
    const used = await addAppPassword(database.db, address, 'noted', ANYTIME)
    const lastUse = async () =>
      (
        await database.db.kysely
          .selectFrom('credentials')
          .select('last_used_at')
          .where('name', '=', 'noted')
          .executeTakeFirstOrThrow()
      ).last_used_at
    const poll = () => costOf((door) => byPassword(address, used, {}, door))
    expect((await poll()).statements).toContain('credential-used')
    await vi.waitFor(async () => expect(await lastUse()).not.toBeNull(), { interval: 5 })
    expect((await poll()).statements).toEqual(['login-account'])
    const earlier = sql`update credentials set last_used_at = now() - interval '61 minutes'
      where name = 'noted'`
    await earlier.execute(database.db.kysely)
    expect((await poll()).statements).toContain('credential-used')
  })
})

describe('a client certificate', () => {
  const [ada, eve] = ['ada@cert.test', 'eve@cert.test']
  const own = createHash('sha256').update('one certificate').digest()
  const shared = createHash('sha256').update('another').digest()

  beforeAll(async () => {
    const { db } = database
    await addUser(db, ada)
    await addUser(db, eve)
    await addCertificate(db, ada, 'laptop', own, ANYTIME)
    await addCertificate(db, ada, 'shared', shared, ANYTIME)
    await addCertificate(db, eve, 'shared', shared, ANYTIME)
  })

  test('says who it is, with or without a name', async () => {
    for (const name of ['', ada, 'ADA@Cert.test'])
      expect(await byCertificate(own, name)).toMatchObject({
        kind: 'accepted',
        account: { localPart: 'ada', domainName: 'cert.test' },
        credentialId: expect.stringMatching(/^[0-9a-f-]{36}$/),
      })
    const hostDomain = 'cert.test'
    expect((await byCertificate(own, 'ada', { hostDomain })).kind).toBe('accepted')
  })

  test('of several users needs a name', async () => {
    expect(await byCertificate(shared)).toEqual(BAD_CREDENTIALS)
    expect(await byCertificate(shared, eve)).toMatchObject({ account: { localPart: 'eve' } })
    expect(await byCertificate(shared, ada)).toMatchObject({ account: { localPart: 'ada' } })
  })

  test('is nobody else’s, and unknown ones are refused', async () => {
    for (const name of [eve, 'nobody@cert.test', 'ada@example.test', 'no address'])
      expect(await byCertificate(own, name)).toEqual(BAD_CREDENTIALS)
    expect(await byCertificate(randomBytes(32))).toEqual(BAD_CREDENTIALS)
    expect(await byCertificate(undefined)).toEqual(BAD_CREDENTIALS)
  })

  test('is no app password, and an app password’s digest is no certificate', async () => {
    const secret = await addAppPassword(database.db, ada, 'phone', ANYTIME)
    const digest = createHash('sha256').update(secret.replaceAll('-', '')).digest()
    expect(await byCertificate(digest)).toEqual(BAD_CREDENTIALS)
    const typed = 'a'.repeat(24)
    const digestOfTyped = createHash('sha256').update(typed).digest()
    await addCertificate(database.db, ada, 'odd', digestOfTyped, ANYTIME)
    expect(await byPassword(ada, typed)).toEqual(BAD_CREDENTIALS)
  })

  test('that was revoked, has expired, or comes from elsewhere is unknown', async () => {
    const digest = randomBytes(32)
    const { db } = database
    const networks = ['198.51.100.7']
    await addCertificate(db, ada, 'gone', digest, { ...ANYTIME, networks })
    expect(await byCertificate(digest)).toEqual(BAD_CREDENTIALS)
    expect((await byCertificate(digest, '', { client: '198.51.100.7' })).kind).toBe('accepted')
    await sql`update credentials set expires_at = now() where name = 'gone'`.execute(db.kysely)
    expect(await byCertificate(digest, '', { client: '198.51.100.7' })).toEqual(BAD_CREDENTIALS)
    await revokeCredential(db, ada, 'gone')
    await addCertificate(db, ada, 'gone', digest, ANYTIME)
    expect((await byCertificate(digest)).kind).toBe('accepted')
    await revokeCredential(db, ada, 'gone')
    expect(await byCertificate(digest)).toEqual(BAD_CREDENTIALS)
  })

  test('of a suspended user is told so', async () => {
    await setUser(ada, 'suspended = true')
    expect(await byCertificate(own)).toEqual({ kind: 'refused', reason: 'suspended' })
  })
})

describe('SCRAM', () => {
  const address = 'scram@example.test'

  const keysCame = (name = address) =>
    vi.waitFor(async () => expect((await find(name)).scramKeys).toBeDefined(), {
      timeout: 5_000,
      interval: 5,
    })

  test('works after the first login by password, and shows the same salt before and after', async () => {
    await addUser(database.db, address, { password: PASSWORD })
    const door = open()
    const saltOf = async (name: string) => {
      const { salt, iterations } = await door.scramSalt(name, PEER)
      return [salt.toString('hex'), iterations]
    }
    const before = await saltOf(address)
    expect(await byScram(address, PASSWORD)).toEqual(BAD_CREDENTIALS)
    const { fingerprint } = await find(address)
    await byPassword(address, PASSWORD, {}, door)
    await keysCame()
    expect((await find(address)).fingerprint).toBe(fingerprint)
    expect(await byScram('Scram@EXAMPLE.test', PASSWORD)).toMatchObject({ kind: 'accepted' })
    expect(await saltOf(address)).toEqual(before)
    expect(await saltOf('SCRAM@example.test')).toEqual(before)
    const unknown = await saltOf('nobody@example.test')
    expect(await saltOf('Nobody@example.test')).toEqual(unknown)
    expect(unknown).not.toEqual(before)
    expect(unknown[1]).toBe(before[1])
  })

  test('refuses a wrong password, an unknown user and one without keys alike', async () => {
    await addUser(database.db, 'nokeys@example.test', { password: PASSWORD })
    for (const [name, reason] of [
      [address, 'wrong SCRAM proof'],
      ['nokeys@example.test', 'no SCRAM keys'],
      ['nobody@example.test', 'unknown user'],
      ['nobody@elsewhere.test', 'unknown domain'],
    ] as const) {
      const cost = await costOf((door) => byScram(name, WRONG, door))
      expect(cost).toEqual({
        verdict: BAD_CREDENTIALS,
        reason,
        argon2: 0,
        statements: ['login-account', 'scram-salt-key', 'login-account'],
      })
    }
  })

  test('does not take the old password once it was changed, by whatever way', async () => {
    expect((await byScram(address, PASSWORD)).kind).toBe('accepted')
    await setUser(address, `password_hash = '${hashSync('battery', 4)}'`)
    expect((await find(address)).scramKeys).toBeDefined()
    expect(await byScram(address, PASSWORD)).toEqual(BAD_CREDENTIALS)
    expect((await byPassword(address, 'battery')).kind).toBe('accepted')
    await keysCame()
    await vi.waitFor(async () => expect((await byScram(address, 'battery')).kind).toBe('accepted'))
    expect(await byScram(address, PASSWORD)).toEqual(BAD_CREDENTIALS)
  })

  test('keys that were copied to another user do not open there', async () => {
    const { scramKeys, passwordHash } = await find(address)
    await addUser(database.db, 'thief@example.test')
    await setUser(
      'thief@example.test',
      `scram_keys = '\\x${scramKeys?.toString('hex')}', password_hash = '${passwordHash}'`,
    )
    expect(await byScram('thief@example.test', 'battery')).toEqual(BAD_CREDENTIALS)
  })

  test('is for nobody without the key', async () => {
    const cost = await costOf(() => byScram(address, 'battery', open({ keyring: undefined })))
    expect(cost).toMatchObject({ verdict: BAD_CREDENTIALS, reason: 'no secret key' })
  })
})

describe('the cache of verified passwords', () => {
  const address = 'cache@example.test'
  let door: Authenticator

  /** @returns the outcome, and whether argon2 was asked */
  async function poll(name: string, typed: string): Promise<[string, boolean]> {
    const before = argon2Counts().verified
    const { kind } = await byPassword(name, typed, {}, door)
    return [kind, argon2Counts().verified > before]
  }

  beforeAll(async () => {
    door = open()
    await addUser(database.db, address, { password: PASSWORD })
    expect(await poll(address, PASSWORD)).toEqual(['accepted', true])
  })

  test('spares the next login argon2, and no wrong one', async () => {
    expect(await poll(address, PASSWORD)).toEqual(['accepted', false])
    expect(await poll(address, WRONG)).toEqual(['refused', true])
    expect(await poll(address, WRONG)).toEqual(['refused', true])
    expect(await poll(address, `${PASSWORD}\0`)).toEqual(['refused', true])
  })

  test('is nobody else’s: CVE-2025-30189, one user’s entry for another', async () => {
    const { passwordHash } = await find(address)
    await addUser(database.db, 'cache@other.test', { password: WRONG })
    await addUser(database.db, 'other@example.test', { password: WRONG })
    for (const name of ['cache@other.test', 'other@example.test', 'nobody@example.test'])
      expect(await poll(name, PASSWORD)).toEqual(['refused', true])
    // Even with the same hash in the row it is verified for that user first.
    await setUser('other@example.test', `password_hash = '${passwordHash}'`)
    expect(await poll('other@example.test', PASSWORD)).toEqual(['accepted', true])
  })

  test('does not outlive a suspension', async () => {
    await setUser(address, 'suspended = true')
    expect(await byPassword(address, PASSWORD, {}, door)).toEqual({
      kind: 'refused',
      reason: 'suspended',
    })
    await setUser(address, 'suspended = false')
  })

  test('does not outlive the hash', async () => {
    await setUser(address, `password_hash = '${hashSync(WRONG, 4)}'`)
    expect(await poll(address, PASSWORD)).toEqual(['refused', true])
    await setUser(address, 'password_hash = null')
    expect(await poll(address, WRONG)).toEqual(['refused', true])
  })
})

describe('a bare name', () => {
  test('is of the domain that the host name is bound to, before the default domain', async () => {
    await addUser(database.db, 'both@one.test', { password: 'one' })
    await addUser(database.db, 'both@two.test', { password: 'two' })
    const door = open({ defaultDomain: 'one.test' })
    const login = async (hostDomain: string | undefined, typed: string) =>
      (await byPassword('both', typed, { hostDomain }, door)).kind
    expect(await login(undefined, 'one')).toBe('accepted')
    expect(await login('two.test', 'two')).toBe('accepted')
    expect(await login('two.test', 'one')).toBe('refused')
    expect((await byPassword('both@one.test', 'one', { hostDomain: 'two.test' }, door)).kind).toBe(
      'accepted',
    )
  })
})

describe('a refusal', () => {
  test('is not told before its time, and not waited for when the peer has gone', async () => {
    const attempt = { mechanism: 'password', name: 'x@example.test' } as const
    const login = { ...attempt, password: new Secret(WRONG) }
    const began = performance.now()
    expect(await open({ failureDelayMs: 300 }).verify(login, PEER)).toEqual(BAD_CREDENTIALS)
    expect(performance.now() - began).toBeGreaterThanOrEqual(300)
    const peer = new Presence()
    lines = []
    let isTold = false
    const patient = open({ failureDelayMs: 3_600_000 }).verify(login, PEER, peer)
    void patient.then(() => {
      isTold = true
    })
    await vi.waitFor(() => expect(lines.length).toBeGreaterThan(0), { timeout: 5_000 })
    await setImmediate()
    expect(isTold).toBe(false)
    peer.leave()
    expect(await patient).toEqual(BAD_CREDENTIALS)
  })
})
