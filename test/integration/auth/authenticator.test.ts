/**
 * The one door, on real PostgreSQL: who is let in, what a refusal tells and costs, what the log
 * says. Cost is counted in argon2 computations, as time on a busy machine proves nothing.
 */
import { randomBytes } from 'node:crypto'
import { hashSync } from 'bcryptjs'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { Keyring } from '../../../src/base/keyring.ts'
import { openLog } from '../../../src/base/log.ts'
import { Secret } from '../../../src/base/secret.ts'
import { apopDigest, apopUse } from '../../../src/mail/auth/apop-secret.ts'
import { argon2Counts } from '../../../src/mail/auth/argon2.ts'
import {
  Authenticator,
  type AuthenticatorOptions,
  type LoginVerdict,
} from '../../../src/mail/auth/authenticator.ts'
import { type LoginPeer, Presence } from '../../../src/mail/auth/login-peer.ts'
import type { LoginAttempt } from '../../../src/protocol/pop3/actions.ts'
import { type LoginAccount, selectLoginAccount } from '../../../src/storage/accounts.ts'
import {
  addUser,
  openTestConnection,
  openTestDatabase,
  TEST_KEYRING,
  TEST_SECRET_KEY_HEX,
  type TestDatabase,
} from '../../support/postgres.ts'

const CLIENT = '192.0.2.7'
const PEER: LoginPeer = {
  client: CLIENT,
  isEncrypted: true,
  hostDomain: undefined,
  certificateDigest: undefined,
}
const TIMESTAMP = '<1896.697170952@dbc.mtview.ca.us>'
const PASSWORD = 'Right-Horse-77'
const WRONG = 'Wrong-Horse-78'
const APOP_SECRET = 'tanstaaf-79'

/** Made by the reference implementation's command with m=4096, t=3, p=2: not our parameters. */
const FOREIGN_ARGON2 =
  '$argon2id$v=19$m=4096,t=3,p=2$c2FsdHNhbHRzYWx0$U6N4zi1ZdRFb4wC3QrUB+0ZfncoeTXGKW9dp1Z7lhLg'

let database: TestDatabase
let lines: string[] = []
const log = openLog('trace', {}, { write: (line: string) => void lines.push(line) })

beforeAll(async () => {
  database = await openTestDatabase()
  const { db } = database
  await addUser(db, 'alice@example.test', { password: PASSWORD, apopSecret: APOP_SECRET })
  await addUser(db, 'nobody@example.test')
  await addUser(db, 'idle@example.test', { password: PASSWORD, apopSecret: APOP_SECRET })
  await addUser(db, 'carol@closed.test', { password: PASSWORD, apopSecret: APOP_SECRET })
  await update('idle@example.test', { suspended: true })
  const closed = db.kysely.updateTable('domains').set({ suspended: true })
  await closed.where('name', '=', 'closed.test').execute()
})

afterAll(async () => {
  await database.close()
})

afterEach(() => {
  const secrets = [PASSWORD, WRONG, APOP_SECRET, TEST_SECRET_KEY_HEX]
  for (const secret of secrets) expect(lines.join('\n')).not.toContain(secret)
  lines = []
})

function makeAuthenticator(options: Partial<AuthenticatorOptions> = {}): Authenticator {
  const { db } = database
  return new Authenticator({
    db,
    log,
    defaultDomain: '',
    keyring: TEST_KEYRING,
    failureDelayMs: 0,
    ...options,
  })
}

function byPassword(
  name: string,
  password: string | Buffer,
  options?: Partial<AuthenticatorOptions>,
): Promise<LoginVerdict> {
  const attempt = { mechanism: 'password', name, password: new Secret(password) } as const
  return verify(attempt, options)
}

function byApop(
  name: string,
  secret: string,
  options?: Partial<AuthenticatorOptions>,
): Promise<LoginVerdict> {
  const digest = apopDigest(TIMESTAMP, new Secret(secret))
  const attempt = { mechanism: 'apop', name, timestamp: TIMESTAMP, digest } as const
  return verify(attempt, options)
}

async function verify(
  attempt: LoginAttempt,
  options?: Partial<AuthenticatorOptions>,
): Promise<LoginVerdict> {
  const verdict = await makeAuthenticator(options).verify(attempt, PEER)
  if (verdict.kind === 'refused') return verdict
  return { ...verdict, account: { ...verdict.account, ...SETTLES_LATER } }
}

/** SCRAM keys come a moment after a login. */
const SETTLES_LATER = { scramKeys: undefined }

