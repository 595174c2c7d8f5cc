/**
 * PostgreSQL's disk is full: where its tables lie, or where its log does (then it panics and ends).
 * Deliveries are told 451, sessions read on or are told [SYS/TEMP], nothing that was acknowledged
 * is lost, and when there is room again all is well.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { readStored } from '../../support/lmtp.ts'
import { loginSoon } from '../../support/login-soon.ts'
import { openTestConnection } from '../../support/postgres.ts'
import { SmallDisk, whyNoSmallDisk } from '../../torture/faults/means/small-disk.ts'
import { until } from '../../torture/faults/means/until.ts'
import { makePostgres, PARAMETERS, PostgresServer } from '../../torture/postgres.ts'
import {
  addOwner,
  deliver,
  logIn,
  type NodeBehindProxy,
  PASSWORD,
  replyToLogin,
  startBehindProxy,
  uidsIn,
} from './node-behind-proxy.ts'

const whyNot = whyNoSmallDisk()
/** Of a delivery: a few of them are more than what free pages still take. */
const TEXT_OCTETS = 60_000
const DELIVERIES_MAX = 2_000

let directory: string
let disk: SmallDisk | undefined
let postgres: PostgresServer
let database: { db: ReturnType<typeof openTestConnection> }
let behind: NodeBehindProxy | undefined

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'popgres-disk-'))
  chmodSync(directory, 0o755)
})

afterEach(async () => {
  disk?.empty()
  await behind?.stop()
  await database?.db.close()
  await postgres?.stop()
  disk?.remove()
  behind = undefined
  disk = undefined
  rmSync(directory, { recursive: true, force: true, maxRetries: 3 })
})

/** Either the tables or the log lie on the small disk, and the other on the large one. */
async function startOnSmallDisk(what: 'tables' | 'log'): Promise<SmallDisk> {
  const large = join(directory, 'large')
  mkdirSync(large)
  const made = await makePostgres(join(large, 'home'), PARAMETERS)
  await made.stop()
  disk = new SmallDisk(join(directory, 'small'))
  const [tables, log] = what === 'tables' ? [disk.directory, large] : [large, disk.directory]
  move(join(made.pgData, 'pg_wal'), join(log, 'pg_wal'))
  symlinkSync(join(log, 'pg_wal'), join(made.pgData, 'pg_wal'))
  const home = join(tables, 'moved')
  mkdirSync(home)
  move(made.pgData, join(home, 'postgres'))
  // Less room before the next segment has to be made.
  postgres = new PostgresServer(home, made.url, [...PARAMETERS, 'min_wal_size=32MB'])
  await postgres.start()
  database = { db: openTestConnection(postgres.url) }
  behind = await startBehindProxy(postgres.url)
  return disk
}

/** To another file system, as it is. */
function move(from: string, to: string): void {
  const { status, stderr } = spawnSync('mv', [from, to], { encoding: 'utf8' })
  if (status !== 0) throw new Error(stderr)
}

const text = (number: number): string => `${number} ${'lorem ipsum '.repeat(TEXT_OCTETS / 12)}`

test.skipIf(whyNot !== undefined).each(['tables', 'log'] as const)(
  `no room for the %s${whyNot ? ` (skipped: ${whyNot})` : ''}: 451, no lie, and all is well afterwards`,
  async (what) => {
    const small = await startOnSmallDisk(what)
    const { node, pop3, lmtp } = behind as NodeBehindProxy
    const alice = await addOwner(database, 'alice@disk.test', 3)
    const bob = await addOwner(database, 'bob@disk.test', 0)
    const session = await logIn(pop3, alice)
    const before = await session.retrieve('RETR 2')
    await session.ask('DELE 1')

    small.fill()
    const acknowledged: number[] = []
    let reply = ''
    for (let number = 1; number <= DELIVERIES_MAX; number++) {
      reply = await deliver(lmtp, bob, text(number))
      if (!reply.startsWith('250')) break
      acknowledged.push(number)
    }
    expect(reply).toMatch(/^45[12] 4\.3\./)
    // Once more: the refusal was no accident, and nothing broke by it.
    expect(await deliver(lmtp, bob, text(0))).toMatch(/^45[12] 4\.3\./)
    expect(await session.ask('STAT')).toMatch(/^\+OK 2 /)
    const read = await session.retrieve('RETR 2').catch(String)
    if (typeof read === 'string') expect(read).toContain('-ERR [SYS/TEMP]')
    else expect(read).toEqual(before)
    expect(await replyToLogin(pop3, bob)).toMatch(/^(\+OK|-ERR \[SYS\/TEMP\]|-ERR \[IN-USE\])/)
    const answer = await session.ask('QUIT')
    expect(answer).toMatch(/^(\+OK|-ERR \[SYS\/TEMP\])/)

    small.empty()
    await until('deliveries are taken again', async () => {
      // Its service would do that; without room it did not come up again by itself.
      if (postgres.pid === 0) await postgres.start()
      return (await deliver(lmtp, bob, text(0))).startsWith('250')
    })
    const deleted = answer.startsWith('+OK') ? [1] : []
    expect(await uidsIn(database, 'trash', alice)).toEqual(deleted)
    const stored = await readStored(database.db, bob)
    const numbers = stored.map(({ body }) => Number(/^Subject: (\d+) /.exec(body.toString())?.[1]))
    expect(acknowledged.filter((number) => !numbers.includes(number))).toEqual([])
    const again = await loginSoon(pop3, bob.name, PASSWORD)
    expect(await again.ask('STAT')).toMatch(`+OK ${stored.length} `)
    await again.ask('QUIT')
    expect(node.records.map(({ msg }) => msg)).not.toContain('a worker has ended: starting another')
  },
)
