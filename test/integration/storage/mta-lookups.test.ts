/**
 * What an MTA may ask (migrations/0017_mta.sql): the answers are those of RCPT, also by the queries
 * of deploy/mta, and the role that asks sees nothing else.
 */
import { readFileSync } from 'node:fs'
import { sql } from 'kysely'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { lookUpRecipient } from '../../../src/mail/delivery/recipients.ts'
import type { LineClient } from '../../support/line-client.ts'
import { openLmtp, startTestLmtp, type TestLmtp } from '../../support/lmtp.ts'
import { putMessage } from '../../support/mail.ts'
import { addUser, directUrl, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { onServer } from '../../support/postgres-setup.ts'

const ROLE = 'popgres_test_mta'

let database: TestDatabase
let owner: pg.Client
let mta: pg.Client
let lmtp: TestLmtp
let client: LineClient

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
  lmtp = await startTestLmtp(database.db)
  client = await openLmtp(lmtp)
})

afterAll(async () => {
  client?.destroy()
  await lmtp?.stop()
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
  const full = await addUser(database.db, 'full@mta.test', { quotaOctets: 8 })
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

const MTA_FILES = new URL('../../../deploy/mta/', import.meta.url)

/** The query of a file of deploy/mta. */
function queryOf(file: string, name: RegExp): string {
  const text = readFileSync(new URL(file, MTA_FILES), 'utf8').replaceAll('\\\n', ' ')
  const query = name.exec(text)?.[1]
  if (query === undefined) throw new Error(`${file} has no query`)
  return query
}

/** As Postfix puts an address in; an empty part of it asks nothing. */
async function askAsPostfix(map: string, key: string): Promise<unknown[]> {
  const [localPart = '', domain = ''] = key.includes('@') ? key.split('@') : ['', '']
  const query = queryOf(`postfix/popgres-${map}.cf`, /^query = (.*)$/m)
  const parts: Record<string, string> = { '%s': key, '%u': localPart, '%d': domain }
  return await ask(query.replace(/%[sud]/g, (part) => (parts[part] ?? '').replaceAll("'", "''")))
}

async function askAsExim(localPart: string, domain: string): Promise<unknown[]> {
  const query = queryOf(
    'exim/exim.conf',
    /lookup pgsql\{(select 'yes' from deliverable[^}]*\}[^}]*\}[^}]*)\}/,
  )
  const parts: Record<string, string> = { local_part: localPart, domain }
  return await ask(
    query.replace(/\$\{quote_pgsql:\$(\w+)\}/g, (_, part) =>
      (parts[part] ?? '').replaceAll("'", "''"),
    ),
  )
}

async function askAsOpensmtpd(table: string, key: string): Promise<unknown[]> {
  return await ask(queryOf(`opensmtpd/popgres-${table}.conf`, /^query_\w+ (.*)$/m), key)
}

type Reply = 'yes' | 'full' | 'unknown'

/** What the client that delivers is told. */
async function rcpt(address: string): Promise<Reply> {
  await client.ask('MAIL FROM:<>')
  const reply = await client.ask(`RCPT TO:<${address}>`)
  await client.ask('RSET')
  const known: Record<string, Reply> = { '250 2.1.5': 'yes', '550 5.1.1': 'unknown' }
  const full = ['452 4.2.2', '552 5.2.2'].includes(reply.slice(0, 9))
  const kind = full ? 'full' : known[reply.slice(0, 9)]
  if (kind === undefined) throw new Error(reply)
  return kind
}

async function makeAddresses(): Promise<void> {
  const { db } = database
  for (const user of ['ann', 'ben', 'hidden', 'in+name'])
    await addUser(db, `${user}@main.mta`, { quotaOctets: 1_000 })
  const full = await addUser(db, 'brim@main.mta', { quotaOctets: 8 })
  await putMessage(db, full.domainId, [full.userId], 'A: b\r\n\r\n')
  for (const domain of ['caught', 'off', 'tight', 'refusing'])
    await addUser(db, `one@${domain}.mta`)
  await addUser(db, 'own@alias.mta')
  const aliases = [
    ...[
      ['sales@main.mta', 'ann@main.mta'],
      ['all@main.mta', 'ann@main.mta'],
    ],
    ...[
      ['all@main.mta', 'brim@main.mta'],
      ['late@main.mta', 'ann@main.mta'],
    ],
    ...[
      ['@caught.mta', 'ann@main.mta'],
      ['x@caught.mta', 'brim@main.mta'],
    ],
    ...[
      ['x@off.mta', 'one@off.mta'],
      ['@off.mta', 'one@off.mta'],
    ],
  ]
  for (const [alias, target] of aliases)
    await sql`select add_alias(${alias}, ${target})`.execute(db.kysely)
  await addUser(db, 'late@main.mta', { quotaOctets: 0 })
  await sql`update domains set separator = '+' where name = 'main.mta'`.execute(db.kysely)
  await sql`update domains set over_quota = 'refuse' where name = 'refusing.mta'`.execute(db.kysely)
  await sql`update domains set aliases_allowed = false, catch_all_allowed = false
    where name = 'off.mta'`.execute(db.kysely)
  await sql`select set_domain_alias('alias.mta', 'main.mta')`.execute(db.kysely)
  for (const domain of ['tight.mta', 'refusing.mta'])
    await sql`select set_domain_quota(${domain}, 0, null)`.execute(db.kysely)
}

