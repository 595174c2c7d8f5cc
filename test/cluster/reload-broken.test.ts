/** A reload that something comes between: another one, the end of the node, the death of a worker. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { Knocker } from '../support/knocker.ts'
import { NodeProcess } from '../support/node-process.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import { addUser, openTestDatabase, type TestDatabase } from '../support/postgres.ts'
import { servingUrl } from '../support/postgres-setup.ts'
import { isRunning } from '../support/processes.ts'

const USER = 'bob@reload.test'
const PASSWORD = 'a password for broken reloads'

let database: TestDatabase
let place: string
let node: NodeProcess

beforeEach(async () => {
  database = await openTestDatabase()
  place = mkdtempSync(join(tmpdir(), 'popgres-reload-'))
  await addUser(database.db, USER, { password: PASSWORD })
})

afterEach(async () => {
  await node.destroy()
  await database.close()
  rmSync(place, { recursive: true })
})

function name(hostname: string): void {
  writeFileSync(join(place, '.env'), `POPGRES_HOSTNAME=${hostname}\n`)
}

function start(env: Record<string, string> = {}): NodeProcess {
  name('first.example')
  node = new NodeProcess({ cwd: place, env: { DATABASE_URL: servingUrl(database.url), ...env } })
  return node
}

/** @returns from where on the log tells of it */
function reload(): number {
  const from = node.records.length
  process.kill(node.pid, 'SIGHUP')
  return from
}

/** Names that eight new clients are told. */
async function namesAt(address: string): Promise<string[]> {
  const knocker = new Knocker()
  knocker.knockAt(address, 2)
  await knocker.more(8)
  const { failures, farewells } = await knocker.stop()
  expect(failures).toEqual([])
  return farewells.flatMap((line) => /[a-z]+\.example/.exec(line)?.[0] ?? [])
}

test('a SIGHUP during a reload: what counts is what was there at the last', async () => {
  start()
  const { pop3 } = await node.addresses()
  const bob = await Pop3Client.login(pop3, USER, PASSWORD)
  name('second.example')
  const from = reload()
  await node.record('a worker serves', from)
  name('third.example')
  process.kill(node.pid, 'SIGHUP')
  expect(await bob.ask('QUIT')).toMatch(/^\+OK/)
  await node.record('reloaded', from)
  expect(await namesAt(pop3)).toEqual(['third.example'])
  const rounds = node.records.filter(({ msg }) => msg.startsWith('reloading'))
  expect(rounds).toHaveLength(2)
  expect(await node.crew(2)).toHaveLength(2)
})

test('SIGTERM during a reload ends both the old worker and the new one', async () => {
  start({ POPGRES_WORKERS: '1' })
  const { pop3 } = await node.addresses()
  const [before = 0] = await node.crew(1)
  const bob = await Pop3Client.login(pop3, USER, PASSWORD)
  const { worker: after } = await node.record('a worker serves', reload())
  expect([before, Number(after)].map(isRunning)).toEqual([true, true])
  const ended = node.stop()
  expect(await bob.line()).toMatch(/^-ERR \[SYS\/TEMP\]/)
  bob.socket.end()
  expect(await ended).toEqual({ status: 0, signal: null })
  expect([before, Number(after)].map(isRunning)).toEqual([false, false])
  expect(await database.db.kysely.selectFrom('nodes').selectAll().execute()).toEqual([])
})

test('SIGTERM while a new worker starts', async () => {
  start({ POPGRES_WORKERS: '1' })
  await node.addresses()
  await node.record(/^reloading/, reload())
  expect(await node.stop()).toEqual({ status: 0, signal: null })
  expect(node.records.filter(({ level }) => level === 'error')).toEqual([])
})

test('the new worker dies while the old one drains: another comes, with the new settings', async () => {
  start({ POPGRES_WORKERS: '1' })
  const { pop3 } = await node.addresses()
  const bob = await Pop3Client.login(pop3, USER, PASSWORD)
  name('second.example')
  const from = reload()
  const { worker } = await node.record('a worker serves', from)
  const then = node.records.length
  process.kill(Number(worker), 'SIGKILL')
  await node.record(/^a worker has ended: starting another/, then)
  await node.record('a worker serves', then)
  expect(await bob.ask('QUIT')).toMatch(/^\+OK/)
  await node.record('reloaded', from)
  expect(await node.crew(1)).toHaveLength(1)
})

test('the old worker dies while the new one starts: nobody else is started for it', async () => {
  start()
  const { pop3 } = await node.addresses()
  const crew = await node.crew(2)
  name('second.example')
  const from = reload()
  await node.record(/^reloading/, from)
  // The one that was forked first is the first to be replaced.
  process.kill(Math.min(...crew), 'SIGKILL')
  const { msg } = await node.record(/^a worker has ended/, from)
  await node.record('reloaded', from)
  expect(msg).toBe('a worker has ended: its successor comes')
  expect(await namesAt(pop3)).toEqual(['second.example'])
  expect(await node.crew(2)).toHaveLength(2)
})

test('a SIGHUP to the whole process group, as to the supervisor alone', async () => {
  start()
  const { pop3 } = await node.addresses()
  name('second.example')
  const from = node.records.length
  process.kill(-node.pid, 'SIGHUP')
  await node.record('reloaded', from)
  expect(await namesAt(pop3)).toEqual(['second.example'])
})
