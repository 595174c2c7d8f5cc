/**
 * One hot maildrop while an old snapshot keeps every dead row: who only reads it does not walk
 * through them. Told by the pages that a scan looks at: they do not depend on load.
 */
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { OPEN } from '../../../src/storage/accounts.ts'
import { commitDeletes } from '../../../src/storage/leases.ts'
import { STATEMENT_OPTIONS } from '../../../src/storage/postgres/connection-settings.ts'
import type { Statement } from '../../../src/storage/postgres/database.ts'
import { RECIPIENT } from '../../../src/storage/tenants/recipients.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { acquire, addNode, deliverTo, Holder, type User } from './fixtures.ts'

const CYCLES = 800
/** An index may grow by a level; the dead versions fill dozens of pages. */
const MORE_PAGES_MAX = 6

const address = `ada@${randomUUID()}.test`
let database: TestDatabase
let user: User
let nodeId: string
let observer: Holder

beforeAll(async () => {
  database = await openTestDatabase()
  observer = await Holder.open(database.url)
  for (const setting of STATEMENT_OPTIONS.split(' -c '))
    await observer.query(`set ${setting.replace('-c ', '')}`)
  user = await addUser(database.db, address)
  await observer.query('update users set quota_octets = 1000000')
  nodeId = await addNode(database.db)
})
afterAll(async () => {
  await observer.close()
  await database.close()
})

async function cycle(): Promise<void> {
  const uid = await deliverTo(database.db, user, 'x')
  const { lease } = await acquire(database.db, address, nodeId)
  expect(await commitDeletes(database.db, lease, Int32Array.of(uid))).toBe('committed')
}

const TABLES = ['maildrops', 'messages']

interface PlanNode {
  'Node Type': string
  'Relation Name'?: string
  'Shared Hit Blocks': number
  'Shared Read Blocks': number
  Plans?: PlanNode[]
}

/** The most that one scan of these tables, or one function, looks at. What is carried out is undone. */
async function pagesOf(statement: Statement, values: unknown[]): Promise<number> {
  await observer.query('begin')
  const text = `explain (analyze, buffers, format json) ${statement.text}`
  const [row] = await observer.query(text, values)
  await observer.query('rollback')
  let most = 0
  const visit = (node: PlanNode): void => {
    if (node['Node Type'] === 'Function Scan' || TABLES.includes(node['Relation Name'] ?? ''))
      most = Math.max(most, node['Shared Hit Blocks'] + node['Shared Read Blocks'])
    node.Plans?.forEach(visit)
  }
  for (const { Plan } of (row?.['QUERY PLAN'] ?? []) as { Plan: PlanNode }[]) visit(Plan)
  return most
}

async function pages(): Promise<Record<string, number>> {
  const [localPart, domainName] = address.split('@')
  const { domainId, userId } = user
  const uid = await deliverTo(database.db, user, 'x')
  const { lease } = await acquire(database.db, address, nodeId)
  // A function is compiled at the first call.
  await observer.query(`select from recipients('${domainName}', '${localPart}')`)
  const counted = {
    recipient: await pagesOf(RECIPIENT, [domainName, localPart]),
    open: await pagesOf(OPEN, [domainId, userId, 'nowhere', []]),
  }
  await commitDeletes(database.db, lease, Int32Array.of(uid))
  return counted
}

test('what was deleted and counted before is not walked through again', async () => {
  const dump = await Holder.open(database.url)
  await dump.query('begin isolation level repeatable read')
  await dump.query('select from users')
  await cycle()
  const before = await pages()
  for (let number = 0; number < CYCLES; number++) await cycle()
  const after = await pages()
  await dump.close()
  console.log('pages', before, after)
  expect(Math.min(...Object.values(before))).toBeGreaterThan(0)
  for (const [name, count] of Object.entries(after))
    expect(count, name).toBeLessThanOrEqual((before[name] ?? 0) + MORE_PAGES_MAX)
}, 60_000)
