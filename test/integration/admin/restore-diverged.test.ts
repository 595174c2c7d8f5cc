/**
 * `popgres restore` where backup and living database have gone different ways: a failover that lost
 * the last moments, or a restore of an older backup, gave uids a second time. And two at once.
 */
import { randomUUID } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { sql } from 'kysely'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { restore as restoreFrom } from '../../../src/admin/transfer/restore.ts'
import { longMessage, putMessage } from '../../support/mail.ts'
import { openTestConnection } from '../../support/postgres.ts'
import { ALICE, type BackupPair, BOB, LONG, moveToTrash, openBackupPair } from './backup-pair.ts'

const RETURNED = 'A: b\r\n\r\nof the backup alone\r\n'
const LATER = 'A: b\r\n\r\nof the living alone\r\n'

let pair: BackupPair

beforeEach(async () => {
  pair = await openBackupPair()
})

afterEach(() => pair.close())

/** Both give alice's uid 4, to another message each. */
async function diverge(ours = LATER, theirs = RETURNED): Promise<void> {
  const { alice, living, backup } = pair
  await putMessage(living.db, alice.domainId, [alice.userId], ours)
  await putMessage(backup.db, alice.domainId, [alice.userId], theirs)
}

/** alice's line of the report. */
async function restoreAlice(...args: string[]) {
  const [user] = (await pair.restore(ALICE, ...args)).users
  return user
}

test('another message under the same uid: the backup’s comes under a new one, once, and is told', async () => {
  await diverge()
  expect(await restoreAlice('--dry-run')).toMatchObject({ restored: 1, renumbered: 1 })
  const before = await pair.list(ALICE)
  const args = ['restore', ALICE, '--from-file', 'backup-url']
  const { stdout } = await pair.program.run(args)
  expect(stdout).toMatch(/^alice@example\.test +1 +3 +1 under new unique-ids/m)
  const after = await pair.list(ALICE)
  expect(after.slice(0, 4)).toEqual(before)
  expect(after.map(({ uid }) => uid)).toEqual([1, 2, 3, 4, 5])
  expect(new Set(after.map(({ uniqueId }) => uniqueId)).size).toBe(5)
  expect((await pair.stored(pair.alice)).slice(3)).toEqual([LATER, RETURNED])
  expect(await restoreAlice()).toMatchObject({ restored: 0, renumbered: 0, alreadyThere: 4 })
  await pair.expectSound()
})

test('messages of one length are told apart; the same octets that came in twice are one', async () => {
  await diverge('A: b\r\n\r\nsame\r\n', 'A: b\r\n\r\nSAME\r\n')
  await diverge('A: b\r\n\r\ntwice\r\n', 'A: b\r\n\r\ntwice\r\n')
  const long = longMessage(300_000)
  await diverge(long.toString('latin1'), long.toString('latin1'))
  expect(await restoreAlice()).toMatchObject({ restored: 1, renumbered: 1, alreadyThere: 5 })
  expect((await pair.stored(pair.alice)).at(-1)).toBe('A: b\r\n\r\nSAME\r\n')
})

test('one that lies in the trash under the same uid stays there', async () => {
  await diverge()
  await moveToTrash(pair.living.db, pair.alice, [4], randomUUID())
  expect(await restoreAlice()).toMatchObject({ restored: 1, renumbered: 1, alreadyThere: 3 })
  expect((await pair.stored(pair.alice)).at(-1)).toBe(RETURNED)
  const trash = await pair.living.db.kysely.selectFrom('trash').select('uid').execute()
  expect(trash).toEqual([{ uid: 4 }])
  await pair.expectSound()
})

test('another message under the same imported unique-id: a unique-id never means two', async () => {
  await diverge()
  for (const { db } of [pair.living, pair.backup])
    await sql`with m as (update messages set unique_id = 'imported-4' where uid = 4)
      update maildrops set has_unique_ids = true`.execute(db.kysely)
  // Made anew, so that unique-ids and not uids are compared.
  await sql`update maildrops set uid_validity = uid_validity + 1`.execute(pair.living.db.kysely)
  const ours = await sql<{ n: number }>`delete from messages where uid < 4`.execute(
    pair.living.db.kysely,
  )
  expect(Number(ours.numAffectedRows)).toBe(4)
  await sql`update maildrops d set (message_count, octets) = (
      select count(*), coalesce(sum(m.octets), 0) from messages m where m.user_id = d.user_id)`.execute(
    pair.living.db.kysely,
  )
  expect(await restoreAlice()).toMatchObject({ restored: 4, renumbered: 1, alreadyThere: 0 })
  expect(await restoreAlice()).toMatchObject({ restored: 0, alreadyThere: 4 })
  expect((await pair.stored(pair.alice)).toSorted()).toContain(RETURNED)
  await pair.expectSound()
})

