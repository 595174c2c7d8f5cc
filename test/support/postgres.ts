/**
 * A database for a test (file): a clone of the migrated template, gone when it is closed. See
 * postgres-setup.ts for the server.
 */
import { randomBytes } from 'node:crypto'
import { inject } from 'vitest'
import { Keyring } from '../../src/base/keyring.ts'
import { Secret } from '../../src/base/secret.ts'
import { apopUse } from '../../src/mail/auth/apop-secret.ts'
import { hashPassword } from '../../src/mail/auth/argon2.ts'
import { type Database, openDatabase } from '../../src/storage/postgres/database.ts'
import { databaseUrl, onServer, reachedUrl } from './postgres-setup.ts'

export interface TestDatabase {
  url: string
  db: Database
  close(): Promise<void>
}

/** POPGRES_SECRET_KEY in tests: APOP secrets of `addUser` are encrypted under it. */
export const TEST_SECRET_KEY_HEX = '7b'.repeat(32)
export const TEST_KEYRING = new Keyring([new Secret(Buffer.from(TEST_SECRET_KEY_HEX, 'hex'))])

/** @param isEmpty without the schema: what `popgres migrate` meets first */
export async function openTestDatabase(isEmpty = false): Promise<TestDatabase> {
  const serverUrl = inject('serverUrl')
  const name = `popgres_test_${randomBytes(8).toString('hex')}`
  const template = isEmpty ? 'template0' : inject('templateName')
  await onServer(serverUrl, `create database ${name} template ${template}`)
  // Migrations go to the server itself: the lock that they take is a session's.
  const poolerPort = isEmpty ? undefined : inject('poolerPort')
  const url = reachedUrl(databaseUrl(serverUrl, name), poolerPort)
  const db = openTestConnection(url)
  return {
    url,
    db,
    close: async () => {
      await db.close()
      await onServer(serverUrl, `drop database if exists ${name} with (force)`)
    },
  }
}

/** The same database at the server itself, whatever stands before it. */
export function directUrl(url: string): string {
  return databaseUrl(inject('serverUrl'), new URL(url).pathname.slice(1))
}

/** A second client of the same database: another node, or the other side of a race. */
export function openTestConnection(url: string): Database {
  return openDatabase({
    url: new Secret(url),
    applicationName: 'popgres test',
    connectionsMax: 6,
  })
}

export async function addDomain(db: Database, name: string): Promise<number> {
  const row = await db.kysely
    .insertInto('domains')
    .values({ name })
    .onConflict((conflict) => conflict.column('name').doUpdateSet({ name }))
    .returning('domain_id')
    .executeTakeFirstOrThrow()
  return row.domain_id
}

/** Adds the user, and the domain if it is missing. Without a password there is no password login. */
export async function addUser(
  db: Database,
  address: string,
  options: { password?: string; apopSecret?: string; quotaOctets?: number } = {},
): Promise<{ domainId: number; userId: number }> {
  const at = address.lastIndexOf('@')
  const domainId = await addDomain(db, address.slice(at + 1))
  const { password, apopSecret, quotaOctets } = options
  const { user_id: userId } = await db.kysely
    .insertInto('users')
    .values({
      domain_id: domainId,
      local_part: address.slice(0, at),
      password_hash: password === undefined ? null : await hashPassword(new Secret(password)),
      apop_secret: null,
      quota_octets: quotaOctets ?? null,
    })
    .returning('user_id')
    .executeTakeFirstOrThrow()
  if (apopSecret !== undefined) {
    const secret = TEST_KEYRING.seal(apopUse(domainId, userId), new Secret(apopSecret))
    await db.kysely
      .updateTable('users')
      .set({ apop_secret: secret })
      .where('domain_id', '=', domainId)
      .where('user_id', '=', userId)
      .execute()
  }
  return { domainId, userId }
}
