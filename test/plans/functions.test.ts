/**
 * Where the statements inside our functions would go if the tables lay on several servers
 * (storage/postgres/citus.ts). EXPLAIN does not look there, so each function is called and
 * PostgreSQL tells the plan of whatever it asks: the rules are those of routing.test.ts, and three
 * that are Citus's own.
 */
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { DISTRIBUTED_TABLES } from '../../src/storage/postgres/citus.ts'
import { STATEMENT_OPTIONS } from '../../src/storage/postgres/connection-settings.ts'
import { openTestDatabase, type TestDatabase } from '../support/postgres.ts'
import {
  calledByReturning,
  distributedTable,
  insertsOfOtherArm,
  MUTABLE_FUNCTIONS,
  nodesBelow,
  strayNodes,
} from './routes.ts'

/** Functions that ask more than one server, or are not called here, and why. */
const EXCUSED = new Map([
  ['domain_holder', 'of no table, where a domain lies'],
  ['keep_session_log', 'partitions of all domains, at the coordinator'],
  ['make_session_log_month', 'partitions of all domains, at the coordinator'],
  ['grant_serving', 'rights alone'],
  ['grant_serving_without_moves', 'rights alone'],
  ['grant_mail_serving', 'rights alone'],
  ['grant_lookups', 'rights alone'],
  ['hosted_domain', 'a name alone'],
])

const LATER = `now() + interval '1 year'`

/** One after the other, in one transaction; ada has three messages of hers. */
const CALLS = [
  `recipients('one.test', 'ADA')`,
  `recipients('one.test', 'nobody')`,
  `recipients('no.test', 'ada')`,
  `add_alias('sales@one.test', 'ada@one.test')`,
  `add_alias('sales@one.test', 'eve@two.test')`,
  `add_alias('@two.test', 'ada@one.test')`,
  `recipients('one.test', 'sales')`,
  `recipients('one.test', 'ada+tag')`,
  `recipients('two.test', 'anybody')`,
  `recipients('other.test', 'sales')`,
  `other_recipients('one.test', 'sales')`,
  `find_recipients('sales@other.test')`,
  `deliverable('sales', 'one.test')`,
  `remove_alias('sales@one.test', 'eve@two.test')`,
  `remove_alias('sales@one.test')`,
  `set_domain_alias('other.test', null)`,
  `set_domain_quota('one.test', 1000000, null)`,
  `set_domain_quota('one.test', null, null)`,
  `set_domain_quota('one.test', 1000000, 100)`,
  `recipients('one.test', 'bob')`,
  `delete_messages('ada@one.test', '{1}')`,
  `restore_messages('ada@one.test', null, '-infinity', ${LATER})`,
  `erase_messages('ada@one.test', '{2}')`,
  `expire_messages(1, 10)`,
  `set_hold('one.test', 'a reason')`,
  `set_hold('ada@one.test', 'a reason')`,
  `release_hold('ada@one.test')`,
  `release_hold('one.test')`,
  `add_app_password('ada@one.test', 'phone', null, null)`,
  `revoke_credential('ada@one.test', 'phone')`,
  `kick('ada@one.test')`,
  `clear_throttle('ada@one.test')`,
  `make_moving_user(1, 'new')`,
  `erase_user('ada@one.test')`,
  `remove_user('bob@one.test')`,
  `remove_domain('one.test')`,
]

interface Asked {
  call: string
  text: string
  stray: string[]
  tables: string[]
}

let database: TestDatabase
let client: pg.Client
const asked: Asked[] = []
let called: string[]

