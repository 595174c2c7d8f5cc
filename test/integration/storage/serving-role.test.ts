/**
 * The role that nodes log in as: it may do what they do, each of its grants is needed, and it may do
 * nothing else. The nodes of all other tests of POP3 log in as such a role too (pop3-node.ts).
 */
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openLog } from '../../../src/base/log.ts'
import { sweepLastLogins } from '../../../src/storage/leases.ts'
import { checkSchema, migrate } from '../../../src/storage/migrator.ts'
import { sweepNodes } from '../../../src/storage/nodes.ts'
import type { Database, Statement } from '../../../src/storage/postgres/database.ts'
import { sqlStateOf } from '../../../src/storage/postgres/sqlstate.ts'
import { expireMessages, purgeTrash, sweepBodies } from '../../../src/storage/retention.ts'
import { grantServing } from '../../../src/storage/serving-role.ts'
import { sweepThrottles } from '../../../src/storage/throttles.ts'
import { openLmtp, startTestLmtp } from '../../support/lmtp.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode } from '../../support/pop3-node.ts'
import {
  addUser,
  openTestConnection,
  openTestDatabase,
  type TestDatabase,
} from '../../support/postgres.ts'
import { SERVING_ROLE, servingUrl } from '../../support/postgres-setup.ts'

const STORAGE = join(import.meta.dirname, '../../../src/storage')
const PASSWORD = 'Right-Horse-77'

let database: TestDatabase
let serving: Database
let owner: pg.Client
let statements: Statement[]

beforeAll(async () => {
  database = await openTestDatabase()
  serving = openTestConnection(servingUrl(database.url))
  owner = new pg.Client(database.url)
  await owner.connect()
  statements = await findStatements()
})

afterAll(async () => {
  await owner?.end()
  await serving?.close()
  await database?.close()
})

/** Those of nodes: all that are prepared, and what is asked without that. */
async function findStatements(): Promise<Statement[]> {
  const files = readdirSync(STORAGE, { recursive: true, encoding: 'utf8' })
  const modules = files.filter((file) => file.endsWith('.ts')).map((file) => join(STORAGE, file))
  const values = await Promise.all(modules.map(async (file) => Object.values(await import(file))))
  const prepared = values.flat().filter((value): value is Statement => {
    const { name, text } = Object(value)
    return typeof name === 'string' && typeof text === 'string'
  })
  return [
    ...prepared,
    { name: 'domain', text: 'select * from domains' },
    { name: 'applied', text: 'select * from schema_migrations' },
    { name: 'other_recipients', text: 'select * from aliases' },
    { name: 'requirements', text: 'select * from schema_requirements' },
  ]
}

/** Plans it as the role, which asks for the same rights as running it. @returns SQLSTATE, if any */
async function explainAs(role: string, { text }: Statement): Promise<string | undefined> {
  const count = Math.max(0, ...[...text.matchAll(/\$(\d+)/g)].map((match) => Number(match[1])))
  const nulls = count === 0 ? '' : `(${Array(count).fill('null').join(', ')})`
  // As a node does: a plan for these nulls would leave out what they rule out.
  await owner.query(`savepoint before; set local plan_cache_mode = force_generic_plan;
    set local role ${role}; prepare it as ${text}`)
  try {
    await owner.query(`explain execute it ${nulls}`)
    return undefined
  } catch (error) {
    return (error as pg.DatabaseError).code
  } finally {
    await owner.query('rollback to before; deallocate it')
  }
}

async function inTransaction<T>(work: () => Promise<T>): Promise<T> {
  await owner.query('begin')
  try {
    return await work()
  } finally {
    await owner.query('rollback')
  }
}

test('may run each statement of a node', async () => {
  expect(statements.length).toBeGreaterThan(50)
  const refused = await inTransaction(async () => {
    const found = []
    for (const statement of statements) {
      const code = await explainAs(SERVING_ROLE, statement)
      if (code !== undefined) found.push(`${statement.name}: ${code}`)
    }
    return found
  })
  expect(refused).toEqual([])
})

interface Grant {
  table: string
  right: string
}

test('has no grant that no statement needs', async () => {
  const { rows: grants } = await owner.query<Grant>(
    `select c.relname as table, a.privilege_type as right
      from pg_class c, aclexplode(c.relacl) a where a.grantee = $1::regrole
    union all
    select c.relname, format('%s (%I)', a.privilege_type, t.attname)
      from pg_class c, pg_attribute t, aclexplode(t.attacl) a
      where t.attrelid = c.oid and a.grantee = $1::regrole`,
    [SERVING_ROLE],
  )
  expect(grants.length).toBeGreaterThan(40)
  const needless: string[] = []
  for (const grant of grants) if (!(await isNeeded(grant))) needless.push(JSON.stringify(grant))
  expect(needless).toEqual([])
})

function isNeeded({ table, right }: Grant): Promise<boolean> {
  return inTransaction(async () => {
    await owner.query(`revoke ${right} on ${table} from ${SERVING_ROLE}`)
    for (const statement of statements)
      if (statement.text.includes(table) && (await explainAs(SERVING_ROLE, statement)) === '42501')
        return true
    return false
  })
}

