/** To whom SCRAM is offered, what of it is shown, and of which passwords its keys are derived. */
import { randomBytes } from 'node:crypto'
import { hashSync } from 'bcryptjs'
import { pino } from 'pino'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { Keyring } from '../../../src/base/keyring.ts'
import { Secret } from '../../../src/base/secret.ts'
import { Offer } from '../../../src/cluster/offer.ts'
import { Authenticator } from '../../../src/mail/auth/authenticator.ts'
import { selectLoginAccount, selectScramUse } from '../../../src/storage/accounts.ts'
import {
  addUser,
  openTestDatabase,
  TEST_KEYRING,
  type TestDatabase,
} from '../../support/postgres.ts'
import { LOCAL_PEER } from '../admin/rows.ts'

let database: TestDatabase

beforeEach(async () => {
  database = await openTestDatabase()
})

afterEach(() => database.close())

async function giveKeys(domainId: number, userId: number): Promise<void> {
  await database.db.kysely
    .updateTable('users')
    .set({ scram_keys: Buffer.from('sealed') })
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .execute()
}

test('to all only if every password that may be used has keys, and there are no app passwords', async () => {
  const { db } = database
  const use = () => selectScramUse(db)
  expect(await use()).toBe('none')
  const alice = await addUser(db, 'alice@example.test', { password: 'secret' })
  await addUser(db, 'nobody@example.test')
  expect(await use()).toBe('none')
  await giveKeys(alice.domainId, alice.userId)
  expect(await use()).toBe('all')
  const bob = await addUser(db, 'bob@other.test', { password: 'secret' })
  expect(await use()).toBe('some')
  await db.kysely
    .updateTable('users')
    .set({ main_password_allowed: false })
    .where('domain_id', '=', bob.domainId)
    .where('user_id', '=', bob.userId)
    .execute()
  expect(await use()).toBe('all')
  await db.kysely
    .insertInto('credentials')
    .values({
      domain_id: bob.domainId,
      user_id: bob.userId,
      kind: 'app-password',
      name: 'phone',
      digest: Buffer.alloc(32),
    })
    .execute()
  expect(await use()).toBe('some')
})

test('a node offers it to all, or to some where the operator has named it; never without a key', async () => {
  const { db } = database
  const alice = await addUser(db, 'alice@example.test', { password: 'secret' })
  await giveKeys(alice.domainId, alice.userId)
  await addUser(db, 'bob@other.test', { password: 'secret' })
  const isOffered = async (keyring: typeof TEST_KEYRING | undefined, isScramWanted: boolean) => {
    const offer = new Offer(db, keyring, isScramWanted)
    await offer.refresh()
    return offer.isScramOffered()
  }
  expect(await isOffered(TEST_KEYRING, false)).toBe(false)
  expect(await isOffered(TEST_KEYRING, true)).toBe(true)
  expect(await isOffered(undefined, true)).toBe(false)
})

const openAuthenticator = (keyring = TEST_KEYRING): Authenticator =>
  new Authenticator({
    db: database.db,
    log: pino({ level: 'silent' }),
    defaultDomain: '',
    keyring,
    failureDelayMs: 0,
  })

test('a change of the secret key changes no salt: it would tell who exists', async () => {
  await addUser(database.db, 'alice@example.test', { password: 'secret' })
  const key = new Secret(randomBytes(32))
  const rings = [TEST_KEYRING, new Keyring([key, ...TEST_KEYRING.keys]), new Keyring([key])]
  for (const name of ['alice@example.test', 'nobody@example.test', 'nobody@elsewhere.test']) {
    const salts = rings.map((ring) => openAuthenticator(ring).scramSalt(name, LOCAL_PEER))
    const shown = (await Promise.all(salts)).map(({ salt }) => salt.toString('hex'))
    expect(new Set(shown).size, name).toBe(1)
  }
})

test('keys are not derived of a password that bcrypt proves in part only', async () => {
  const { db } = database
  const password = `${'7'.repeat(79)}y`
  await addUser(db, 'long@example.test')
  await addUser(db, 'after@example.test', { password })
  await db.kysely
    .updateTable('users')
    .set({ password_hash: hashSync(password, 4) })
    .where('local_part', '=', 'long')
    .execute()
  const door = openAuthenticator()
  const logIn = (name: string, typed: string) =>
    door.verify({ mechanism: 'password', name, password: new Secret(typed) }, LOCAL_PEER)
  const hasKeys = async (localPart: string) =>
    (await selectLoginAccount(db, 'example.test', localPart))?.scramKeys !== undefined
  expect((await logIn('long@example.test', `${'7'.repeat(79)}z`)).kind).toBe('accepted')
  // Another login's keys come after those would have come.
  expect((await logIn('after@example.test', password)).kind).toBe('accepted')
  await expect.poll(() => hasKeys('after')).toBe(true)
  expect(await hasKeys('long')).toBe(false)
})
