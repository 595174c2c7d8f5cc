/**
 * Nodes plan each statement when they first need it, and that may be before the first rows come.
 * Until autovacuum has looked at the tables the plan stays what it was: a first import, or the mail
 * of the first minutes, must not be read whole for one message.
 */
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openTestDatabase, type TestDatabase } from '../support/postgres.ts'
import { collectStatements } from './statements.ts'

/** What a login, a session and RCPT are made of; name and key of a row are known to each. */
const BY_KEY = [
  'login-account',
  'maildrop-open',
  'recipient',
  'lease-acquire',
  'lease-quit',
  'snapshot',
  'unique-ids',
  'messages',
  'stretch',
  'password-hash',
  'scram-keys',
  'maildrops-make',
]

interface PlanNode {
  'Node Type': string
  'Relation Name'?: string
  'Index Cond'?: string
  Plans?: PlanNode[]
}

let database: TestDatabase

beforeAll(async () => {
  database = await openTestDatabase()
})
afterAll(() => database.close())

async function select(text: string): Promise<string[]> {
  const rows = await database.db.bulk({ name: '', text }, [])
  return rows.map(([field]) => field?.toString() ?? '')
}

test('no table is known to be empty', async () => {
  const empty = `select relname::text from pg_class
    where relkind = 'r' and relnamespace = current_schema()::regnamespace and reltuples = 0
      and relname not like 'schema%'`
  expect(await select(empty)).toEqual([])
})

test('rows are found by their whole key before there are any', async () => {
  const statements = (await collectStatements()).filter(({ name }) => BY_KEY.includes(name))
  expect(statements.map(({ name }) => name).sort()).toEqual([...BY_KEY].sort())
  const wrong: string[] = []
  for (const { name, text } of statements) {
    const visit = (node: PlanNode): void => {
      const { 'Relation Name': table, 'Index Cond': condition = '' } = node
      const isWhole = condition === '' || /^\(domain_id = [^()]*\)$/.test(condition)
      const isOfDomains = table === 'domains' || (table === 'domain_quotas' && condition !== '')
      if (/Scan/.test(node['Node Type']) && table !== undefined && !isOfDomains && isWhole)
        wrong.push(`${name}: ${table} ${condition}`)
      node.Plans?.forEach(visit)
    }
    const [plan = '[]'] = await select(`explain (generic_plan, format json) ${text}`)
    visit(JSON.parse(plan)[0].Plan)
  }
  expect(wrong).toEqual([])
})
