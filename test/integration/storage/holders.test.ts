/**
 * One of several servers is away: those whose domains it holds are told to come again, the sessions
 * that they have go on, and everybody else is served. What Citus answers is answered here by one
 * PostgreSQL (away-domains.ts); what was tried with Citus itself is in docs/scaling.md.
 */
import { sql } from 'kysely'
import { pino } from 'pino'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { addAlias } from '../../../src/admin/operations/aliases.ts'
import { Background } from '../../../src/cluster/background.ts'
import { sweepLastLogins } from '../../../src/storage/leases.ts'
import { deleteNode, selectNodeSessions, sweepNodes } from '../../../src/storage/nodes.ts'
import type { Database } from '../../../src/storage/postgres/database.ts'
import { selectRecipients } from '../../../src/storage/tenants/recipients.ts'
import { sweepThrottles } from '../../../src/storage/throttles.ts'
import { type AwayDomains, prepareAwayDomains } from '../../support/away-domains.ts'
import { putMessage } from '../../support/mail.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { acquire, addNode, type User } from './fixtures.ts'

const PASSWORD = 'Right-Horse-77'
const TEXT = 'Subject: one\r\n\r\n'

let database: TestDatabase
let node: TestNode
let db: Database
let domains: AwayDomains
let here: User
let away: User

beforeAll(async () => {
  database = await openTestDatabase()
  domains = await prepareAwayDomains(database.db)
  here = await addUser(database.db, 'ada@here.test', { password: PASSWORD })
  away = await addUser(database.db, 'ada@away.test', { password: PASSWORD })
  node = await startTestNode({ url: database.url })
  db = node.db
})
afterAll(async () => {
  await node.stop()
  await database.close()
})

afterEach(() => domains.bringBack(away.domainId))

const logIn = (address: string) => Pop3Client.login(node.address, address, PASSWORD)

async function tryPassword(address: string): Promise<string> {
  const client = await Pop3Client.connect(node.address)
  await client.line()
  await client.ask(`USER ${address}`)
  const reply = await client.ask(`PASS ${PASSWORD}`)
  await client.ask('QUIT')
  await client.closed
  return reply
}

async function leaseNodes(): Promise<string[]> {
  const rows = await database.db.kysely.selectFrom('sessions').select('node_id').execute()
  return rows.map((row) => row.node_id).sort()
}

test('sessions stay and are told to come again, and others notice nothing', async () => {
  for (const { domainId, userId } of [here, away])
    await putMessage(database.db, domainId, [userId], TEXT)
  const [mine, theirs] = [await logIn('ada@here.test'), await logIn('ada@away.test')]
  await domains.take(away.domainId)
  await node.keeper.beat()
  expect(node.keeper.isInTouch()).toBe(true)
  expect(await theirs.ask('STAT')).toMatch(/^\+OK 1 /)
  expect(await theirs.ask('RETR 1')).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect((await mine.retrieve('RETR 1')).toString()).toContain('Subject: one')
  expect(await mine.ask('DELE 1')).toMatch(/^\+OK/)
  expect(await mine.ask('QUIT')).toMatch(/^\+OK/)
  await mine.closed
  expect(await tryPassword('ada@away.test')).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect(await tryPassword('ada@here.test')).toMatch(/^\+OK/)

  await domains.bringBack(away.domainId)
  await node.keeper.beat()
  expect((await theirs.retrieve('RETR 1')).toString()).toContain('Subject: one')
  expect(await theirs.ask('DELE 1')).toMatch(/^\+OK/)
  expect(await theirs.ask('QUIT')).toMatch(/^\+OK/)
  await theirs.closed
})

test('mail is taken for whom it can be taken, whatever else an address may lead to', async () => {
  const { kysely } = database.db
  await addAlias(database.db, 'team@here.test', ['ada@here.test'])
  await addAlias(database.db, 'both@here.test', ['ada@here.test', 'ada@away.test'])
  await addAlias(database.db, '@here.test', ['ada@away.test'])
  await kysely.updateTable('domains').set({ separator: '+' }).execute()
  const userIds = async (address: string) => {
    const [localPart = '', domainName = ''] = address.split('@')
    const found = await selectRecipients(db, domainName, localPart)
    return found.map(({ userId }) => userId)
  }
  await domains.take(away.domainId)
  for (const address of ['ada@here.test', 'team@here.test', 'ada+tag@here.test'])
    expect(await userIds(address)).toEqual([here.userId])
  expect(await userIds('ada@nowhere.test')).toEqual([])
  for (const address of ['ada@away.test', 'both@here.test', 'anybody@here.test'])
    await expect(userIds(address), address).rejects.toMatchObject({ code: 'STORAGE_IN_DOUBT' })
  await domains.bringBack(away.domainId)
  expect(await userIds('both@here.test')).toEqual([here.userId, away.userId])
  expect(await userIds('anybody@here.test')).toEqual([away.userId])
  await kysely.deleteFrom('aliases').execute()
})

