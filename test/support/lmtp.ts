/**
 * The LMTP side of a worker inside the test process, a sender for it, and a look at what was stored.
 */
import { pino } from 'pino'
import { type ListenAddress, networks } from '../../src/base/network.ts'
import { startLmtpServer } from '../../src/server/lmtp-server.ts'
import { STRETCH_OCTETS, selectStretch } from '../../src/storage/bodies.ts'
import { selectMessages } from '../../src/storage/messages.ts'
import type { Database } from '../../src/storage/postgres/database.ts'
import { LineClient } from './line-client.ts'

export interface TestLmtp {
  address: string
  /** Every line that was logged. */
  logged: string[]
  connect(): Promise<LineClient>
  stop(graceMs?: number): Promise<void>
}

export interface TestLmtpOptions {
  listen?: ListenAddress
  trusted?: string
  messageMaxOctets?: number
  idleTimeoutMs?: number
  connectionsMax?: number
}

/** The reply for a message that is committed; the id is that of the log line and of Received. */
export const DELIVERED = /^250 2\.1\.5 delivered, id ([0-9a-f-]{36})$/

const TEST_TIME = new Date('2025-11-13T20:26:07Z')

export async function startTestLmtp(
  db: Database,
  options: TestLmtpOptions = {},
): Promise<TestLmtp> {
  const logged: string[] = []
  const server = await startLmtpServer({
    db,
    log: pino({ level: 'debug' }, { write: (line: string) => void logged.push(line) }),
    hostname: 'mx.example.test',
    addresses: [options.listen ?? { host: '127.0.0.1', port: 0 }],
    trustedNetworks: networks.parse(options.trusted ?? '127.0.0.0/8'),
    messageMaxOctets: options.messageMaxOctets ?? 10_000_000,
    clock: () => TEST_TIME,
    ...(options.idleTimeoutMs === undefined ? {} : { idleTimeoutMs: options.idleTimeoutMs }),
    ...(options.connectionsMax === undefined ? {} : { connectionsMax: options.connectionsMax }),
  })
  const address = server.addresses[0] ?? ''
  return {
    address,
    logged,
    connect: () => LineClient.connect(address),
    stop: (graceMs = 1_000) => server.stop(graceMs),
  }
}

/** Greeted, and LHLO said. */
export async function openLmtp(lmtp: TestLmtp): Promise<LineClient> {
  const client = await lmtp.connect()
  await client.reply()
  await client.ask('LHLO client.example.test')
  return client
}

/** MAIL and RCPT. */
export async function begin(
  client: LineClient,
  sender: string,
  recipients: readonly string[],
): Promise<void> {
  await client.ask(`MAIL FROM:<${sender}>`)
  for (const recipient of recipients) await client.ask(`RCPT TO:<${recipient}>`)
}

/** As a careful sender does: CRLF line ends, dots stuffed, the dot at the end. */
function toWire(message: Buffer): Buffer {
  const text = toStored(message)
    .toString('latin1')
    .replace(/(^|\r\n)\./g, '$1..')
  return Buffer.from(`${text}.\r\n`, 'latin1')
}

/** What must be stored of a file: CRLF line ends, a last line that ends. */
export function toStored(message: Buffer): Buffer {
  const text = message.toString('latin1').replace(/(?<!\r)\n/g, '\r\n')
  const isEnded = text === '' || text.endsWith('\r\n')
  return Buffer.from(isEnded ? text : `${text}\r\n`, 'latin1')
}

/** A whole transaction; returns the replies after DATA. */
export async function sendMail(
  client: LineClient,
  sender: string,
  recipients: readonly string[],
  message: Buffer,
): Promise<string[]> {
  await begin(client, sender, recipients)
  await client.ask('DATA')
  client.send(toWire(message))
  return client.replies(recipients.length)
}

export interface StoredCopy {
  uid: number
  octets: number
  prefix: string
  bodyId: string
  body: Buffer
}

/** The maildrop's messages as PostgreSQL holds them, by uid. */
export async function readStored(
  db: Database,
  { domainId, userId }: { domainId: number; userId: number },
): Promise<StoredCopy[]> {
  const rows = await db.kysely
    .selectFrom('messages')
    .select('uid')
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .orderBy('uid')
    .execute()
  const uids = rows.map((row) => row.uid)
  const messages = uids.length === 0 ? [] : await selectMessages(db, domainId, userId, uids, 0)
  const copies: StoredCopy[] = []
  for (const message of messages) {
    const { uid, octets, prefix, bodyId, bodyOctets } = message
    const pieces: Buffer[] = []
    for (let nth = 0; nth * STRETCH_OCTETS < bodyOctets; nth++)
      pieces.push(...(await selectStretch(db, domainId, message, nth)))
    copies.push({ uid, octets, prefix: prefix.toString(), bodyId, body: Buffer.concat(pieces) })
  }
  return copies.sort((one, other) => one.uid - other.uid)
}