test('two at once, of a domain that was removed: all is there once, and both say what they did', async () => {
  const { living, backup, program, alice, bob } = pair
  await putMessage(backup.db, alice.domainId, [alice.userId, bob.userId], longMessage(8_000_000))
  const before = [await pair.list(ALICE), await pair.list(BOB)].map((one) => one.length)
  expect(before).toEqual([3, 1])
  await program.run(['domain', 'remove', 'example.test', '--yes'])
  const others = [living, backup].map(({ url }) => openTestConnection(url))
  const [db, copy] = others as [(typeof others)[0], (typeof others)[0]]
  try {
    const request = { whose: 'example.test', sessionId: undefined, isDryRun: false }
    const reports = await Promise.all([
      restoreFrom(living.db, backup.db, request),
      restoreFrom(db, copy, request),
    ])
    const sum = (of: 'restored' | 'alreadyThere') =>
      reports.flatMap(({ users }) => users).reduce((total, user) => total + user[of], 0)
    expect([sum('restored'), sum('alreadyThere')]).toEqual([6, 6])
    expect(reports.filter(({ isDomainRestored }) => isDomainRestored)).toHaveLength(1)
    const made = reports.flatMap(({ users }) => users.filter((user) => user.isUserRestored))
    expect(made.map(({ address }) => address).toSorted()).toEqual([ALICE, BOB])
  } finally {
    for (const other of others) await other.close()
  }
  const bodies = await sql<{ bare: number; all: number }>`
    select count(*) as all, count(*) filter (where octets is null or not exists (
      select from messages m where m.domain_id = b.domain_id and m.body_id = b.body_id)) as bare
    from bodies b`.execute(living.db.kysely)
  expect(bodies.rows).toEqual([{ all: 4, bare: 0 }])
  expect((await pair.list(ALICE)).map(({ uid }) => uid)).toEqual([1, 2, 3, 4])
  await pair.expectSound()
})

test('two at once that have to renumber: the message is there once', async () => {
  await diverge()
  const { living, backup } = pair
  const db = openTestConnection(living.url)
  try {
    const request = { whose: ALICE, sessionId: undefined, isDryRun: false }
    const reports = await Promise.all(
      [living.db, db].map((one) => restoreFrom(one, backup.db, request)),
    )
    const counts = reports.map(({ users: [user] }) => [user?.restored, user?.renumbered])
    expect(counts.toSorted()).toEqual([
      [0, 0],
      [1, 1],
    ])
  } finally {
    await db.close()
  }
  expect(await pair.stored(pair.alice)).toHaveLength(5)
  await pair.expectSound()
})

test('two users at once who share a large body: both read it whole', async () => {
  const { living, backup, alice, bob } = pair
  const large = longMessage(8_000_000)
  await putMessage(backup.db, alice.domainId, [alice.userId, bob.userId], large)
  const others = [living, backup].map(({ url }) => openTestConnection(url))
  const [db, copy] = others as [(typeof others)[0], (typeof others)[0]]
  try {
    const request = { sessionId: undefined, isDryRun: false }
    const reports = await Promise.all([
      restoreFrom(living.db, backup.db, { ...request, whose: ALICE }),
      restoreFrom(db, copy, { ...request, whose: BOB }),
    ])
    expect(reports.map(({ users: [user] }) => user?.restored)).toEqual([1, 1])
  } finally {
    for (const other of others) await other.close()
  }
  for (const ids of [alice, bob])
    expect((await pair.stored(ids)).at(-1) === large.toString('latin1')).toBe(true)
  await pair.expectSound()
})

