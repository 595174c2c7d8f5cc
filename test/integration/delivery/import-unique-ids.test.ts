/** Import of messages that have a unique-id from elsewhere: kept, never twice, never another's. */
import { afterEach, beforeEach, expect, test } from 'vitest'
import {
  type ImportItem,
  type ImportOptions,
  importMessages,
} from '../../../src/admin/transfer/import-messages.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

const ADDRESS = 'alice@example.test'

let database: TestDatabase

beforeEach(async () => {
  database = await openTestDatabase()
  await addUser(database.db, ADDRESS)
})

afterEach(() => database.close())

interface Old {
  uniqueId?: string
  text: string
  isRemote?: boolean
  onOpen?: () => void
}

async function* itemsOf(messages: Iterable<Old>): AsyncGenerator<ImportItem> {
  for (const { text, onOpen, ...rest } of messages)
    yield {
      source: rest.uniqueId ?? text,
      sourceOctets: text.length,
      receivedAt: new Date('2020-02-03T04:05:06Z'),
      ...rest,
      async *open() {
        onOpen?.()
        yield Buffer.from(text)
      },
    }
}

function run(messages: Iterable<Old>, options: Partial<ImportOptions> = {}) {
  return importMessages(database.db, {
    address: ADDRESS,
    items: itemsOf(messages),
    messageMaxOctets: 10_000,
    ...options,
  })
}

async function storedIds(): Promise<(string | null)[]> {
  const rows = await database.db.kysely
    .selectFrom('messages')
    .select('unique_id')
    .orderBy('uid')
    .execute()
  return rows.map((row) => row.unique_id)
}

const TWINS: Old[] = [
  { uniqueId: 'a1', text: 'A: 1\n\nsame\n' },
  { uniqueId: 'a2', text: 'A: 1\n\nsame\n' },
  { uniqueId: 'a3', text: 'A: 1\n\nother\n' },
]

test('unique-ids are kept in order, of equal messages too, and a second run adds nothing', async () => {
  expect(await run(TWINS)).toEqual({ imported: 3, alreadyImported: 0, skipped: [] })
  expect(await storedIds()).toEqual(['a1', 'a2', 'a3'])
  expect(await run(TWINS)).toEqual({ imported: 0, alreadyImported: 3, skipped: [] })
})

test('a run that was cut between two equal messages brings the second', async () => {
  await run(TWINS.slice(0, 1))
  expect(await run(TWINS)).toEqual({ imported: 2, alreadyImported: 1, skipped: [] })
  expect(await storedIds()).toEqual(['a1', 'a2', 'a3'])
})

test('what was deleted since stays away, whether the trash still knows it or not', async () => {
  await run(TWINS)
  await database.db.kysely.deleteFrom('messages').where('unique_id', '=', 'a2').execute()
  expect(await run(TWINS)).toMatchObject({ imported: 0, alreadyImported: 3 })
})

test('from far away only what is not in is opened', async () => {
  const opened: string[] = []
  const remote = TWINS.map((old) => ({
    ...old,
    isRemote: true,
    onOpen: () => opened.push(old.uniqueId ?? ''),
  }))
  await run(remote.slice(0, 2))
  expect(await run(remote)).toMatchObject({ imported: 1, alreadyImported: 2 })
  expect(opened).toEqual(['a1', 'a2', 'a3'])
})

test('a unique-id that cannot be kept refuses its message, with the reason', async () => {
  const { uid_validity: validity } = await database.db.kysely
    .insertInto('maildrops')
    .columns(['domain_id', 'user_id'])
    .expression(database.db.kysely.selectFrom('users').select(['domain_id', 'user_id']))
    .returning('uid_validity')
    .executeTakeFirstOrThrow()
  const messages = [
    { uniqueId: 'x'.repeat(71), text: 'A: 1\n' },
    { uniqueId: 'a/b', text: 'A: 2\n' },
    { uniqueId: 'a b', text: 'A: 3\n' },
    { uniqueId: '', text: 'A: 4\n' },
    { uniqueId: 'good', text: 'A: 5\n' },
    { uniqueId: 'good', text: 'A: 6\n' },
    { uniqueId: `${validity}.7`, text: 'A: 7\n' },
    { uniqueId: 'x'.repeat(70), text: 'A: 8\n' },
  ]
  const report = await run(messages)
  expect(report).toMatchObject({ imported: 2, alreadyImported: 0 })
  expect(report.skipped.map(({ reason }) => reason)).toEqual([
    `the unique-id "${'x'.repeat(71)}" has 71 characters, more than 70 (RFC 1939 §7)`,
    'the unique-id "a/b" has a character other than 0x21 to 0x7E, or a "/"',
    'the unique-id "a b" has a character other than 0x21 to 0x7E, or a "/"',
    'the unique-id is empty',
    'the unique-id good is that of an earlier message',
    `the unique-id ${validity}.7 may meet one that this server makes itself`,
  ])
  expect(await storedIds()).toEqual(['good', 'x'.repeat(70)])
  expect(await run(messages, { replacesUniqueIds: true })).toMatchObject({ imported: 6 })
  expect(await storedIds()).toEqual(['good', 'x'.repeat(70), ...Array(6).fill(null)])
})

test('a unique-id of another message, and a message under another unique-id, are told', async () => {
  await run(TWINS)
  const report = await run([
    { uniqueId: 'a1', text: 'A: 9\n' },
    { uniqueId: 'b3', text: 'A: 1\n\nother\n' },
  ])
  expect(report).toMatchObject({ imported: 0, alreadyImported: 0 })
  expect(report.skipped.map(({ reason }) => reason)).toEqual([
    'the unique-id a1 is that of another message',
    'is in already, with another unique-id: to change that, remove the user and begin anew',
  ])
})

test('what came in by unique-id does not come in again without, and the other way round', async () => {
  await run(TWINS)
  const plain = TWINS.map(({ text }) => ({ text }))
  expect(await run(plain)).toEqual({ imported: 0, alreadyImported: 3, skipped: [] })
  expect(await run([...plain, { text: 'A: 1\n\nother\n' }])).toMatchObject({ imported: 1 })
})

test('a dry run says what the run will say, and changes nothing', async () => {
  await database.db.kysely.updateTable('users').set({ quota_octets: 40 }).execute()
  await run(TWINS.slice(0, 1))
  const messages = [...TWINS, { uniqueId: 'a/4', text: 'A: 4\n' }]
  const before = await storedIds()
  const pretended = await run(messages, { isDryRun: true })
  expect(await storedIds()).toEqual(before)
  expect(pretended).toMatchObject({ imported: 1, alreadyImported: 1 })
  expect(pretended.skipped).toMatchObject([{ reason: 'the mailbox is full' }, { source: 'a/4' }])
  expect(await run(messages)).toEqual(pretended)
})
