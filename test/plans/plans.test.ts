/**
 * How PostgreSQL carries out each prepared statement, as golden files: test/golden/plans/<name>.txt.
 * A statement without one fails, as does a file without a statement. After a change that was meant,
 * look at the difference and take it over:
 *
 *     UPDATE_GOLDEN=1 npx vitest run --project main test/plans
 *
 * The plans are the generic ones, as on the connections of a node, of the
 * PostgreSQL that comes embedded: on another major the goldens are not looked at, the rules are.
 */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { STATEMENT_OPTIONS } from '../../src/storage/postgres/connection-settings.ts'
import type { Statement } from '../../src/storage/postgres/database.ts'
import { openTestDatabase, type TestDatabase } from '../support/postgres.ts'
import { seed } from './seed.ts'
import { collectStatements } from './statements.ts'

const GOLDEN = resolve(import.meta.dirname, '../golden/plans')
const GOLDEN_MAJOR = 18
const isUpdating = process.env.UPDATE_GOLDEN === '1'

/** Whatever the server and its machine are set to. */
const PLANNER_SETTINGS = [
  'seq_page_cost = 1',
  'random_page_cost = 4',
  'cpu_tuple_cost = 0.01',
  'effective_cache_size = 524288',
  "work_mem = '4MB'",
  'max_parallel_workers_per_gather = 0',
  'jit = off',
]

/** Statements that read a table of tenants whole, and why. */
const WHOLE_TABLES = new Map([
  ['domain-ids', 'that is what is asked for'],
  ['policy-common', 'of all domains, at a heartbeat'],
  ['oauth-used', 'ends at the first row'],
  ['scram-use', 'ends at the first row'],
  ['known-networks-sweep', 'all rows'],
  ['last-logins-sweep', 'all rows'],
  ['node-leases-delete-unknown', 'all rows'],
])

/** Statements that want an order no index has, and of what. */
const SORTING = new Map([
  ['certificate-owners', 'those of one certificate'],
  ['deliver', 'the recipients of one statement, for their quotas'],
  ['deliver-chunked', 'as deliver'],
  ['import', 'as deliver'],
  ['import-chunked', 'as deliver'],
  ['maildrops-make', 'the recipients of one message'],
  ['policy-common', 'one row a domain'],
  ['throttles-count', 'the keys of one failure'],
  ['throttles-sweep', 'all rows'],
])

/** Statements that go through what a whole domain has. */
const DOMAIN_WIDE = new Set([
  'bodies-unnamed',
  'held-users-guard',
  'messages-due',
  'trash-due',
  'trash-purge',
])

interface PlanNode {
  'Node Type': string
  'Relation Name'?: string
  'Index Name'?: string
  'Index Cond'?: string
  Plans?: PlanNode[]
}

const statements = await collectStatements()
let database: TestDatabase
let client: pg.Client
let major = 0

beforeAll(async () => {
  database = await openTestDatabase()
  client = new pg.Client({ connectionString: database.url, options: STATEMENT_OPTIONS })
  await client.connect()
  const { rows } = await client.query('show server_version_num')
  major = Math.floor(Number(rows[0].server_version_num) / 10_000)
  await seed(client)
  for (const setting of PLANNER_SETTINGS) await client.query(`set ${setting}`)
})
afterAll(async () => {
  await client.end()
  await database.close()
})

async function explain(statement: Statement): Promise<string> {
  const { rows } = await client.query(`explain (generic_plan, costs off) ${statement.text}`)
  const plan = `${rows.map((row) => row['QUERY PLAN']).join('\n')}\n`
  return plan.replaceAll(/(session_log)_\d{4}_\d\d/g, '$1_YYYY_MM')
}

async function nodesOf(statement: Statement): Promise<PlanNode[]> {
  const { rows } = await client.query(`explain (generic_plan, format json) ${statement.text}`)
  const all: PlanNode[] = []
  const visit = (node: PlanNode): void => {
    all.push(node)
    node.Plans?.forEach(visit)
  }
  visit(rows[0]['QUERY PLAN'][0].Plan)
  return all
}

const goldenOf = ({ name }: Statement): string => join(GOLDEN, `${name}.txt`)
const named = (pattern: RegExp): Statement[] => statements.filter(({ name }) => pattern.test(name))