async function update(
  address: string,
  values: { suspended?: boolean; password_hash?: string | null; apop_secret?: Buffer | null },
): Promise<void> {
  const { domainId, userId } = await find(address)
  const query = database.db.kysely.updateTable('users').set(values)
  await query.where('domain_id', '=', domainId).where('user_id', '=', userId).execute()
}

async function find(address: string) {
  const [localPart = '', domainName = ''] = address.split('@')
  const account = await selectLoginAccount(database.db, domainName, localPart)
  if (account === undefined) throw new Error(`${address} is missing`)
  return { ...account, ...SETTLES_LATER }
}

const accepted = (account: LoginAccount): LoginVerdict => ({
  kind: 'accepted',
  account,
  credentialId: undefined,
  serverSignature: undefined,
})

/** The reason in the one line about a login; it may come after the verdict. */
async function loggedReason(): Promise<unknown> {
  const found = (): Record<string, unknown>[] =>
    lines.map((line) => JSON.parse(line)).filter((entry) => 'reason' in entry)
  await vi.waitFor(() => expect(found()).toHaveLength(1), { timeout: 5_000, interval: 5 })
  const [entry] = found()
  expect(entry?.client).toBe(CLIENT)
  return entry?.reason
}

const BAD_CREDENTIALS = { kind: 'refused', reason: 'bad-credentials' }

describe('password', () => {
  it('lets the user in, and logs who and how', async () => {
    const verdict = await byPassword('alice@example.test', PASSWORD)
    expect(verdict).toEqual(accepted(await find('alice@example.test')))
    expect(await loggedReason()).toBe('verified')
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({
      level: 'debug',
      msg: 'credential verified',
      user: 'alice@example.test',
      domain: 'example.test',
      mechanism: 'password',
    })
  })

  it('does not care for the case of the domain or the user', async () => {
    expect((await byPassword('Alice@EXAMPLE.Test', PASSWORD)).kind).toBe('accepted')
  })

  it('takes a bare name as one of the default domain, if there is one', async () => {
    const options = { defaultDomain: 'example.test' }
    expect((await byPassword('alice', PASSWORD, options)).kind).toBe('accepted')
    expect(await byPassword('alice', PASSWORD)).toEqual(BAD_CREDENTIALS)
    expect((await byPassword('carol', PASSWORD, options)).kind).toBe('refused')
  })

  it.each([`${PASSWORD} `, ` ${PASSWORD}`, PASSWORD.toLowerCase(), `${PASSWORD}\0`, ''])(
    'takes the password as it is: not %j',
    async (typed) => {
      expect(await byPassword('alice@example.test', typed)).toEqual(BAD_CREDENTIALS)
    },
  )

  it('reads the hash at every login', async () => {
    await addUser(database.db, 'mover@example.test', { password: 'first-one' })
    const door = makeAuthenticator()
    const login = async (typed: string): Promise<string> => {
      const attempt = { mechanism: 'password', name: 'mover@example.test' } as const
      return (await door.verify({ ...attempt, password: new Secret(typed) }, PEER)).kind
    }
    expect(await login('first-one')).toBe('accepted')
    await update('mover@example.test', { password_hash: hashSync('second-one', 4) })
    expect(await login('first-one')).toBe('refused')
    expect(await login('second-one')).toBe('accepted')
  })
})

describe('a refusal', () => {
  it.each([
    ['alice@example.test', 'wrong password'],
    ['nobody@example.test', 'no password'],
    ['idle@example.test', 'wrong password'],
    ['carol@closed.test', 'wrong password'],
    ['mallory@example.test', 'unknown user'],
    ['alice@elsewhere.test', 'unknown domain'],
    ['alice', 'no domain'],
    ['al ice', 'implausible name'],
    ['alice@', 'implausible name'],
    ['al\u0000ice@example.test', 'implausible name'],
    ['al\ufffdice@example.test', 'implausible name'],
    [`${'a'.repeat(300)}@example.test`, 'implausible name'],
  ])('of %j is like any other and costs one argon2; the log knows: %s', async (name, reason) => {
    const before = argon2Counts()
    expect(await byPassword(name, WRONG)).toEqual(BAD_CREDENTIALS)
    expect(argon2Counts()).toEqual({ ...before, verified: before.verified + 1 })
    expect(await loggedReason()).toBe(reason)
  })

  it('never logs what cannot be an address', async () => {
    for (const typed of [PASSWORD, `${PASSWORD} @example.test`, `x@${PASSWORD}!`, `\n${PASSWORD}`])
      expect((await byPassword(typed, WRONG)).kind).toBe('refused')
    expect(lines).toHaveLength(4)
    // afterEach looks for it
  })

  it('tells of suspension only to the right password', async () => {
    for (const name of ['idle@example.test', 'carol@closed.test']) {
      lines = []
      expect(await byPassword(name, PASSWORD)).toEqual({ kind: 'refused', reason: 'suspended' })
      expect(await loggedReason()).toBe('suspended')
      expect(await byPassword(name, WRONG)).toEqual(BAD_CREDENTIALS)
    }
  })

  it('does not come where the database is away: that is a failure', async () => {
    const url = new URL(database.url)
    url.port = '1'
    const db = openTestConnection(url.toString())
    try {
      for (const login of [byPassword, byApop]) {
        const error = await login('alice@example.test', PASSWORD, { db }).catch((e: unknown) => e)
        expect(error).toMatchObject({ code: 'STORAGE_UNAVAILABLE' })
        expect(String(error)).not.toContain(PASSWORD)
      }
    } finally {
      await db.close()
    }
  })
})

