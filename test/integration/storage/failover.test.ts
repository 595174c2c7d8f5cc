/**
 * DATABASE_URL with several hosts: a primary and its streaming replica, hosts that are away, hosts
 * that say of themselves what is not so (as a pooler does), and the moment when the replica takes over.
 */
import { once } from 'node:events'
import { createServer, type Server } from 'node:net'
import { inspect } from 'node:util'
import { sql } from 'kysely'
import { pino } from 'pino'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { Failure } from '../../../src/base/failure.ts'
import { Secret } from '../../../src/base/secret.ts'
import { type Database, openDatabase } from '../../../src/storage/postgres/database.ts'
import {
  type PostgresServer,
  type Replica,
  startPrimary,
  startReplica,
} from '../../support/replica.ts'
import { TcpProxy } from '../../support/tcp-proxy.ts'

const WHERE = { name: 'test-where', text: 'select inet_server_port()' }
const WRITE = { name: 'test-write', text: 'insert into written default values returning 1' }
const PASSWORD = 'tanstaaf-1939'
const DOORS = ['sessions', 'deliveries', 'bulk', 'kysely'] as const

let primary: PostgresServer
let replica: Replica
const opened: Database[] = []
const proxies: TcpProxy[] = []
const logged: { msg: string; from?: string; to?: string }[] = []

beforeAll(async () => {
  primary = await startPrimary()
  await primary.query('create table written (n integer generated always as identity)')
  replica = await startReplica(primary, { isSynchronous: true })
})

afterEach(async () => {
  await Promise.all(opened.splice(0).map((db) => db.close()))
  await Promise.all(proxies.splice(0).map((proxy) => proxy.close()))
  logged.length = 0
})

afterAll(async () => {
  await replica?.stop()
  await primary?.stop()
})

/** @param ports in the order of DATABASE_URL */
function open(ports: readonly number[], password?: string): Database {
  const url = new URL(primary.url)
  const hosts = ports.map((port) => `127.0.0.1:${port}`).join(',')
  const user = `${url.username}:${password ?? url.password}`
  const db = openDatabase({
    url: new Secret(`postgres://${user}@${hosts}${url.pathname}?target_session_attrs=read-write`),
    applicationName: 'popgres test',
    connectionsMax: 4,
    log: pino({}, { write: (line) => logged.push(JSON.parse(line)) }),
  })
  opened.push(db)
  return db
}

async function proxyTo(port: number): Promise<TcpProxy> {
  const proxy = await TcpProxy.open(port)
  proxies.push(proxy)
  return proxy
}

/** The port of the server that a door leads to. */
async function portOf(db: Database, door: (typeof DOORS)[number]): Promise<number> {
  if (door !== 'kysely') {
    const rows = await (door === 'bulk' ? db.bulk(WHERE, []) : db.hot(WHERE, [], door))
    return rows[0]?.[0]?.readInt32BE(0) ?? 0
  }
  const { rows } = await sql<{ port: number }>`select inet_server_port() as port`.execute(db.kysely)
  return rows[0]?.port ?? 0
}

const portsOf = (db: Database): Promise<number[]> =>
  Promise.all(DOORS.map((door) => portOf(db, door)))

const all = (port: number): number[] => DOORS.map(() => port)

async function failureOf(work: Promise<unknown>): Promise<Failure> {
  const outcome = await work.catch((error) => error)
  expect(outcome).toBeInstanceOf(Failure)
  const password = new URL(primary.url).password
  const shown = inspect([outcome, logged], { depth: 20, showHidden: true })
  for (const secret of [PASSWORD, password]) expect(shown).not.toContain(secret)
  return outcome as Failure
}

/** Until a statement may be sent again: what was under way when a host went is in doubt. */
async function soon<T>(work: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof Failure && error.isRetryable) || tries > 200) throw error
    }
  }
}

/** The server's word of itself, changed on its way. */
function sayOfStandby(word: 'on' | 'off'): (chunk: Buffer) => Buffer {
  const messageOf = (value: string): Buffer => {
    const text = `in_hot_standby\0${value}\0`
    const message = Buffer.alloc(5 + text.length, `S....${text}`, 'latin1')
    message.writeUInt32BE(4 + text.length, 1)
    return message
  }
  const [said, says] = [messageOf(word === 'on' ? 'off' : 'on'), messageOf(word)]
  return (chunk) => {
    const at = chunk.indexOf(said)
    if (at === -1) return chunk
    return Buffer.concat([chunk.subarray(0, at), says, chunk.subarray(at + said.length)])
  }
}

