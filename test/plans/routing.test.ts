/**
 * Where each statement would go if the tables lay on several servers (storage/postgres/citus.ts): what is
 * about a tenant names domain_id and goes to one shard. PostgreSQL's own plan tells: each look into
 * a distributed table has domain_id = a parameter among its conditions, whatever way the statement
 * says it, and each row that is inserted gets it from such a parameter. A statement that does not
 * is in the list below with its reason, or the test is red.
 */
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  DISTRIBUTED_TABLES,
  LOCAL_TABLES,
  REFERENCE_TABLES,
} from '../../src/storage/postgres/citus.ts'
import { openTestDatabase, type TestDatabase } from '../support/postgres.ts'
import {
  calledByReturning,
  insertsOfOtherArm,
  MUTABLE_FUNCTIONS,
  nodesBelow,
  type PlanNode,
  strayNodes,
} from './routes.ts'
import { collectStatements } from './statements.ts'

/** Statements about all domains or about nodes: they go to every shard, and why they may. */
const EVERY_SHARD = new Map([
  ['certificate-owners', 'by the certificate: at SASL EXTERNAL'],
  ['apop-user', 'whether anybody can use APOP: a heartbeat'],
  ['scram-use', 'whether everybody can use SCRAM: a heartbeat'],
  ['policy-common', 'what CAPA tells before the login: a heartbeat'],
  ['node-sessions', 'the leases of a node: a heartbeat'],
  ['node-sessions-delete', 'the leases of a node: rows that no session knows of'],
  ['node-leases', 'the leases of nodes that end or are dead, now and then'],
  ['node-leases-delete', 'the leases of nodes that end or are dead, now and then'],
  ['node-leases-delete-unknown', 'the leases of unknown nodes, now and then'],
  ['last-logins-sweep', 'rows of all domains that are over'],
  ['known-networks-sweep', 'rows of all domains that are over'],
])

/** Statements whose queries are inside a function of the database, and which tables it has. */
const FUNCTIONS = new Map([
  ['domain-holders', 'domain_holder: of no table, where a domain lies'],
  ['messages-expire', 'expire_messages: domain_id is its first argument'],
  ['moving-user-make', 'make_moving_user: domain_id is its first argument'],
  ['recipient', 'recipients: see functions.test.ts'],
  ['session-log-keep', 'keep_session_log: makes and drops partitions, at the coordinator'],
])

const statements = await collectStatements()
const distributed: readonly string[] = DISTRIBUTED_TABLES
let database: TestDatabase
let client: pg.Client

beforeAll(async () => {
  database = await openTestDatabase()
  client = new pg.Client({ connectionString: database.url })
  await client.connect()
})
afterAll(async () => {
  await client.end()
  await database.close()
})

async function select(text: string): Promise<string[]> {
  const { rows } = await client.query({ text, rowMode: 'array' })
  return rows.map((row) => row.join(' '))
}

async function nodesOf(text: string): Promise<PlanNode[]> {
  const { rows } = await client.query(`explain (generic_plan, verbose, format json) ${text}`)
  return nodesBelow(rows[0]['QUERY PLAN'][0].Plan)
}

const strayParts = async (text: string): Promise<string[]> => strayNodes(await nodesOf(text))

describe('the schema', () => {
  test('each table is in one list of storage/postgres/citus.ts', async () => {
    const tables = await select(`select relname from pg_class
      where relkind in ('r', 'p') and not relispartition and relnamespace = current_schema()::regnamespace order by relname`)
    const listed = [...DISTRIBUTED_TABLES, ...REFERENCE_TABLES, ...LOCAL_TABLES]
    expect([...listed].sort()).toEqual(tables.sort())
  })

  test('domain_id is the first column of each distributed table, and in each unique index', async () => {
    const first = await select(`select attrelid::regclass::text from pg_attribute
      where attname = 'domain_id' and attnum = 1 and attrelid::regclass::text = any (
        '{${distributed.join(',')}}') `)
    expect(first.sort()).toEqual([...distributed].sort())
    const wrong = await select(`select i.indexrelid::regclass::text from pg_index i
      where i.indisunique and i.indrelid::regclass::text = any ('{${distributed.join(',')}}')
        and not 1 = any (i.indkey::smallint[])`)
    expect(wrong).toEqual([])
  })

  test('each key between distributed tables names domain_id on both sides', async () => {
    const names = `'{${distributed.join(',')}}'`
    const wrong = await select(`select conrelid::regclass, conname from pg_constraint
      where contype = 'f' and conrelid::regclass::text = any (${names})
        and confrelid::regclass::text = any (${names})
        and not (conkey[1] = 1 and confkey[1] = 1)`)
    expect(wrong).toEqual([])
  })

  test('no table has a trigger, but those that carry out foreign keys', async () => {
    expect(await select('select tgname from pg_trigger where not tgisinternal')).toEqual([])
  })
})

