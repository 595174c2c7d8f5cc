/** Whether SCRAM is offered to everybody: clients that see it often try nothing else. */
import { afterEach, beforeEach, expect, test } from 'vitest'
import { Offer } from '../../../src/cluster/offer.ts'
import { selectScramUse } from '../../../src/storage/accounts.ts'
import {
  addUser,
  openTestDatabase,
  TEST_KEYRING,
  type TestDatabase,
} from '../../support/postgres.ts'

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