test('every door finds the primary behind a host that is away and a standby', async () => {
  const db = open([1, replica.server.port, primary.port])
  expect(await portsOf(db)).toEqual(all(primary.port))
  const host = `127.0.0.1:${primary.port}`
  expect(logged).toMatchObject([{ host, msg: 'this host of DATABASE_URL is used' }])
})

test('a primary says by itself that it is one: it is asked nothing', async () => {
  const proxy = await proxyTo(primary.port)
  const sent: string[] = []
  proxy.onRequest = (chunk) => sent.push(chunk.toString('latin1'))
  const db = open([proxy.port, replica.server.port])
  expect(await portsOf(db)).toEqual(all(primary.port))
  expect(sent.length).toBeGreaterThan(8)
  expect(sent.filter((chunk) => /in_recovery/.test(chunk))).toEqual([])
})

test('nobody can be written to: each host is named with its reason', async () => {
  const silent: Server = createServer(() => {}).listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const address = silent.address()
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0
  const db = open([1, replica.server.port, port])
  const failures = await Promise.all(DOORS.map((door) => failureOf(portOf(db, door))))
  for (const failure of failures) {
    expect(failure.code).toBe('STORAGE_UNAVAILABLE')
    expect(failure.message).toMatch(
      new RegExp(
        '^no host of DATABASE_URL can be used: 127.0.0.1:1: connect ECONNREFUSED 127.0.0.1:1; ' +
          `127.0.0.1:${replica.server.port}: it is a standby; ` +
          `127.0.0.1:${port}: no answer for 3 s$`,
      ),
    )
  }
  silent.close()
})

test('a password that all hosts refuse is called that', async () => {
  const db = open([replica.server.port, primary.port], PASSWORD)
  for (const door of DOORS)
    expect(await failureOf(portOf(db, door))).toMatchObject({
      code: 'STORAGE_LOGIN_REFUSED',
      message: expect.stringMatching(/127.0.0.1:\d+: password.*; 127.0.0.1:\d+: password/),
    })
})

test('a primary of which a pooler says that it is a standby is asked, and used', async () => {
  const proxy = await proxyTo(primary.port)
  proxy.onAnswer = sayOfStandby('on')
  expect(await portsOf(open([replica.server.port, proxy.port]))).toEqual(all(primary.port))
})

test('a standby of which a pooler says that it is none is left at the first writing', async () => {
  const proxy = await proxyTo(replica.server.port)
  proxy.onAnswer = sayOfStandby('off')
  const db = open([proxy.port, primary.port])
  expect(await portsOf(db)).toEqual(all(replica.server.port))
  expect((await failureOf(db.hot(WRITE, []))).code).toBe('STORAGE_UNAVAILABLE')
  expect(await db.hot(WRITE, [])).toHaveLength(1)
  expect(await soon(() => portsOf(db))).toEqual(all(primary.port))
})

test('a server that was told to be read-only is none to write to', async () => {
  const db = open([replica.server.port, primary.port])
  await primary.query('alter database popgres set default_transaction_read_only = on')
  try {
    expect((await failureOf(db.ping())).message).toMatch(/standby; 127.0.0.1:\d+: it is read-only$/)
  } finally {
    await primary.query('set transaction read write; alter database popgres reset all')
  }
  await db.ping()
})

// The last one: the replica is one no more.
test('the replica takes over while all doors are open: they follow, and none stays behind', async () => {
  const proxy = await proxyTo(primary.port)
  const db = open([proxy.port, replica.server.port])
  expect(await portsOf(db)).toEqual(all(primary.port))
  await primary.query('alter system set synchronous_standby_names = default')
  await primary.query('select pg_reload_conf()')
  await replica.promote()
  // The old one still runs and could still be written to, but new connections do not come through.
  proxy.refuse()
  expect(await db.hot(WRITE, [])).toHaveLength(1)
  const others = await Promise.all([1, 2, 3].map(() => soon(() => portOf(db, 'bulk'))))
  expect(others).toContain(replica.server.port)
  expect(await soon(() => portsOf(db))).toEqual(all(replica.server.port))
  expect(logged).toContainEqual(
    expect.objectContaining({
      msg: 'another host of DATABASE_URL is used from now on',
      from: `127.0.0.1:${proxy.port}`,
      to: `127.0.0.1:${replica.server.port}`,
    }),
  )
  expect(await replica.server.query('select n from written')).not.toHaveLength(0)
})