test('a body that the backup has not all of leaves nothing here', async () => {
  const { living, backup, alice } = pair
  const { bodyId } = await putMessage(backup.db, alice.domainId, [alice.userId], LONG)
  await sql`delete from body_chunks where body_id = ${bodyId} and seq = 70`.execute(
    backup.db.kysely,
  )
  const request = { whose: ALICE, sessionId: undefined, isDryRun: false }
  await expect(restoreFrom(living.db, backup.db, request)).rejects.toThrow(bodyId)
  const rows = await living.db.kysely.selectFrom('bodies').select('body_id').execute()
  expect(rows).toHaveLength(3)
})

test('a body that an older version left half copied is copied anew', async () => {
  const { living, backup, alice } = pair
  const { bodyId } = await putMessage(backup.db, alice.domainId, [alice.userId], LONG)
  await sql`insert into bodies (domain_id, body_id) values (${alice.domainId}, ${bodyId})`.execute(
    living.db.kysely,
  )
  await sql`insert into body_chunks (domain_id, body_id, seq, data)
    values (${alice.domainId}, ${bodyId}, 0, 'half')`.execute(living.db.kysely)
  expect(await restoreAlice()).toMatchObject({ restored: 1, renumbered: 0 })
  expect((await pair.stored(alice)).at(-1)).toBe(LONG.toString('latin1'))
  await pair.expectSound()
})

test('a second run prints the same table, with zeros', async () => {
  await pair.program.run(['message', 'delete', ALICE, '1', '--yes'])
  const args = ['restore', 'example.test', '--from-file', 'backup-url']
  const first = await pair.program.run(args)
  const second = await pair.program.run(args)
  const table = (restored: number): RegExp =>
    new RegExp(
      `^USER +RESTORED +THERE ALREADY +NOTE\\nalice@example.test +${restored} +${3 - restored}\\n` +
        `bob@example.test +0 +1\\nrestored ${restored} messages?\\n$`,
    )
  expect(first.stdout).toMatch(table(1))
  expect(second.stdout).toMatch(table(0))
})

test('a session is named by the first 8 digits of its id, as "session list" shows it', async () => {
  const { living, backup, alice, bob, program } = pair
  const ids = ['0c6f0c6f-1', '0c6f0c6f-2', '0c6f0c7f-3'].map((start) => {
    return start + randomUUID().slice(start.length)
  })
  const [one = '', two = '', three = ''] = ids
  for (const { db } of [living, backup]) {
    await moveToTrash(db, alice, [1], one)
    await moveToTrash(db, alice, [2], three)
    await moveToTrash(db, bob, [1], two)
  }
  const from = ['--from-file', 'backup-url', '--session', '0c6f0c6f']
  const domain = await program.run(['restore', 'example.test', ...from])
  expect(domain).toMatchObject({
    status: 1,
    stderr: `popgres: several sessions begin with 0c6f0c6f, say more of the id: ${one}, ${two}\n`,
  })
  // bob's is none of alice's, so hers is the only one.
  expect(await restoreAlice('--session', '0C6F0C6F')).toMatchObject({ restored: 1 })
  expect((await pair.list(ALICE)).map(({ uid }) => uid)).toEqual([1, 3])
  const trashRun = await program.run(['message', 'restore', ALICE, '--session', '0c6f0c7f-3'])
  expect(trashRun).toMatchObject({ status: 0, stdout: `restored 1 message of ${ALICE}\n` })
  const none = await program.run(['message', 'restore', ALICE, '--session', '0c6f0c6f'])
  expect(none.stderr).toMatch(/^popgres: the trash of alice@example.test has nothing of that/)
  const late = ['restore', ALICE, '--from-file', 'backup-url', '--session', 'ffffffff']
  expect((await program.run(late)).stderr).toMatch(
    /^popgres: the backup's trash has nothing of alice@example\.test that a session ffffffff del/,
  )
})

test('from the living database itself: what a session deleted; what is there stays', async () => {
  const { living, program, alice } = pair
  writeFileSync(join(program.directory, 'backup-url'), `${living.url}\n`)
  const before = await pair.list(ALICE)
  expect(await restoreAlice()).toMatchObject({ restored: 0, alreadyThere: 3 })
  const session = randomUUID()
  await moveToTrash(living.db, alice, [1, 2], session)
  expect(await restoreAlice()).toMatchObject({ restored: 0, alreadyThere: 1 })
  expect(await restoreAlice('--session', session)).toMatchObject({ restored: 2, renumbered: 0 })
  expect(await pair.list(ALICE)).toEqual(before)
  await pair.expectSound()
})