describe('a flood from one IPv6 network', () => {
  it('leaves another peer its turns, and ends when its peers leave', async () => {
    const door = makeAuthenticator()
    const leaver = new Presence()
    const before = argon2Counts().verified
    const flood = Array.from({ length: 300 }, (_, index) => {
      const attempt = { mechanism: 'password', name: `x@d${index}.test` } as const
      const login = { ...attempt, password: new Secret(WRONG) }
      return door.verify(login, { ...PEER, client: `2001:db8::${index.toString(16)}` }, leaver)
    })
    const ended = Promise.allSettled(flood)
    expect((await byPassword('alice@example.test', PASSWORD)).kind).toBe('accepted')
    leaver.leave()
    const results = await ended
    const left = results.filter((result) => result.status === 'rejected').length
    expect(left).toBeGreaterThan(150)
    expect(argon2Counts().verified - before).toBe(flood.length - left + 1)
  })
})

describe('a hash of another kind', () => {
  it.each([
    ['bcrypt', (password: string) => hashSync(password, 4)],
    ['bcrypt as PHP writes it', (password: string) => hashSync(password, 4).replace('2b', '2y')],
  ])('%s is replaced by argon2id at the first login that succeeds', async (kind, makeHash) => {
    const address = `${kind.replaceAll(' ', '-')}@example.test`
    await addUser(database.db, address)
    const stored = makeHash(PASSWORD)
    await update(address, { password_hash: stored })
    const before = await find(address)

    const cost = argon2Counts().verified
    expect(await byPassword(address, WRONG)).toEqual(BAD_CREDENTIALS)
    expect(argon2Counts().verified).toBe(cost + 1)
    expect(await find(address)).toEqual(before)

    const verdict = await byPassword(address, PASSWORD)
    const after = await find(address)
    expect(after.passwordHash).toMatch(/^\$argon2id\$/)
    expect(after.fingerprint).not.toBe(before.fingerprint)
    expect(verdict).toEqual(accepted(after))

    expect(await byPassword(address, PASSWORD)).toEqual(accepted(after))
    expect(await byPassword(address, WRONG)).toEqual(BAD_CREDENTIALS)
    expect(await find(address)).toEqual(after)
  })

  it('argon2id with other parameters is replaced too', async () => {
    const address = 'foreign@example.test'
    await addUser(database.db, address)
    await update(address, { password_hash: FOREIGN_ARGON2 })
    const cost = argon2Counts().verified
    expect(await byPassword(address, WRONG)).toEqual(BAD_CREDENTIALS)
    expect(argon2Counts().verified).toBe(cost + 2)
    const verdict = await byPassword(address, 'secret')
    const after = await find(address)
    expect(after.passwordHash).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/)
    expect(verdict).toEqual(accepted(after))
  })

  it('is replaced once when several log in at the same time, and all come in', async () => {
    const address = 'busy@example.test'
    await addUser(database.db, address)
    await update(address, { password_hash: hashSync(PASSWORD, 4) })
    const logins = Array.from({ length: 5 }, () => byPassword(address, PASSWORD))
    const verdicts = await Promise.all(logins)
    const account = await find(address)
    expect(verdicts).toEqual(Array(5).fill(accepted(account)))
  })

  it('stays where bcrypt has not seen the whole password', async () => {
    const address = 'long@example.test'
    await addUser(database.db, address)
    const stored = hashSync('x'.repeat(72), 4)
    await update(address, { password_hash: stored })
    expect((await byPassword(address, 'x'.repeat(80))).kind).toBe('accepted')
    expect((await find(address)).passwordHash).toBe(stored)
    expect((await byPassword(address, 'x'.repeat(72))).kind).toBe('accepted')
    expect((await find(address)).passwordHash).toMatch(/^\$argon2id\$/)
  })

  it.each([
    `$argon2id$v=19$m=4194304,t=1,p=1$${'a'.repeat(22)}$${'b'.repeat(43)}`,
    '$argon2id$v=19$',
    `$2b$31$${'a'.repeat(53)}`,
  ])('%s is never computed: a wrong password, and a warning', async (stored) => {
    const address = `${randomBytes(4).toString('hex')}@example.test`
    await addUser(database.db, address)
    await update(address, { password_hash: stored })
    const cost = argon2Counts().verified
    expect(await byPassword(address, PASSWORD)).toEqual(BAD_CREDENTIALS)
    expect(argon2Counts().verified).toBe(cost + 1)
    expect(await loggedReason()).toBe('unusable password hash')
    expect(JSON.parse(lines[0] ?? '').level).toBe('warn')
    expect(lines.join('')).not.toContain(stored)
  })
})

