/** A living database, and beside it a copy of how it was: what `popgres restore` is about. */
import { randomBytes } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, inject } from 'vitest'
import type { MessageSummary } from '../../../src/admin/operations/messages.ts'
import type { RestoreReport } from '../../../src/admin/transfer/restore.ts'
import type { Database } from '../../../src/storage/postgres/database.ts'
import { readStored } from '../../support/lmtp.ts'
import { longMessage, putMessage } from '../../support/mail.ts'
import { addUser, openTestConnection, openTestDatabase } from '../../support/postgres.ts'
import { databaseUrl, onServer } from '../../support/postgres-setup.ts'
import { openProgram, type Program } from './program.ts'
import type { Ids } from './rows.ts'

export const ALICE = 'alice@example.test'
export const BOB = 'bob@example.test'
export const LONG = longMessage(600_000)

export interface BackupPair {
  living: { url: string; db: Database }
  backup: { url: string; db: Database }
  /** Its database is the living one; the file `backup-url` names the other. */
  program: Program
  alice: Ids
  bob: Ids
  restore(whose: string, ...args: string[]): Promise<RestoreReport>
  list(address: string): Promise<MessageSummary[]>
  /** Bodies of the living database. */
  stored(ids: Ids): Promise<string[]>
  expectSound(): Promise<void>
  close(): Promise<void>
}

const nameOf = (url: string): string => new URL(url).pathname.slice(1)

/** Two users with mail, one message of both; then a copy of it all. */
export async function openBackupPair(): Promise<BackupPair> {
  const first = await openTestDatabase()
  const alice = await addUser(first.db, ALICE, { password: 'one long password' })
  const bob = await addUser(first.db, BOB)
  const { domainId } = alice
  await putMessage(first.db, domainId, [alice.userId], 'A: 1\r\n\r\none\r\n')
  await putMessage(first.db, domainId, [alice.userId, bob.userId], LONG)
  await putMessage(first.db, domainId, [alice.userId], 'A: 3\r\n\r\nthree\r\n')
  await first.db.close()
  const serverUrl = inject('serverUrl')
  const livingName = `popgres_test_${randomBytes(8).toString('hex')}`
  // PgBouncer, where it is between, keeps its connections, and a template must have none.
  await onServer(
    serverUrl,
    `select pg_terminate_backend(pid, 10_000) from pg_stat_activity
    where datname = '${nameOf(first.url)}'`,
  )
  await onServer(serverUrl, `create database ${livingName} template ${nameOf(first.url)}`)
  const url = databaseUrl(serverUrl, livingName)
  const living = { url, db: openTestConnection(url) }
  const backup = { url: first.url, db: openTestConnection(first.url) }
  const program = openProgram({ DATABASE_URL: url })
  writeFileSync(join(program.directory, 'backup-url'), `${first.url}\n`)
  return {
    living,
    backup,
    program,
    alice,
    bob,
    restore: (whose, ...args) =>
      program.json(['restore', whose, '--from-file', 'backup-url', ...args]),
    list: (address) => program.json(['message', 'list', address]),
    stored: async (ids) =>
      (await readStored(living.db, ids)).map(({ body }) => body.toString('latin1')),
    expectSound: async () => {
      const { status, stdout } = await program.run(['check'])
      expect(`${status} ${stdout}`).toMatch(/^0 /)
    },
    close: async () => {
      program.close()
      await backup.db.close()
      await living.db.close()
      await onServer(serverUrl, `drop database if exists ${livingName} with (force)`)
      await first.close()
    },
  }
}

/** As a QUIT of that session would. */
export async function moveToTrash(
  db: Database,
  { domainId, userId }: Ids,
  uids: number[],
  sessionId: string,
): Promise<void> {
  const rows = await db.kysely
    .deleteFrom('messages')
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .where('uid', 'in', uids)
    .returningAll()
    .execute()
  await db.kysely
    .insertInto('trash')
    .values(rows.map((row) => ({ ...row, session_id: sessionId, deleted_at: new Date() })))
    .execute()
  const octets = rows.reduce((sum, row) => sum + row.octets, 0)
  await db.kysely
    .updateTable('maildrops')
    .set((eb) => ({
      message_count: eb('message_count', '-', rows.length),
      octets: eb('octets', '-', octets),
    }))
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .execute()
}