const ADDRESSES: [string, string, Reply][] = [
  ['a user', 'Ann@MAIN.mta', 'yes'],
  ['an alias', 'sales@main.mta', 'yes'],
  ['an alias of several, one of them full', 'all@main.mta', 'full'],
  ['a user before the alias of that name', 'late@main.mta', 'full'],
  ['plus', 'ann+news@main.mta', 'yes'],
  ['plus after an alias', 'sales+a+b@main.mta', 'yes'],
  ['plus after who is full', 'brim+x@main.mta', 'full'],
  ['plus that is in the name', 'in+name@main.mta', 'yes'],
  ['plus after nobody', 'nobody+ann@main.mta', 'unknown'],
  ['plus where there is no separator', 'one+x@off.mta', 'unknown'],
  ['nobody', 'nobody@main.mta', 'unknown'],
  ['catch-all', 'whoever@caught.mta', 'yes'],
  ['catch-all with a plus', 'who+ever@caught.mta', 'yes'],
  ['an alias before the catch-all', 'x@caught.mta', 'full'],
  ['a user before the catch-all', 'one@caught.mta', 'yes'],
  ['aliases and catch-all that are switched off', 'x@off.mta', 'unknown'],
  ['a user of such a domain', 'one@off.mta', 'yes'],
  ['a user by a domain alias', 'ben@alias.mta', 'yes'],
  ['an alias by a domain alias', 'sales@alias.mta', 'yes'],
  ['plus by a domain alias', 'ann+x@alias.mta', 'yes'],
  ['full by a domain alias', 'brim@alias.mta', 'full'],
  ['its own user', 'own@alias.mta', 'yes'],
  ['nobody by a domain alias', 'nobody@alias.mta', 'unknown'],
  ['a domain over quota', 'one@tight.mta', 'full'],
  ['a domain over quota that refuses', 'one@refusing.mta', 'full'],
  ['an apostrophe', "o'neill@main.mta", 'unknown'],
  ['a domain that is not here', 'ann@nowhere.mta', 'unknown'],
]

test('Postfix, Exim and OpenSMTPD hear of each kind of address what RCPT is answered', async () => {
  await makeAddresses()
  for (const [what, address, expected] of ADDRESSES) {
    const [localPart = '', domain = ''] = address.split('@')
    expect(await rcpt(address), what).toBe(expected)
    const known = expected === 'unknown' ? [] : [expected === 'full' ? 'full' : 'yes']
    expect(await ask('select deliverable($1, $2)', localPart, domain), what).toEqual(known)
    expect(await askAsPostfix('recipients', address), what).toEqual(known)
    expect(await askAsOpensmtpd('recipients', address), what).toEqual(known)
    const isFull = expected === 'full'
    const told = isFull ? ['452 4.2.2 mailbox is full'] : []
    expect(await askAsPostfix('full', address), what).toEqual(told)
    expect(await askAsOpensmtpd('full', address), what).toEqual(isFull ? ['full'] : [])
    expect(await askAsExim(localPart, domain), what).toEqual(isFull ? ['yes'] : [])
    const hosted = domain === 'nowhere.mta' ? [] : [domain.toLowerCase()]
    expect(await askAsPostfix('domains', domain), what).toEqual(hosted)
    expect(await askAsOpensmtpd('domains', domain), what).toEqual(hosted)
  }
  // Postfix asks for the whole domain too, if there is no such address.
  for (const domain of ['main.mta', 'caught.mta'])
    expect(await ask('select deliverable($1, $2)', '', domain)).toEqual([])
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