describe('the statements', () => {
  test.each(statements)('$name', async ({ name, text }) => {
    const stray = await strayParts(text)
    if (EVERY_SHARD.has(name)) expect(stray, 'goes to one shard: off the list').not.toEqual([])
    else expect(stray).toEqual([])
  })

  test('each that is excused is a statement', () => {
    const names = new Set(statements.map(({ name }) => name))
    const excused = [...EVERY_SHARD.keys(), ...FUNCTIONS.keys()]
    expect(excused.filter((name) => !names.has(name))).toEqual([])
  })

  test('each that calls a function of ours is excused', async () => {
    const own = await select(`select proname from pg_proc
      where pronamespace = current_schema()::regnamespace`)
    const calling = statements.filter(({ text }) =>
      own.some((name) => new RegExp(`\\b${name}\\(`).test(text)),
    )
    expect(calling.map(({ name }) => name).sort()).toEqual([...FUNCTIONS.keys()].sort())
  })

  test('no INSERT of VALUES … ON CONFLICT has a subquery', () => {
    const wrong = statements.filter(({ text }) =>
      /\bvalues\s*\((?:(?!\bon conflict\b)[\s\S])*\bselect\b[\s\S]*\bon conflict\b/.test(text),
    )
    expect(wrong.map(({ name }) => name)).toEqual([])
  })

  test('what one arm of a statement inserts of another, it inserts beside a row of users', () => {
    const wrong = statements.filter(({ text }) => insertsOfOtherArm(text))
    expect(wrong.map(({ name }) => name)).toEqual([])
  })

  // excluded.* instead, and the difference of two times instead of a time and an interval.
  test('what ON CONFLICT does is the same on each server: only immutable functions', async () => {
    const mutable = await select(MUTABLE_FUNCTIONS)
    const wrong: string[] = []
    for (const { name, text } of statements)
      for (const [, action = ''] of text.matchAll(/\bdo update\b([\s\S]*?)(?=\breturning\b|$)/g)) {
        const called = [...action.matchAll(/\b([a-z_]+)\(/g)].map(([, each]) => each ?? '')
        if (called.some((each) => mutable.includes(each))) wrong.push(`${name}: ${called}`)
        if (/[-+] (?:make_)?interval\b/.test(action)) wrong.push(`${name}: a time and an interval`)
      }
    expect(wrong).toEqual([])
  })

  test('so is what RETURNING says of a table of tenants', async () => {
    const mutable = new Set(await select(MUTABLE_FUNCTIONS))
    const wrong = statements.filter(({ text }) =>
      calledByReturning(text).some((name) => mutable.has(name)),
    )
    expect(wrong.map(({ name }) => name)).toEqual([])
  })

  test('a statement without domain_id is found', async () => {
    const parts = (text: string) => strayParts(text)
    expect(await parts('delete from messages where user_id = $1')).not.toEqual([])
    expect(
      await parts(`select from messages m join bodies b on b.body_id = m.body_id
        where m.domain_id = $1`),
    ).toEqual([expect.stringContaining('bodies')])
    expect(
      await parts(`with gone as (delete from messages where domain_id = $1 returning uid)
        update maildrops set octets = 0 where user_id in (select uid from gone)`),
    ).toEqual([expect.stringContaining('maildrops')])
    expect(
      await parts(`insert into imported (domain_id, user_id, digest, copy)
        select max(1), $1, '', 1 from messages where domain_id = $2`),
    ).toEqual([expect.stringContaining('insert into imported')])
  })
})
