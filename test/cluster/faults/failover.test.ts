/**
 * PostgreSQL dies (kill -9), and its synchronous standby takes over while sessions are open. What
 * was acknowledged is there; leases are not (their table is unlogged), and a session from before
 * deletes nothing any more; a QUIT whose answer was lost with the primary is resolved.
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { LineClient } from '../../support/line-client.ts'
import { readStored } from '../../support/lmtp.ts'
import { loginSoon } from '../../support/login-soon.ts'
import { openTestConnection } from '../../support/postgres.ts'
import { servingUrl } from '../../support/postgres-setup.ts'
import { promote, separate, startStandby } from '../../torture/faults/means/standby.ts'
import { StatementLoss } from '../../torture/faults/means/statement-loss.ts'
import { until } from '../../torture/faults/means/until.ts'
import { makePostgres, PARAMETERS, type PostgresServer } from '../../torture/postgres.ts'
import {
  addOwner,
  beginDelivery,
  deliver,
  endDelivery,
  logIn,
  type NodeBehindProxy,
  type NodeChanges,
  type Owner,
  PASSWORD,
  startBehindProxy,
  uidsIn,
} from './node-behind-proxy.ts'

const SENDERS = 3
const BEFORE = 30
const AFTER = 10

/** Committed on the primary and not acknowledged; a QUIT may also stand behind such a heartbeat. */
const WAITING_FOR_STANDBY = `select from pg_stat_activity
  where wait_event = 'SyncRep' and query ~ '^(with (held|locked) as|update nodes)'`

let directory: string
let primary: PostgresServer
let standby: PostgresServer
let database: { db: ReturnType<typeof openTestConnection> }
let nodes: NodeBehindProxy[]

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'popgres-failover-'))
  chmodSync(directory, 0o755)
  nodes = []
  primary = await makePostgres(join(directory, 'primary'), PARAMETERS)
  standby = await startStandby(primary, join(directory, 'standby'))
  database = { db: openTestConnection(primary.url) }
})

afterEach(async () => {
  for (const { stop } of nodes) await stop()
  await database.db.close()
  await primary.stop()
  await standby.stop()
  rmSync(directory, { recursive: true, force: true, maxRetries: 3 })
})

async function startNode(changes?: NodeChanges): Promise<NodeBehindProxy> {
  const behind = await startBehindProxy(primary.url, changes)
  nodes.push(behind)
  return behind
}

/** As whoever watches over PostgreSQL does it: first the old one is surely dead. */
async function failOver(): Promise<void> {
  await primary.kill()
  await promote(standby)
  for (const { proxy } of nodes) {
    proxy.targetPort = standby.port
    proxy.heal()
  }
  await database.db.close()
  database.db = openTestConnection(standby.url)
}

/** Senders that go on whatever they are answered; each message has a number of its own. */
class Senders {
  readonly acknowledged = new Set<number>()
  readonly #ended: Promise<unknown>
  #count = 0
  #isOver = false
  #wake = (): void => {}

  constructor(addresses: readonly string[], owner: Owner) {
    const send = async (address: string): Promise<void> => {
      while (!this.#isOver) {
        const number = ++this.#count
        const reply = await deliver(address, owner, `number ${number}`)
        expect(reply).toMatch(/^(250|451) /)
        if (!reply.startsWith('250')) continue
        this.acknowledged.add(number)
        this.#wake()
      }
    }
    const all = addresses.flatMap((address) => Array(SENDERS).fill(address) as string[])
    this.#ended = Promise.all(all.map(send))
    this.#ended.catch(() => this.#wake())
  }