test('a session that was kicked is ended, whatever else is away', async () => {
  const [mine, theirs] = [await logIn('ada@here.test'), await logIn('ada@away.test')]
  await domains.take(away.domainId)
  const { kysely } = database.db
  await kysely.deleteFrom('sessions').where('domain_id', '=', here.domainId).execute()
  await node.keeper.beat()
  await mine.closed
  expect(await theirs.ask('NOOP')).toMatch(/^\+OK/)
  await kysely.deleteFrom('sessions').where('domain_id', '=', away.domainId).execute()
  await domains.bringBack(away.domainId)
  await node.keeper.beat()
  await theirs.closed
})

test('leases that no session knows of are deleted where they can be', async () => {
  const mine = await logIn('ada@here.test')
  await addUser(database.db, 'bob@here.test')
  const { lease } = await acquire(database.db, 'bob@here.test', node.keeper.nodeId)
  await acquire(database.db, 'ada@away.test', node.keeper.nodeId)
  await domains.take(away.domainId)
  await node.keeper.beat()
  const { sessions, away: unknown } = await selectNodeSessions(db, node.keeper.nodeId, [
    here.domainId,
    away.domainId,
  ])
  expect(sessions.map(({ sessionId }) => sessionId)).not.toContain(lease.sessionId)
  expect(sessions).toHaveLength(1)
  expect([...unknown]).toEqual([away.domainId])
  await domains.bringBack(away.domainId)
  await node.keeper.beat()
  expect(await leaseNodes()).toEqual([node.keeper.nodeId])
  await mine.ask('QUIT')
  await mine.closed
})

test('sweeps free what they reach, and a dead node stays until all of it is free', async () => {
  const [dead, ending] = [await addNode(db), await addNode(db)]
  await addUser(database.db, 'bob@away.test')
  await addUser(database.db, 'eve@here.test')
  await acquire(database.db, 'ada@here.test', dead)
  await acquire(database.db, 'ada@away.test', dead)
  await acquire(database.db, 'eve@here.test', ending)
  await acquire(database.db, 'bob@away.test', ending)
  await sql`update nodes set heartbeat_at = now() - interval '31 s'
    where node_id = ${dead}`.execute(database.db.kysely)
  await domains.take(away.domainId)
  await sweepNodes(db)
  await deleteNode(db, ending)
  await sweepThrottles(db)
  await sweepLastLogins(db)
  expect(await leaseNodes()).toEqual([dead, ending].sort())
  const nodes = () => database.db.kysely.selectFrom('nodes').select('node_id').execute()
  expect((await nodes()).map((row) => row.node_id)).toEqual(expect.arrayContaining([dead, ending]))

  await domains.bringBack(away.domainId)
  await sweepNodes(db)
  await deleteNode(db, ending)
  expect(await leaseNodes()).toEqual([])
  expect((await nodes()).map((row) => row.node_id)).toEqual([node.keeper.nodeId])
})

const NEVER = 1_000_000
/** Retention all the time, and nothing else. */
const TIMES = {
  leaseMs: 30_000,
  renewMs: 1_000,
  nodesMs: NEVER,
  loginsMs: NEVER,
  retentionMs: 20,
  expiryMs: NEVER,
  sessionLogMs: NEVER,
}

test('trash is emptied in the domains that can be reached, and later in the others', async () => {
  const owner = database.db.kysely
  for (const { domainId, userId } of [here, away])
    await putMessage(database.db, domainId, [userId], TEXT)
  await sql`with gone as (delete from messages returning *)
    insert into trash (domain_id, user_id, uid, octets, body_id, received_at, session_id, deleted_at)
    select domain_id, user_id, uid + 1000, octets, body_id, received_at, gen_random_uuid(),
      now() - interval '10 days' from gone`.execute(owner)
  const trash = async () => {
    const rows = await owner.selectFrom('trash').select('domain_id').distinct().execute()
    return rows.map((row) => row.domain_id)
  }
  const lines: string[] = []
  const log = pino({ level: 'warn' }, { write: (line: string) => void lines.push(line) })
  await owner.deleteFrom('trash').where('uid', '<', 1000).execute()
  await domains.take(away.domainId)
  const background = new Background(db, log, () => 12, TIMES)
  background.start()
  try {
    await expect.poll(trash, { timeout: 10_000 }).toEqual([away.domainId])
    await expect.poll(() => lines.length, { timeout: 10_000 }).toBeGreaterThan(0)
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({ job: 'retention', domains: 1 })
    await domains.bringBack(away.domainId)
    await expect.poll(trash, { timeout: 10_000 }).toEqual([])
  } finally {
    await background.stop()
  }
})
