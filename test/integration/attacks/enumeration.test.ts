/**
 * Who is there? A refusal must not tell: for every mechanism the words, the statements that are
 * waited for and the password hashing are the same, whoever was named.
 */
import { sql } from 'kysely'
import { pino } from 'pino'
import { afterAll, beforeAll, beforeEach, expect, test, vi } from 'vitest'
import { Secret } from '../../../src/base/secret.ts'
import { argon2Counts } from '../../../src/mail/auth/argon2.ts'
import { BearerCheck } from '../../../src/mail/auth/bearer/bearer-check.ts'
import { deriveSealedKeys } from '../../../src/mail/auth/proofs/scram.ts'
import { Throttle } from '../../../src/mail/auth/throttle.ts'
import type { Database, Statement } from '../../../src/storage/postgres/database.ts'
import { TestAuthority } from '../../support/certificates.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import {
  addUser,
  openTestConnection,
  openTestDatabase,
  TEST_KEYRING,
  type TestDatabase,
} from '../../support/postgres.ts'
import { greet, type Login, MECHANISMS } from './logins.ts'

const PASSWORD = 'Right-Horse-77'
const WRONG = 'Wrong-Horse-78'
const OLD_HASH = `{SSHA}${Buffer.alloc(24, 7).toString('base64')}`
/** What the users of NAMES are; there are no others. */
const MAKE_USERS = [
  `update users set password_hash = '${OLD_HASH}', scram_keys = null where local_part = 'old'`,
  `update users set main_password_allowed = false where local_part = 'phone'`,
  `select add_app_password('phone@example.test', 'phone')`,
  `update users set suspended = true where local_part = 'idle'`,
  `update domains set suspended = true where name = 'closed.test'`,
]
const NAMES = [
  'alice@example.test', // with every credential there is
  'nothing@example.test', // with none
  'old@example.test', // with a hash that a migration brought
  'phone@example.test', // with app passwords only
  'idle@example.test', // suspended
  'alice@closed.test', // of a suspended domain
  'nobody@example.test',
  'alice@nowhere.test',
]

let database: TestDatabase
/** What the node's throttle and token check ask through. */
let side: Database
let node: TestNode
let statements: string[] = []

beforeAll(async () => {
  database = await openTestDatabase()
  side = openTestConnection(database.url)
  await addUser(database.db, 'nothing@example.test')
  for (const name of ['alice', 'old', 'phone', 'idle']) await addOwner(name, 'example.test')
  await addOwner('alice', 'closed.test')
  for (const text of MAKE_USERS) await sql.raw(text).execute(database.db.kysely)
  const basis = { db: side, log: pino({ level: 'silent' }), keyring: TEST_KEYRING }
  node = await startTestNode({
    url: database.url,
    tls: await (await TestAuthority.create()).issue(['pop.example.test']),
    isScramOffered: true,
    isApopOffered: true,
    hasBearerProvider: true,
    authenticator: { bearer: new BearerCheck(basis), throttle: new Throttle(basis) },
  })
  // The real ones run: they are only listened to.
  for (const db of [node.db, side])
    for (const door of ['hot', 'bulk'] as const) {
      const run = db[door].bind(db)
      vi.spyOn(db, door).mockImplementation(
        (statement: Statement, values: readonly unknown[], ...more: unknown[]) => {
          statements.push(statement.name)
          return run(statement, values, ...(more as []))
        },
      )
    }
})
afterAll(async () => {
  await node?.stop()
  await side?.close()
  await database?.close()
})
beforeEach(forgetFailures)

async function forgetFailures(): Promise<void> {
  await sql`delete from throttles`.execute(database.db.kysely)
}

/** With a password, SCRAM keys of it, and an APOP secret. */
async function addOwner(localPart: string, domainName: string): Promise<void> {
  const secrets = { password: PASSWORD, apopSecret: PASSWORD }
  const ids = await addUser(database.db, `${localPart}@${domainName}`, secrets)
  const rows = database.db.kysely.selectFrom('users').select('password_hash')
  const { password_hash: hash } = await rows
    .where('domain_id', '=', ids.domainId)
    .where('user_id', '=', ids.userId)
    .executeTakeFirstOrThrow()
  const owner = { ...ids, localPart, domainName, passwordHash: hash ?? '' }
  await database.db.kysely
    .updateTable('users')
    .set({
      scram_keys: await deriveSealedKeys(database.db, TEST_KEYRING, owner, new Secret(PASSWORD)),
    })
    .where('domain_id', '=', ids.domainId)
    .where('user_id', '=', ids.userId)
    .execute()
}

/** What a refusal was, and what it took. */
interface Refusal {
  reply: string
  argon2: { hashed: number; verified: number }
  statements: string[]
}

async function refusalOf(login: Login, name: string): Promise<Refusal> {
  const client = await greet(await Pop3Client.connectTls(node.tlsAddress))
  statements = []
  const before = argon2Counts()
  const reply = await login(client, name, WRONG)
  const after = argon2Counts()
  const seen = statements
  client.socket.destroy()
  await forgetFailures()
  const argon2 = {
    hashed: after.hashed - before.hashed,
    verified: after.verified - before.verified,
  }
  return { reply, argon2, statements: seen }
}

const IS_PASSWORD = /PASS|PLAIN|LOGIN/
/** EXTERNAL names nobody that a certificate does not: integration/auth/credentials. */
const OF_NAMES = MECHANISMS.filter(([mechanism]) => mechanism !== 'EXTERNAL')

test.each(OF_NAMES)(
  '%s refuses everybody in the same words, at the same cost',
  async (mechanism, login) => {
    // Whether a domain has a provider for tokens is remembered: once for each domain.
    for (const name of NAMES) await refusalOf(login, name)
    const first = await refusalOf(login, NAMES[0] ?? '')
    expect(first.reply).toMatch(/^-ERR \[AUTH\] /)
    expect(first.argon2).toEqual({ hashed: 0, verified: IS_PASSWORD.test(mechanism) ? 1 : 0 })
    expect(first.statements).toEqual(expect.arrayContaining(['login-account', 'throttles-count']))
    for (const name of NAMES) expect(await refusalOf(login, name), name).toEqual(first)
  },
)

test('SCRAM shows everybody a salt of the same kind, and the same one each time', async () => {
  const salts = async (name: string): Promise<string> => {
    const client = await greet(await Pop3Client.connectTls(node.tlsAddress))
    const said = Buffer.from(`n,,n=${name},r=client-nonce-of-a-test`).toString('base64')
    const reply = await client.ask(`AUTH SCRAM-SHA-256 ${said}`)
    client.socket.destroy()
    const first = Buffer.from(reply.slice(2), 'base64').toString()
    return /s=.*/.exec(first)?.[0] ?? reply
  }
  for (const name of NAMES) {
    const salt = await salts(name)
    expect(salt).toMatch(/^s=[A-Za-z0-9+/]{22}==,i=\d+$/)
    expect(await salts(name.toUpperCase())).toBe(salt)
    expect(salt.split(',')[1]).toBe((await salts(NAMES[0] ?? '')).split(',')[1])
  }
})

test('what cannot be an address is refused like a name that nobody has', async () => {
  const names = ['alice', 'alice@', '@example.test', 'a..b@example.test', 'a@b@c', '%u', "o'r@x"]
  for (const [mechanism, login] of OF_NAMES) {
    const { reply, argon2 } = await refusalOf(login, 'nobody@example.test')
    for (const name of names)
      expect(await refusalOf(login, name), mechanism).toMatchObject({ reply, argon2 })
  }
})
