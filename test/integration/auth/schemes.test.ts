/**
 * A user whom a migration brought, on real PostgreSQL: whatever hash is stored, a wrong password
 * costs one argon2 verification of today's parameters (of another argon2 hash its own besides) and
 * changes nothing, the right one leaves argon2id. Who has not come
 * yet is in the report.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { listOldHashes } from '../../../src/admin/operations/old-hashes.ts'
import { openLog } from '../../../src/base/log.ts'
import { Secret } from '../../../src/base/secret.ts'
import { argon2Counts } from '../../../src/mail/auth/argon2.ts'
import { Authenticator, type LoginVerdict } from '../../../src/mail/auth/authenticator.ts'
import { schemeOf } from '../../../src/mail/auth/schemes/scheme.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { STORED_HASHES } from '../../support/stored-hashes.ts'

const PASSWORD = 'secret'
const CURRENT = /^\$argon2id\$v=19\$m=19456,t=2,p=1\$/
const PEER = {
  client: '192.0.2.7',
  isEncrypted: true,
  hostDomain: undefined,
  certificateDigest: undefined,
}

let database: TestDatabase
let door: Authenticator

beforeAll(async () => {
  database = await openTestDatabase()
  door = new Authenticator({
    db: database.db,
    log: openLog('silent'),
    defaultDomain: '',
    keyring: undefined,
    failureDelayMs: 0,
  })
})

afterAll(async () => {
  await database?.close()
})

async function bring(address: string, stored: string): Promise<void> {
  const { domainId, userId } = await addUser(database.db, address)
  await database.db.kysely
    .updateTable('users')
    .set({ password_hash: stored })
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .execute()
}

function logIn(name: string, password: string): Promise<LoginVerdict> {
  return door.verify({ mechanism: 'password', name, password: new Secret(password) }, PEER)
}

async function storedOf(localPart: string): Promise<string | null> {
  const query = database.db.kysely.selectFrom('users').select('password_hash')
  return (await query.where('local_part', '=', localPart).executeTakeFirstOrThrow()).password_hash
}

const ofSecret = STORED_HASHES.filter(({ password }) => password.toString() === PASSWORD)

describe.each(ofSecret.map(({ stored }, index) => ({ stored, user: `user${index}` })))(
  '$stored',
  ({ stored, user }) => {
    const cost = schemeOf(stored).startsWith('argon2') ? 2 : 1
    const address = `${user}@moved.test`

    it('is kept through a wrong password, which costs one argon2 more than the hash', async () => {
      await bring(address, stored)
      const before = argon2Counts()
      expect((await logIn(address, 'Secret')).kind).toBe('refused')
      expect(argon2Counts()).toEqual({ ...before, verified: before.verified + cost })
      expect((await logIn(address, '')).kind).toBe('refused')
      expect(await storedOf(user)).toBe(stored)
    })

    it('is argon2id after the first login, once', async () => {
      const before = argon2Counts()
      expect((await logIn(address, PASSWORD)).kind).toBe('accepted')
      expect(argon2Counts()).toEqual({
        hashed: before.hashed + 1,
        verified: before.verified + cost,
      })
      const rehashed = await storedOf(user)
      expect(rehashed).toMatch(CURRENT)
      expect((await logIn(address, 'Secret')).kind).toBe('refused')
      expect((await logIn(address, PASSWORD)).kind).toBe('accepted')
      expect(await storedOf(user)).toBe(rehashed)
    })
  },
)

describe('the report of old hashes', () => {
  it('has who did not log in since, of one domain or of all', async () => {
    const of = (scheme: string): string =>
      ofSecret.find(({ stored }) => schemeOf(stored) === scheme)?.stored ?? ''
    await bring('Zoe@report.test', of('ssha512'))
    await bring('adam@report.test', of('sha512-crypt'))
    await bring('old@other.test', of('argon2id'))
    await addUser(database.db, 'none@report.test')
    await addUser(database.db, 'new@report.test', { password: PASSWORD })
    const [adam, zoe, old] = [
      { address: 'adam@report.test', scheme: 'sha512-crypt' },
      { address: 'Zoe@report.test', scheme: 'ssha512' },
      { address: 'old@other.test', scheme: 'argon2id' },
    ]
    expect(await listOldHashes(database.db, 'report.test')).toEqual([adam, zoe])
    expect(await listOldHashes(database.db, undefined)).toEqual([old, adam, zoe])
    expect((await logIn('adam@report.test', PASSWORD)).kind).toBe('accepted')
    expect(await listOldHashes(database.db, 'report.test')).toEqual([zoe])
    await expect(listOldHashes(database.db, 'absent.test')).rejects.toThrow(/absent\.test/)
  })
})
