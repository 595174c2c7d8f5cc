import { randomUUID } from 'node:crypto'
import { sql } from 'kysely'
import { afterAll, beforeEach, expect, test } from 'vitest'
import { selectLoginAccount } from '../../../src/storage/accounts.ts'
import type { Lease } from '../../../src/storage/leases.ts'
import {
  deleteNode,
  deleteNodeSessions,
  renewNode,
  selectDeadNodes,
  selectNodeSessions,
  sweepNodes,
} from '../../../src/storage/nodes.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { acquire, addNode } from './fixtures.ts'

let database: TestDatabase | undefined

beforeEach(async () => {
  await database?.close()
  database = await openTestDatabase()
})

afterAll(() => database?.close())

const open = () => {
  if (database === undefined) throw new Error('no database')
  return database.db
}

/** The database's clock decides, so the test moves the row. */
async function setHeartbeatBack(nodeId: string, seconds: number): Promise<void> {
  await sql`update nodes set heartbeat_at = heartbeat_at - make_interval(secs => ${seconds})
    where node_id = ${nodeId}`.execute(open().kysely)
}

async function sessionNodes(): Promise<string[]> {
  const rows = await open().kysely.selectFrom('sessions').select('node_id').execute()
  return rows.map((row) => row.node_id)
}

test('a node is renewed until 30 s have passed, then never', async () => {
  const db = open()
  const nodeId = await addNode(db)
  await setHeartbeatBack(nodeId, 25)
  expect(await selectDeadNodes(db)).toEqual([])
  expect(await renewNode(db, nodeId)).toBe(true)
  await setHeartbeatBack(nodeId, 30)
  expect(await selectDeadNodes(db)).toEqual([nodeId])
  expect(await renewNode(db, nodeId)).toBe(false)
  expect(await renewNode(db, randomUUID())).toBe(false)
})

test('a node that ends takes its leases along, and only its own', async () => {
  const db = open()
  const [ending, staying] = [await addNode(db), await addNode(db)]
  await addUser(db, 'ada@nodes.test')
  await addUser(db, 'bob@nodes.test')
  await acquire(db, 'ada@nodes.test', ending)
  await acquire(db, 'bob@nodes.test', staying)
  await deleteNode(db, ending)
  expect(await sessionNodes()).toEqual([staying])
  expect(await renewNode(db, ending)).toBe(false)
  expect(await renewNode(db, staying)).toBe(true)
})

test('the sweep frees leases of dead and of long unknown nodes, and no others', async () => {
  const db = open()
  const [living, dead, unknown, removed] = [
    await addNode(db),
    await addNode(db),
    randomUUID(),
    randomUUID(),
  ]
  for (const [name, nodeId] of Object.entries({ living, dead, unknown, removed })) {
    await addUser(db, `${name}@sweep.test`)
    await acquire(db, `${name}@sweep.test`, nodeId)
  }
  await sql`update sessions set since = since - interval '61 s' where node_id = ${removed}`.execute(
    db.kysely,
  )
  await setHeartbeatBack(dead, 31)
  await sweepNodes(db)
  expect((await sessionNodes()).sort()).toEqual([living, unknown].sort())
  const nodes = await db.kysely.selectFrom('nodes').select('node_id').execute()
  expect(nodes.map((node) => node.node_id)).toEqual([living])
})

test('reconciling sees suspension, changed credentials and removed users', async () => {
  const db = open()
  const nodeId = await addNode(db)
  const sessions: Lease[] = []
  for (const name of ['same', 'suspended', 'removed']) {
    await addUser(db, `${name}@reconcile.test`)
    sessions.push((await acquire(db, `${name}@reconcile.test`, nodeId)).lease)
  }
  await acquire(db, 'same@reconcile.test', await addNode(db)) // in use: makes no row
  await db.kysely
    .updateTable('users')
    .set({ suspended: true })
    .where('local_part', '=', 'suspended')
    .execute()
  await db.kysely.deleteFrom('users').where('local_part', '=', 'removed').execute()
  const sessionIds = sessions.map(({ sessionId }) => sessionId)
  const account = await selectLoginAccount(db, 'reconcile.test', 'same')
  const select = async () => (await selectNodeSessions(db, nodeId, [])).sessions
  const found = new Map((await select()).map((row) => [row.sessionId, row]))
  expect([...found.keys()].sort()).toEqual(sessionIds.slice(0, 2).sort())
  expect(found.get(sessionIds[0] ?? '')).toMatchObject({
    isBarred: false,
    isWanted: false,
    fingerprint: account?.fingerprint,
  })
  expect(found.get(sessionIds[1] ?? '')).toMatchObject({ isBarred: true })
  await db.kysely.updateTable('domains').set({ suspended: true }).execute()
  expect((await select()).every((row) => row.isBarred)).toBe(true)
  expect(await deleteNodeSessions(db, nodeId, [])).toBe(0)
  expect(await deleteNodeSessions(db, randomUUID(), sessions)).toBe(0)
  expect(await deleteNodeSessions(db, nodeId, sessions)).toBe(3)
})