test('takes mail in, lets it be read and deleted, and cleans up', async () => {
  const { domainId } = await addUser(database.db, 'alice@one.test', { password: PASSWORD })
  await owner.query('update domains set login_delay_seconds = 1, expire_days = 1, trash_days = 0')
  await checkSchema(serving, '9.9.9')
  const lmtp = await startTestLmtp(serving)
  const sender = await openLmtp(lmtp)
  for (const word of ['one', 'two']) {
    await sender.ask('MAIL FROM:<>')
    expect(await sender.ask('RCPT TO:<alice@one.test>')).toMatch(/^250/)
    await sender.ask('DATA')
    expect(await sender.ask(`Subject: ${word}\r\n\r\n${word}\r\n.`)).toMatch(/^250/)
  }
  await lmtp.stop()

  const node = await startTestNode({ url: database.url })
  const client = await Pop3Client.login(node.address, 'alice@one.test', PASSWORD)
  expect((await client.retrieve('RETR 1')).toString()).toContain('Subject: one')
  await client.ask('DELE 1')
  expect(await client.ask('QUIT')).toMatch(/^\+OK/)
  await client.closed
  await node.stop()
  expect(node.logged.join('')).not.toContain('permission denied')

  await owner.query(`update messages set received_at = now() - interval '2 days'`)
  await owner.query(`update bodies set created_at = now() - interval '2 days'`)
  expect(await expireMessages(serving, domainId, 10)).toBe(1)
  expect(await purgeTrash(serving, domainId, 10)).toBe(2)
  expect(await sweepBodies(serving, domainId, 10)).toBe(0) // emptying the trash took them along
  await sweepNodes(serving)
  await sweepThrottles(serving)
  await sweepLastLogins(serving)
})

describe('may not', () => {
  test.each([
    'drop table messages',
    'drop database template1',
    'alter table users add column extra text',
    'alter table users disable trigger all',
    'truncate throttles',
    'create table mine (id integer)',
    'create schema mine',
    'create function mine() returns integer language sql as $$ select 1 $$',
    'create or replace function kick(address text) returns boolean language sql as $$ select true $$',
    'create role mine',
    "insert into domains (name) values ('mine.test')",
    "update domains set second_login = 'take-over'",
    'delete from domains',
    "insert into users (domain_id, local_part) values (1, 'mine')",
    'update users set suspended = false',
    'update users set quota_octets = null',
    'update users set main_password_allowed = true',
    'update users set apop_secret = null',
    'delete from users',
    'delete from credentials',
    "update credentials set digest = ''",
    'update credentials set expires_at = null',
    "update oauth_providers set issuer = 'https://mine.test'",
    'delete from certificates',
    'insert into domain_hosts select domain_id, name from domains',
    'update messages set octets = 0',
    'update bodies set domain_id = 1',
    "update body_chunks set data = ''",
    'update trash set user_id = 1',
    'delete from session_log',
    'delete from schema_migrations',
    'delete from imported',
    'delete from old_servers',
    "update old_servers set host = 'mine.test'",
    'select * from schema_migrations_lock',
    'select * from pg_authid',
    'select * from of_others',
    `select grant_serving('${SERVING_ROLE}')`,
    "select pg_read_file('/etc/passwd')",
    "copy domains to program 'cat'",
    'set role pg_read_all_data',
  ])('%s', async (text) => {
    await owner.query('create table if not exists of_others (id integer)')
    const client = new pg.Client(servingUrl(database.url))
    await client.connect()
    const error = await client.query(text).catch((reason: unknown) => reason)
    await client.end()
    expect(error).toMatchObject({ code: '42501' })
  })
})

describe('granting', () => {
  const role = `popgres_test_${process.pid}_grant`

  afterAll(async () => {
    await owner.query(`drop owned by ${role}; drop role ${role}`)
  })

  test('takes away what a role had been granted beyond', async () => {
    await owner.query(`create role ${role}; grant all on messages, users, imported to ${role}`)
    await grantServing(database.db, role)
    await inTransaction(async () => {
      for (const text of ['delete from users', 'delete from imported'])
        expect(await explainAs(role, { name: '', text })).toBe('42501')
      for (const text of ['delete from messages', 'select * from users'])
        expect(await explainAs(role, { name: '', text })).toBe(undefined)
    })
    await grantServing(database.db, role)
  })

  test('to the owner, to who may become it, or to nobody is refused', async () => {
    const { rows } = await owner.query<{ user: string }>('select current_user as user')
    const [{ user } = { user: '' }] = rows
    const refusal = async (name: string) =>
      sqlStateOf(await grantServing(database.db, name).catch((error: unknown) => error))
    expect(await refusal(user)).toBe('0LP01')
    await owner.query(`grant "${user}" to ${role}`)
    expect(await refusal(role)).toBe('0LP01')
    await owner.query(`revoke "${user}" from ${role}`)
    expect(await refusal('no_such_role')).toBe('42704')
    expect(await refusal('users; drop table messages')).toBe('42704')
  })
})

test('cannot migrate, and says so', async () => {
  const empty = await openTestDatabase(true)
  const db = openTestConnection(servingUrl(empty.url))
  await expect(migrate(db, openLog('silent'))).rejects.toThrow(/permission denied/)
  await db.close()
  await empty.close()
})