  /** That many more were acknowledged. */
  async until(more: number): Promise<void> {
    const enough = this.acknowledged.size + more
    while (this.acknowledged.size < enough)
      await Promise.race([this.#ended, new Promise<void>((wake) => (this.#wake = wake))])
  }

  async stop(): Promise<void> {
    this.#isOver = true
    await this.#ended
  }
}

async function numbersStored(owner: Owner): Promise<number[]> {
  const copies = await readStored(database.db, owner)
  return copies.map(({ body }) => Number(/^number (\d+)\r$/m.exec(body.toString())?.[1]))
}

const bothHosts = (): NodeChanges => {
  const url = servingUrl(primary.url)
  const hosts = `127.0.0.1:${primary.port},127.0.0.1:${standby.port}`
  return { env: { DATABASE_URL: url.replace(`127.0.0.1:${primary.port}`, hosts) } }
}

test.each([
  ['which nodes reach at one address', () => undefined],
  ['which is the second host in DATABASE_URL', bothHosts],
])(
  'failover to a standby %s: what was acknowledged is there, older sessions are fenced',
  async (_, changes) => {
    const alice = await addOwner(database, 'alice@failover.test', 2)
    const bob = await addOwner(database, 'bob@failover.test', 2)
    const carol = await addOwner(database, 'carol@failover.test', 0)
    const [one, two] = await Promise.all([startNode(changes()), startNode(changes())])
    const senders = new Senders([one.lmtp, two.lmtp], carol)
    const older = await logIn(one.pop3, alice)
    await older.ask('DELE 1')
    const acknowledged = await logIn(two.pop3, bob)
    await acknowledged.ask('DELE 1')
    expect(await acknowledged.ask('QUIT')).toMatch(/^\+OK/)
    await senders.until(BEFORE)

    await failOver()
    const younger = await loginSoon(two.pop3, alice.name, PASSWORD)
    older.send('QUIT\r\n')
    expect((await older.closed).toString()).toMatch(/^-ERR \[SYS\/TEMP\] [^\r]*\r\n$/)
    expect(await uidsIn(database, 'trash', alice)).toEqual([])
    expect(await younger.ask('STAT')).toMatch(/^\+OK 2 /)
    await younger.ask('DELE 1')
    expect(await younger.ask('QUIT')).toMatch(/^\+OK/)
    await senders.until(AFTER)
    await senders.stop()

    for (const user of [alice, bob]) {
      expect(await uidsIn(database, 'messages', user)).toEqual([2])
      expect(await uidsIn(database, 'trash', user)).toEqual([1])
    }
    const stored = await numbersStored(carol)
    expect(new Set(stored).size).toBe(stored.length)
    expect([...senders.acknowledged].filter((number) => !stored.includes(number))).toEqual([])
    const session = await loginSoon(one.pop3, carol.name, PASSWORD)
    expect(await session.ask('STAT')).toMatch(`+OK ${stored.length} `)
    await session.ask('QUIT')
  },
)

test('QUIT is on the standby, and its answer died with the primary: +OK', async () => {
  const alice = await addOwner(database, 'alice@failover.test', 2)
  const { pop3, proxy } = await startNode()
  const loss = new StatementLoss(proxy)
  const session = await logIn(pop3, alice)
  await session.ask('DELE 1')
  const lost = loss.next('lease-quit', 'after', () => proxy.cut(true))
  const answer = session.ask('QUIT')
  await lost
  await failOver()
  expect(await answer).toMatch(/^\+OK/)
  expect(await uidsIn(database, 'messages', alice)).toEqual([2])
})

test('QUIT and a delivery that the standby never saw: -ERR and 451, and so it is', async () => {
  const alice = await addOwner(database, 'alice@failover.test', 2)
  const bob = await addOwner(database, 'bob@failover.test', 1)
  const { pop3, lmtp } = await startNode()
  const session = await logIn(pop3, alice)
  await session.ask('DELE 1')
  const sender = await LineClient.connect(lmtp)
  expect(await beginDelivery(sender, bob)).toMatch(/^354 /)
  await separate(primary, standby)
  const answers = Promise.all([session.ask('QUIT'), endDelivery(sender, 'hello')])
  await until('both are committed, and not acknowledged', async () => {
    return (await primary.query(WAITING_FOR_STANDBY)).length === 2
  })
  await failOver()
  const [toQuit, toDelivery] = await answers
  sender.end()
  expect(toQuit).toMatch(/^-ERR \[SYS\/TEMP\]/)
  expect(toDelivery).toMatch(/^451 /)
  expect(await uidsIn(database, 'messages', alice)).toEqual([1, 2])
  expect(await uidsIn(database, 'messages', bob)).toEqual([1])
})
