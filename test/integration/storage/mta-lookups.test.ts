/**
 * What an MTA may ask (migrations/0017_mta.sql): the answers are those of RCPT, and the role that asks
 * sees nothing else.
 */
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { lookUpRecipient } from '../../../src/mail/delivery/recipients.ts'
import { putMessage } from '../../support/mail.ts'
import { addUser, directUrl, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { onServer } from '../../support/postgres-setup.ts'

const ROLE = 'popgres_test_mta'

let database: TestDatabase
let owner: pg.Client
let mta: pg.Client

beforeAll(async () => {
  database = await openTestDatabase()
  const url = new URL(directUrl(database.url))
  await onServer(
    url.toString(),
    `do $$ begin create role ${ROLE} login password '${ROLE}';
     exception when duplicate_object then null; end $$`,
  )
  owner = new pg.Client(url.toString())
  await owner.connect()
  await owner.query(`grant select on users to ${ROLE}; select grant_lookups('${ROLE}')`)
  url.username = ROLE
  url.password = ROLE
  mta = new pg.Client(url.toString())
  await mta.connect()
})

afterAll(async () => {
  await mta?.end()
  await owner?.end()
  await database?.close()
})

async function ask(statement: string, ...values: string[]): Promise<unknown[]> {
  const { rows } = await mta.query({ text: statement, values, rowMode: 'array' })
  return rows.flat()
}

test('deliverable says what RCPT is answered', async () => {
  const { domainId, userId } = await addUser(database.db, 'Alice@mta.test')
  await addUser(database.db, 'brim@mta.test', { quotaOctets: 0 })
  const full = await addUser(database.db, 'full@mta.test', { quotaOctets: 10 })
  await addUser(database.db, 'room@mta.test', { quotaOctets: 1_000 })
  await addUser(database.db, 'alice@other.test')
  for (const user of [userId, full.userId])
    await putMessage(database.db, domainId, [user], 'A: b\r\n\r\n')
  const addresses = ['alice@mta.test', 'ALICE@MTA.TEST', 'brim@mta.test', 'full@mta.test']
  addresses.push(
    'room@mta.test',
    'nobody@mta.test',
    'alice@other.test',
    'alice@not.test',
    "o'x@mta.test",
  )
  const answers = { known: ['yes'], 'over-quota': ['full'], unknown: [] }
  const seen = new Set<string>()
  for (const address of addresses) {
    const { kind } = await lookUpRecipient(database.db, address)
    seen.add(kind)
    const [localPart = '', domain = ''] = address.split('@')
    expect(await ask('select deliverable($1, $2)', localPart, domain), address).toEqual(
      answers[kind],
    )
  }
  expect([...seen].sort()).toEqual(['known', 'over-quota', 'unknown'])
  expect(await ask('select hosted_domain($1)', 'MTA.test')).toEqual(['mta.test'])
  expect(await ask('select hosted_domain($1)', 'not.test')).toEqual([])
})

test('the role sees no table, and cannot have one of its own looked into', async () => {
  await addUser(database.db, 'alice@safe.test')
  for (const table of ['users', 'domains', 'maildrops', 'messages'])
    await expect(mta.query(`select from ${table}`)).rejects.toMatchObject({ code: '42501' })
  await mta.query('create temporary table domains (domain_id integer, name text)')
  await mta.query(`insert into domains values (1, 'stolen.test')`)
  await mta.query(`create temporary table users as select 1 as domain_id, 'x' as local_part`)
  expect(await ask('select hosted_domain($1)', 'stolen.test')).toEqual([])
  expect(await ask('select deliverable($1, $2)', 'alice', 'safe.test')).toEqual(['yes'])
  await mta.query('drop table pg_temp.domains, pg_temp.users')
})

test('a role that was granted nothing may not ask; the owner is not to be such a role', async () => {
  await owner.query(`revoke execute on function deliverable(text, text) from ${ROLE}`)
  await expect(ask('select deliverable($1, $2)', 'a', 'b')).rejects.toMatchObject({ code: '42501' })
  await owner.query(`select grant_lookups('${ROLE}')`)
  expect(await ask('select deliverable($1, $2)', 'a', 'b')).toEqual([])
  await expect(owner.query('select grant_lookups(current_user)')).rejects.toThrow(/is the owner/)
})