beforeAll(async () => {
  database = await openTestDatabase()
  client = new pg.Client({ connectionString: database.url, options: STATEMENT_OPTIONS })
  await client.connect()
  await client.query(`
    insert into domains (domain_id, name, separator, expire_days) overriding system value
      values (1, 'one.test', '+', 30), (2, 'two.test', null, null), (3, 'other.test', null, null);
    select set_domain_alias('other.test', 'one.test');
    insert into users (domain_id, user_id, local_part, quota_octets) overriding system value
      values (1, 1, 'ada', null), (1, 2, 'bob', 1000), (2, 3, 'eve', null);
    insert into maildrops (domain_id, user_id, message_count, octets, next_uid)
      values (1, 1, 3, 30, 4), (1, 2, 0, 0, 1), (2, 3, 0, 0, 1);
    insert into bodies (domain_id, body_id, octets)
      select 1, md5(n::text)::uuid, 10 from generate_series(1, 3) n;
    insert into messages (domain_id, user_id, uid, octets, body_id, prefix, received_at)
      select 1, 1, n, 10, md5(n::text)::uuid, '', now() - interval '1 year' * (n - 2)
      from generate_series(1, 3) n;
    insert into old_servers (domain_id, host, port) values (1, 'old.test', 995)`)
  called = await callAll()
})
afterAll(async () => {
  await client.end()
  await database.close()
})

/** @returns the functions that ran */
async function callAll(): Promise<string[]> {
  let call = ''
  client.on('notice', ({ message = '' }) => {
    const plan = /^duration: .* plan:\n(\{[\s\S]*\})$/.exec(message)?.[1]
    if (plan === undefined) return
    const { 'Query Text': text, Plan } = JSON.parse(plan)
    const nodes = nodesBelow(Plan)
    const tables = nodes.map(distributedTable).filter((table) => table !== undefined)
    asked.push({ call, text, stray: strayNodes(nodes), tables })
  })
  await client.query(`load 'auto_explain'; set auto_explain.log_min_duration = 0;
    set auto_explain.log_nested_statements = on; set auto_explain.log_format = json;
    set auto_explain.log_verbose = on; set client_min_messages = log;
    set track_functions = 'all'; begin`)
  for (call of CALLS) await client.query(`select * from ${call}`)
  const { rows } = await client.query('select distinct funcname from pg_stat_xact_user_functions')
  await client.query('rollback')
  return rows.map((row) => row.funcname)
}

test('each function of ours is called, or excused', async () => {
  const { rows } = await client.query(`select distinct proname from pg_proc
    where pronamespace = current_schema()::regnamespace`)
  const own = rows.map((row) => row.proname)
  expect(own.filter((name) => !called.includes(name)).sort()).toEqual([...EXCUSED.keys()].sort())
})

test('whatever they ask of a tenant names its domain', () => {
  expect(asked.filter(({ tables }) => tables.length > 0).length).toBeGreaterThan(50)
  expect(asked.filter(({ stray }) => stray.length > 0)).toEqual([])
})

test('what one arm of a statement inserts of another, it inserts beside a row of users', () => {
  expect(asked.filter(({ text }) => insertsOfOtherArm(text))).toEqual([])
})

test('what RETURNING says of a table of tenants is immutable', async () => {
  const { rows } = await client.query(MUTABLE_FUNCTIONS)
  const mutable = new Set(rows.map((row) => row.proname))
  const isWrong = (text: string) => calledByReturning(text).some((name) => mutable.has(name))
  expect(asked.filter(({ text, tables }) => tables.length > 0 && isWrong(text))).toEqual([])
})

// Citus keeps what a subquery about all domains finds as a table, and knows none without columns.
test('a subquery about a whole month has a column', async () => {
  const { rows } = await client.query(`select proname, prosrc from pg_proc
    where pronamespace = current_schema()::regnamespace`)
  const wrong = rows.filter(({ prosrc }) => /\(\s*select from %I/.test(prosrc))
  expect(wrong.map(({ proname }) => proname)).toEqual([])
})

// Citus sends the call along to the server that is looked into, where there are no other tables.
test('none calls another in a statement that looks into a table of tenants', async () => {
  const own = new RegExp(`\\b(?:${called.join('|')})\\(`)
  const wrong = asked.filter(({ text, tables }) => tables.length > 0 && own.test(text))
  expect(wrong).toEqual([])
})

test('none in plain SQL looks into a table of tenants: Citus takes no parameters there', async () => {
  const { rows } = await client.query(`select proname, prosrc from pg_proc
    join pg_language on pg_language.oid = prolang
    where pronamespace = current_schema()::regnamespace and lanname = 'sql'`)
  const tables = new RegExp(`\\b(?:${DISTRIBUTED_TABLES.join('|')})\\b`)
  expect(rows.filter((row) => tables.test(row.prosrc))).toEqual([])
})