describe('APOP', () => {
  it('lets the user in by the right digest', async () => {
    const verdict = await byApop('alice@example.test', APOP_SECRET)
    expect(verdict).toEqual(accepted(await find('alice@example.test')))
    expect(await loggedReason()).toBe('verified')
    expect(JSON.parse(lines[0] ?? '').mechanism).toBe('apop')
  })

  it.each([
    ['alice@example.test', 'wrong APOP digest'],
    ['nobody@example.test', 'no APOP secret'],
    ['mallory@example.test', 'unknown user'],
    ['alice@elsewhere.test', 'unknown domain'],
    ['idle@example.test', 'wrong APOP digest'],
    ['', 'implausible name'],
  ])('refuses %j alike; the log knows: %s', async (name, reason) => {
    const before = argon2Counts()
    expect(await byApop(name, WRONG)).toEqual(BAD_CREDENTIALS)
    expect(argon2Counts()).toEqual(before)
    expect(await loggedReason()).toBe(reason)
  })

  it('does not take the password for the secret, nor the other way round', async () => {
    expect(await byApop('alice@example.test', PASSWORD)).toEqual(BAD_CREDENTIALS)
    expect(await byPassword('alice@example.test', APOP_SECRET)).toEqual(BAD_CREDENTIALS)
  })

  it('takes no digest of another length or case', async () => {
    const digest = apopDigest(TIMESTAMP, new Secret(APOP_SECRET))
    for (const given of ['', digest.slice(1), `${digest}0`, digest.toUpperCase()]) {
      const name = 'alice@example.test'
      const attempt = { mechanism: 'apop', name, timestamp: TIMESTAMP, digest: given } as const
      expect(await makeAuthenticator().verify(attempt, PEER)).toEqual(BAD_CREDENTIALS)
    }
  })

  it('tells of suspension only by the right digest', async () => {
    const verdict = await byApop('idle@example.test', APOP_SECRET)
    expect(verdict).toEqual({ kind: 'refused', reason: 'suspended' })
    expect(await byApop('idle@example.test', WRONG)).toEqual(BAD_CREDENTIALS)
  })

  it('is for nobody without the key, and says so in the log', async () => {
    const verdict = await byApop('alice@example.test', APOP_SECRET, { keyring: undefined })
    expect(verdict).toEqual(BAD_CREDENTIALS)
    expect(await loggedReason()).toBe('no secret key')
  })

  it('tells the operator of another key and of damage', async () => {
    const keyring = new Keyring([new Secret(randomBytes(32))])
    expect(await byApop('alice@example.test', APOP_SECRET, { keyring })).toEqual(BAD_CREDENTIALS)
    expect(await loggedReason()).toBe('APOP secret of another key')

    lines = []
    const { domainId, userId } = await find('alice@example.test')
    await addUser(database.db, 'thief@example.test')
    const stolen = TEST_KEYRING.seal(apopUse(domainId, userId), new Secret(APOP_SECRET))
    await update('thief@example.test', { apop_secret: stolen })
    expect(await byApop('thief@example.test', APOP_SECRET)).toEqual(BAD_CREDENTIALS)
    expect(await loggedReason()).toBe('damaged APOP secret')
  })
})
