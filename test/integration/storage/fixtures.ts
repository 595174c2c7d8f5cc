/**
 * For the tests of storage/: messages by the dozen, and the two-connection races. A race is made
 * deterministic by a third connection that holds a lock, and by asking PostgreSQL who waits for it.
 */
import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { Secret } from '../../../src/base/secret.ts'
import { type LoginQuestion, selectLoginAccount } from '../../../src/storage/accounts.ts'
import { type Delivery, deliver } from '../../../src/storage/deliveries.ts'
import {
  acquireLease,
  entitlementOf,
  type Lease,
  type LeaseOutcome,
} from '../../../src/storage/leases.ts'
import { insertNode } from '../../../src/storage/nodes.ts'
import {
  type Database,
  openDatabase,
  type Statement,
} from '../../../src/storage/postgres/database.ts'
import { directUrl } from '../../support/postgres.ts'

export interface User {
  domainId: number
  userId: number
}

/** A database whose hot statements wait for locks as long as a race needs. */
export function openPatient(url: string): Database {
  return openDatabase({
    url: new Secret(url),
    applicationName: 'popgres test, patient',
    connectionsMax: 6,
    hotLockTimeoutMs: 20_000,
  })
}

export async function deliverTo(
  db: Database,
  user: User,
  text: string,
  options: Partial<Delivery> = {},
): Promise<number> {
  const content = Buffer.from(text)
  const results = await deliver(db, {
    domainId: user.domainId,
    bodyId: randomUUID(),
    bodyOctets: content.length,
    content,
    recipients: [{ userId: user.userId, prefix: Buffer.alloc(0) }],
    ...options,
  })
  const uid = results.get(user.userId)?.uid
  if (uid === undefined) throw new Error(`not delivered: ${results.get(user.userId)?.status}`)
  return uid
}

export async function addNode(db: Database): Promise<string> {
  const nodeId = randomUUID()
  await insertNode(db, { nodeId, hostname: 'test', pid: 1, version: '0.1.0' })
  return nodeId
}

/** What a login does once the password is verified. */
export async function acquire(
  db: Database,
  address: string,
  nodeId: string,
  deadNodeIds: readonly string[] = [],
): Promise<{ lease: Lease; outcome: LeaseOutcome }> {
  const [localPart = '', domainName = ''] = address.split('@')
  const account = await selectLoginAccount(db, domainName, localPart)
  if (account === undefined) throw new Error(`${address} is unknown`)
  const { domainId, userId } = account
  const lease = { domainId, userId, sessionId: randomUUID() }
  const request = {
    ...entitlementOf(account, undefined),
    ...{ sessionId: lease.sessionId, nodeId, deadNodeIds, client: '192.0.2.1' },
  }
  const { outcome } = await acquireLease(db, request, questionOf(address))
  return { lease, outcome }
}

/** As a login asks it whom nothing is held against. */
export function questionOf(address: string): LoginQuestion {
  const [localPart = '', domainName = ''] = address.split('@')
  return { domainName, localPart, client: '192.0.2.1', network: '', throttleKeys: [] }
}

export async function countersOf(
  db: Database,
  { domainId, userId }: User,
): Promise<{ messages: number; octets: number; nextUid: number }> {
  const row = await db.kysely
    .selectFrom('maildrops')
    .select(['message_count', 'octets', 'next_uid'])
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .executeTakeFirstOrThrow()
  return { messages: row.message_count, octets: row.octets, nextUid: row.next_uid }
}

export async function uidsOf(
  db: Database,
  { domainId, userId }: User,
  table: 'messages' | 'trash' = 'messages',
): Promise<number[]> {
  const rows = await db.kysely
    .selectFrom(table)
    .select('uid')
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .orderBy('uid')
    .execute()
  return rows.map((row) => row.uid)
}

/** A connection of its own with a transaction that holds locks until it is told to end. */
export class Holder {
  readonly client: pg.Client
  readonly pid: number

  private constructor(client: pg.Client, pid: number) {
    this.client = client
    this.pid = pid
  }

  static async open(url: string): Promise<Holder> {
    // Its backend is its own, as that of somebody's psql.
    const client = new pg.Client(directUrl(url))
    client.on('error', () => undefined)
    await client.connect()
    const { rows } = await client.query('select pg_backend_pid() as pid')
    return new Holder(client, rows[0].pid)
  }

  async query(text: string, values: unknown[] = []): Promise<Record<string, unknown>[]> {
    return (await this.client.query(text, values)).rows
  }

  async run(statement: Statement, values: unknown[]): Promise<number> {
    return (await this.client.query(statement.text, values)).rows.length
  }

  begin(): Promise<unknown> {
    return this.query('begin')
  }

  async commit(): Promise<void> {
    await this.query('commit')
  }

  close(): Promise<void> {
    return this.client.end()
  }
}

const WAIT_MAX_MS = 10_000

/**
 * @param holderPids any of them
 * @param exceptPid a waiter that is known already
 * @returns the backend that waits for a lock of one of `holderPids`, as soon as one does
 */
export async function waitingFor(
  observer: Holder,
  holderPids: number | readonly number[],
  exceptPid = 0,
): Promise<number> {
  const deadline = performance.now() + WAIT_MAX_MS
  while (performance.now() < deadline) {
    const [row] = await observer.query(
      `select pid from pg_stat_activity
       where datname = current_database() and pid <> $2
         and $1::integer[] && pg_blocking_pids(pid)`,
      [[holderPids].flat(), exceptPid],
    )
    if (row !== undefined) return row.pid as number
  }
  throw new Error(`nobody waits for backend ${holderPids}`)
}
