/** Bodies as they were stored before 0009_page_chunks, and what becomes of them. */
import { randomBytes, randomUUID } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { sql } from 'kysely'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openLog } from '../../../src/base/log.ts'
import { STRETCH_OCTETS, selectStretch } from '../../../src/storage/bodies.ts'
import { checkMaildrops } from '../../../src/storage/check.ts'
import { migrate } from '../../../src/storage/migrator.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

const MIGRATIONS = resolve(import.meta.dirname, '../../../migrations')
const OLD_CHUNK_OCTETS = 262_144

let database: TestDatabase
let user: { domainId: number; userId: number }

beforeAll(async () => {
  database = await openTestDatabase(true)
  await migrateUpTo('0008_cost')
  user = await addUser(database.db, 'ada@old.test')
})
afterAll(() => database.close())

async function migrateUpTo(last: string): Promise<void> {
  const { kysely } = database.db
  await sql`create table schema_migrations (name varchar(255) primary key, timestamp varchar(255)
    not null)`.execute(kysely)
  for (const file of readdirSync(MIGRATIONS).sort()) {
    const name = file.replace(/\.sql$/, '')
    if (name > last) break
    await sql.raw(readFileSync(join(MIGRATIONS, file), 'utf8')).execute(kysely)
    await kysely.insertInto('schema_migrations').values({ name, timestamp: '' }).execute()
  }
}

let uid = 0

/** As a delivery left it then; without the chunks in `missing`. */
async function putOld(content: Buffer, missing: readonly number[] = []): Promise<string> {
  const { kysely } = database.db
  const bodyId = randomUUID()
  const body = { domain_id: user.domainId, body_id: bodyId }
  await kysely
    .insertInto('bodies')
    .values({ ...body, octets: content.length })
    .execute()
  for (let seq = 0, at = 0; at < content.length; seq++, at += OLD_CHUNK_OCTETS) {
    const data = content.subarray(at, at + OLD_CHUNK_OCTETS)
    if (missing.includes(seq)) continue
    await kysely
      .insertInto('body_chunks')
      .values({ ...body, seq, data })
      .execute()
  }
  await kysely
    .insertInto('messages')
    .values({ ...body, user_id: user.userId, uid: ++uid, octets: content.length, unique_id: null })
    .execute()
  return bodyId
}

async function readNew(bodyId: string, bodyOctets: number): Promise<Buffer> {
  const pieces: Buffer[] = []
  for (let nth = 0; nth * STRETCH_OCTETS < bodyOctets; nth++)
    pieces.push(...(await selectStretch(database.db, user.domainId, { bodyId, bodyOctets }, nth)))
  return Buffer.concat(pieces)
}

test('whole bodies stay what they are, damaged ones stay damaged, and no chunk leaves its page', async () => {
  const contents = [0, 1, 8_095, 8_096, 8_097, 262_143, 262_144, 262_145, 270_000, 1_000_000].map(
    (octets) => randomBytes(octets),
  )
  contents.push(Buffer.alloc(700_000, 'compressible\r\n'))
  const bodyIds: string[] = []
  for (const content of contents) bodyIds.push(await putOld(content))
  const damaged = [
    await putOld(randomBytes(600_000), [0]),
    await putOld(randomBytes(600_000), [1]),
    await putOld(randomBytes(600_000), [2]),
  ]
  const { applied } = await migrate(database.db, openLog('silent'))
  expect(applied[0]).toBe('0009_page_chunks')
  for (const [at, content] of contents.entries()) {
    const read = await readNew(bodyIds[at] ?? '', content.length)
    expect(read.equals(content), `${content.length} octets`).toBe(true)
  }
  for (const bodyId of damaged)
    await expect(readNew(bodyId, 600_000)).rejects.toMatchObject({ code: 'MESSAGE_DAMAGED' })
  const findings = await checkMaildrops(database.db, user.domainId, false)
  const ofBodies = findings.filter(({ kind }) => kind === 'body-damaged')
  expect(ofBodies.map(({ detail }) => detail.split(' ')[3])).toEqual(damaged)
  const { rows } = await sql<{ toasted: number; row_length: number; pages: number; rows: number }>`
    select pg_relation_size(reltoastrelid)::integer as toasted,
      pg_relation_size(oid)::integer / 8192 as pages,
      (select count(*)::integer from body_chunks where octet_length(data) = 8096) as rows
    from pg_class where oid = 'body_chunks'::regclass`.execute(database.db.kysely)
  expect(rows[0]?.toasted).toBe(0)
  expect(rows[0]?.pages).toBeLessThan((rows[0]?.rows ?? 0) + 20)
})

test('a body is found by its key in a database that is new', async () => {
  const fresh = await openTestDatabase(true)
  await migrate(fresh.db, openLog('silent'))
  const text = `explain select from bodies
    where domain_id = 1 and body_id = '${randomUUID()}'`
  const [row] = await fresh.db.bulk({ name: 'explained', text }, [])
  expect(row?.[0]?.toString()).toContain('bodies_pkey')
  await fresh.close()
})
