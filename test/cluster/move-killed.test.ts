/**
 * kill -9 amid the move of a user whose domain migrates (src/mail/moving): the next login of that
 * user, wherever it arrives, ends the move; no message is lost or there twice, and the password is the
 * one that the old server took.
 */
import { randomUUID } from 'node:crypto'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { upsertOldServer } from '../../src/storage/tenants/old-servers.ts'
import { Holder, waitingFor } from '../integration/storage/fixtures.ts'
import { loginSoon } from '../support/login-soon.ts'
import { NodeProcess } from '../support/node-process.ts'
import {
  gateAt,
  type OldServerOptions,
  OldServerStub,
  type OldUser,
} from '../support/old-server.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import { addDomain, addUser, openTestDatabase, type TestDatabase } from '../support/postgres.ts'
import { servingUrl } from '../support/postgres-setup.ts'

const PASSWORD = 'Old-Horse-77'
const MESSAGES = 6

const OLD: OldUser = {
  password: PASSWORD,
  messages: Array.from({ length: MESSAGES }, (_, at) => ({
    uniqueId: `0000000${at}abc`,
    // Two of them alike: they are two all the same.
    text: `Subject: old ${at % 5}\r\n\r\nText of old ${at % 5}\r\n.dot\r\n`,
  })),
}

let database: TestDatabase
let nodes: NodeProcess[]
let closers: (() => Promise<void>)[]

beforeEach(async () => {
  database = await openTestDatabase()
  nodes = []
  closers = []
})

afterEach(async () => {
  for (const node of nodes) await node.destroy()
  for (const close of closers) await close()
  await database.close()
})

interface Setting {
  user: string
  old: OldServerStub
  domainId: number
}

async function migrate(reply: OldServerOptions['reply']): Promise<Setting> {
  const domain = `${randomUUID()}.test`
  const domainId = await addDomain(database.db, domain)
  const user = `alice@${domain}`
  // Pipelined commands would be noted before they are answered.
  const old = await OldServerStub.start({
    ...{ users: { [user]: OLD }, capabilities: ['USER', 'UIDL'] },
    ...(reply === undefined ? {} : { reply }),
  })
  closers.push(() => old.stop())
  await upsertOldServer(database.db, domainId, {
    ...{ host: '127.0.0.1', port: old.port, security: 'none', authority: undefined },
    ...{ userFormat: 'full', makesUsers: true, connectionsMax: 20 },
  })
  return { user, old, domainId }
}

function start(): NodeProcess {
  const node = new NodeProcess({ env: { DATABASE_URL: servingUrl(database.url) } })
  nodes.push(node)
  return node
}

/** The process that holds the maildrop. */
async function moverOf(domainId: number): Promise<number> {
  const row = await database.db.kysely
    .selectFrom('sessions')
    .innerJoin('nodes', 'nodes.node_id', 'sessions.node_id')
    .where('sessions.domain_id', '=', domainId)
    .select('nodes.pid')
    .executeTakeFirstOrThrow()
  return row.pid
}

/** A first login that nobody will answer. */
async function begin(pop3: string, user: string): Promise<Pop3Client> {
  const client = await Pop3Client.connect(pop3)
  await client.line()
  await client.ask(`USER ${user}`)
  client.send(`PASS ${PASSWORD}\r\n`)
  return client
}

async function killMover(node: NodeProcess, domainId: number, client: Pop3Client): Promise<void> {
  const from = node.records.length
  process.kill(await moverOf(domainId), 'SIGKILL')
  expect((await client.closed).toString()).not.toContain('+OK')
  await node.record(/leases of a worker that ended are free/, from)
}

/** All of it once, in its order, octet by octet. */
async function expectWhole(client: Pop3Client): Promise<void> {
  const { raw } = await client.askMulti('UIDL')
  const expected = OLD.messages.map(({ uniqueId }, at) => `${at + 1} ${uniqueId}\r\n`)
  expect(raw.toString()).toBe(expected.join(''))
  for (const [at, { text }] of OLD.messages.entries())
    expect((await client.retrieve(`RETR ${at + 1}`)).toString()).toBe(text)
  expect(await client.ask('QUIT')).toMatch(/^\+OK/)
}

/** By both nodes, and nobody asks the old server any more. */
async function expectMoved({ user, old }: Setting): Promise<void> {
  const askedBefore = old.count('USER')
  for (const node of nodes) {
    const { pop3 } = await node.addresses()
    await expect(Pop3Client.login(pop3, user, 'wrong')).rejects.toThrow(/\[AUTH\]/)
    await expectWhole(await Pop3Client.login(pop3, user, PASSWORD))
  }
  expect(old.count('USER')).toBe(askedBefore)
}

test('in the middle of the mail: another node brings the rest and the password', async () => {
  const gate = gateAt(4)
  const setting = await migrate(gate.reply)
  const [first, second] = [start(), start()]
  const { pop3 } = await first.addresses()
  const client = await begin(pop3, setting.user)
  await gate.isReached
  await killMover(first, setting.domainId, client)
  gate.open()

  await expectWhole(await loginSoon((await second.addresses()).pop3, setting.user, PASSWORD))
  for (const at of OLD.messages.keys())
    expect(setting.old.count(`RETR ${at + 1}`), `RETR ${at + 1}`).toBe(at + 1 === 4 ? 2 : 1)
  await expectMoved(setting)
})

test('all mail is there and the password not yet: another worker fetches nothing again', async () => {
  const setting = await migrate(undefined)
  const { domainId, user, old } = setting
  await addUser(database.db, user)
  const node = start()
  const { pop3 } = await node.addresses()
  // Whoever wants to keep the password waits for this; mail comes in.
  const [lock, observer] = [await Holder.open(database.url), await Holder.open(database.url)]
  closers.push(
    () => lock.close(),
    () => observer.close(),
  )
  await lock.begin()
  await lock.query('select from users where domain_id = $1 for no key update', [domainId])
  const client = await begin(pop3, user)
  await waitingFor(observer, lock.pid)
  await killMover(node, domainId, client)
  await lock.commit()

  await expectWhole(await loginSoon(pop3, user, PASSWORD))
  expect(old.count('RETR')).toBe(MESSAGES)
  await expectMoved(setting)
})