describe('golden files', () => {
  test.each(statements)('$name', async (statement) => {
    if (major !== GOLDEN_MAJOR) return
    const plan = await explain(statement)
    if (isUpdating) writeFileSync(goldenOf(statement), plan)
    expect(existsSync(goldenOf(statement)), `${goldenOf(statement)} is missing`).toBe(true)
    expect(plan).toBe(readFileSync(goldenOf(statement), 'utf8'))
  })

  test('each is of a statement', () => {
    const names = new Set(statements.map(({ name }) => `${name}.txt`))
    const left = readdirSync(GOLDEN).filter((name) => !names.has(name))
    if (isUpdating) for (const name of left) rmSync(join(GOLDEN, name))
    else expect(left).toEqual([])
  })
})

// EXPLAIN has GENERIC_PLAN since 16.
describe('rules', () => {
  test('no table of tenants is read whole', async () => {
    const { rows } = await client.query(`
      select c.relname from pg_index i join pg_class c on c.oid = i.indrelid
        join pg_attribute a on a.attrelid = c.oid and a.attnum = i.indkey[0]
      where i.indisprimary and a.attname = 'domain_id'`)
    const tenantTables = rows.map((row) => row.relname)
    expect(tenantTables).toContain('messages')
    const wrong: string[] = []
    for (const statement of statements.filter(({ name }) => !WHOLE_TABLES.has(name)))
      for (const { 'Node Type': type, 'Relation Name': table } of await nodesOf(statement))
        if (type === 'Seq Scan' && tenantTables.includes(table))
          wrong.push(`${statement.name}: ${table}`)
    expect(wrong).toEqual([])
  })

  test('nothing is sorted that an index has in order', async () => {
    const wrong: string[] = []
    for (const statement of statements.filter(({ name }) => !SORTING.has(name)))
      for (const { 'Node Type': type } of await nodesOf(statement))
        if (/Sort/.test(type)) wrong.push(`${statement.name}: ${type}`)
    expect(wrong).toEqual([])
  })

  // Domains have one user or 100,000, and a generic plan knows the average only. What costs the same
  // for one user must not read the others: user_id belongs into the condition of the index.
  test('rows of a user are found by domain and user, never by domain alone', async () => {
    const { rows } = await client.query(`
      select relname from pg_class c join pg_attribute a on a.attrelid = c.oid
      where c.relkind = 'r' and a.attname = 'user_id'`)
    const userTables = rows.map((row) => row.relname)
    const wrong: string[] = []
    for (const statement of statements.filter(({ name }) => !DOMAIN_WIDE.has(name)))
      for (const { 'Relation Name': table, 'Index Cond': condition = '' } of await nodesOf(
        statement,
      ))
        if (userTables.includes(table) && /^\(domain_id = [^()]*\)$/.test(condition))
          wrong.push(`${statement.name}: ${table} ${condition}`)
    expect(wrong).toEqual([])
  })

  test.each(named(/^snapshot/))('$name reads the index alone', async (statement) => {
    const scans = (await nodesOf(statement)).filter((node) => /Scan/.test(node['Node Type']))
    expect(scans.map((scan) => `${scan['Node Type']}: ${scan['Index Name']}`)).toEqual([
      'Index Only Scan: messages_pkey',
    ])
  })

  // Inside a function, where EXPLAIN does not look: told by the pages that are read.
  test.each([
    ['u471', 'd1.example', 12],
    ['nobody', 'd1.example', 20],
    ['u4711', 'd3711.example', 12],
    ['a4711', 'd3711.example', 40],
    ['nobody', 'd3711.example', 20],
  ])('recipient: %s@%s is found by indexes', async (name, domain, most) => {
    const look = `select from recipients('${domain}', '${name}')`
    await client.query(look)
    const { rows } = await client.query(`explain (analyze, buffers, format json) ${look}`)
    const plan = rows[0]['QUERY PLAN'][0].Plan
    const pages = plan['Shared Hit Blocks'] + plan['Shared Read Blocks']
    expect(pages).toBeGreaterThan(0)
    expect(pages).toBeLessThanOrEqual(most)
  })

  test('there is a snapshot to look at', () => {
    expect(named(/^snapshot/).length).toBeGreaterThan(0)
  })
})
