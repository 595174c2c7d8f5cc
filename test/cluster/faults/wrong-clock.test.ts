/**
 * While sessions are open one node's clock becomes an hour fast, another's an hour slow. Leases and
 * heartbeats know the database's clock and the monotonic one alone, and so do the times that are
 * stored.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sql } from 'kysely'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { findFakeTime, NodeClock } from '../../torture/faults/means/clock.ts'
import { until } from '../../torture/faults/means/until.ts'
import {
  addOwner,
  deliver,
  logIn,
  type NodeBehindProxy,
  type Owner,
  replyToLogin,
  startBehindProxy,
  uidsIn,
} from './node-behind-proxy.ts'

const HOUR_MS = 3_600_000
/** Two beats, and the sweep of neither node took the other for dead. */
const LATER = `select from nodes where heartbeat_at > started_at + interval '9 s'`

let directory: string
let database: TestDatabase
let nodes: NodeBehindProxy[]

beforeEach(async () => {
  database = await openTestDatabase()
  nodes = []
  directory = mkdtempSync(join(tmpdir(), 'popgres-clock-'))
})

afterEach(async () => {
  for (const { stop } of nodes) await stop()
  await database.close()
  rmSync(directory, { recursive: true })
})

async function start(name: string): Promise<NodeBehindProxy & { clock: NodeClock }> {
  const clock = new NodeClock(join(directory, name))
  const behind = await startBehindProxy(database.url, { env: clock.env })
  nodes.push(behind)
  return { ...behind, clock }
}

/** By what its log says of a login that is refused. */
async function untilWrong({ node, pop3 }: NodeBehindProxy, hours: number, open: Owner) {
  await until(`a clock is wrong by ${hours} hours`, async () => {
    const from = node.records.length
    expect(await replyToLogin(pop3, open)).toMatch(/^-ERR \[IN-USE\]/)
    const { time } = await node.record('login refused', from)
    const error = new Date(time as string | number).getTime() - Date.now()
    return Math.abs(error / HOUR_MS - hours) < 0.1
  })
}

test.skipIf(findFakeTime() === undefined)(
  'clocks that are an hour fast and an hour slow (skipped without libfaketime): leases hold, stored times are right',
  async () => {
    const alice = await addOwner(database, 'alice@clock.test', 1)
    const [fast, slow] = await Promise.all([start('fast'), start('slow')])
    const older = await logIn(fast.pop3, alice)
    const bob = await addOwner(database, 'bob@clock.test', 2)
    const other = await logIn(slow.pop3, bob)
    fast.clock.set(1)
    slow.clock.set(-1)
    await Promise.all([untilWrong(fast, 1, alice), untilWrong(slow, -1, bob)])
    expect(await deliver(fast.lmtp, alice, 'from the fast one')).toMatch(/^250 /)
    expect(await deliver(slow.lmtp, alice, 'from the slow one')).toMatch(/^250 /)
    await until('both nodes have renewed twice', async () => {
      return (await sql.raw(LATER).execute(database.db.kysely)).rows.length === 2
    })
    for (const { pop3 } of [fast, slow])
      for (const owner of [alice, bob]) await expect(logIn(pop3, owner)).rejects.toThrow('[IN-USE]')
    for (const [session, owner] of [[older, alice] as const, [other, bob] as const]) {
      expect(await session.ask('DELE 1')).toMatch(/^\+OK/)
      expect(await session.ask('QUIT')).toMatch(/^\+OK/)
      expect(await uidsIn(database, 'trash', owner)).toEqual([1])
    }
    const { rows } = await sql<{ seconds: number }>`
      select extract(epoch from now() - at)::float8 as seconds from (
        select received_at from messages union all select deleted_at from trash
        union all select ended_at from session_log union all select heartbeat_at from nodes
      ) t (at)`.execute(database.db.kysely)
    expect(rows.length).toBeGreaterThan(6)
    expect(rows.filter(({ seconds }) => Math.abs(seconds) > 60)).toEqual([])
    for (const { node } of [fast, slow])
      expect(node.records.map(({ msg }) => msg)).not.toContain(
        'this node was declared dead: its sessions end',
      )
  },
)
