/**
 * One node's POP3 side inside the test process: its own Database, lease keeper and server, as a worker
 * wires them. Two of them on one database are two nodes.
 */
import { pino } from 'pino'
import type { Log } from '../../src/base/log.ts'
import { Secret } from '../../src/base/secret.ts'
import { Authenticator } from '../../src/mail/auth/authenticator.ts'
import { LeaseKeeper } from '../../src/mail/maildrop/lease-keeper.ts'
import { ReadAheadBudget } from '../../src/mail/maildrop/reader.ts'
import { startPop3Server } from '../../src/server/pop3-server.ts'
import { type Database, openDatabase } from '../../src/storage/database.ts'
import { TEST_SECRET_KEY } from './postgres.ts'

export interface TestNode {
  /** `host:port` of its POP3 listener. */
  address: string
  db: Database
  keeper: LeaseKeeper
  budget: ReadAheadBudget
  /** Every line that was logged. */
  logged: string[]
  stop(graceMs?: number): Promise<void>
}

export interface TestNodeOptions {
  url: string
  hostname?: string
  plaintextAuth?: 'never' | 'loopback' | 'always'
  autologoutMs?: number
  defaultDomain?: string
  isApopOffered?: boolean
}

/** The heartbeat does not run by itself: a test beats when it wants to. */
export async function startTestNode(options: TestNodeOptions): Promise<TestNode> {
  const logged: string[] = []
  const log: Log = pino({ level: 'debug' }, { write: (line: string) => void logged.push(line) })
  const hostname = options.hostname ?? 'pop.example.test'
  const db = openDatabase({
    url: new Secret(options.url),
    applicationName: 'popgres test node',
    connectionsMax: 4,
    log,
  })
  const keeper = new LeaseKeeper({ db, log, hostname, version: '0.0.0' })
  const budget = new ReadAheadBudget()
  const authenticator = new Authenticator({
    db,
    log,
    defaultDomain: options.defaultDomain ?? '',
    secretKey: TEST_SECRET_KEY,
  })
  await keeper.beat()
  const server = await startPop3Server({
    db,
    log,
    keeper,
    budget,
    authenticator,
    hostname,
    addresses: [{ host: '127.0.0.1', port: 0 }],
    plaintextAuth: options.plaintextAuth ?? 'loopback',
    autologoutMs: options.autologoutMs ?? 600_000,
    isApopOffered: () => options.isApopOffered ?? false,
  })
  return {
    address: server.addresses[0] ?? '',
    db,
    keeper,
    budget,
    logged,
    stop: async (graceMs = 1_000) => {
      await server.stop(graceMs)
      await keeper.stop()
      await db.close()
    },
  }
}
