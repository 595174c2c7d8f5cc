/**
 * The LMTP front door of one worker (RFC 2033): mail comes in here from an MTA. The dialogue is
 * smtp-server's; what MAIL, RCPT and DATA mean is lmtp-transaction.ts. Over TCP only trusted
 * networks may deliver; a Unix socket is guarded by the directory it lies in. A 250 after DATA
 * means that the message is committed. A peer that loses the connection before that reply may send
 * again, and the message is then there twice: RFC 1047's lesson is to keep that time short, not to
 * lose mail.
 */
import type { Socket } from 'node:net'
import { SMTPServer, type SMTPServerAddress, type SMTPServerSession } from 'smtp-server'
import { assert } from '../base/assert.ts'
import type { Log } from '../base/log.ts'
import { METRICS } from '../base/metrics.ts'
import type { ListenAddress, Networks } from '../base/network.ts'
import { DeliveryQueue } from '../mail/delivery/delivery-queue.ts'
import type { Database } from '../storage/postgres/database.ts'
import { clientOf, Listener } from './listener.ts'
import { LmtpConnection, type LmtpPeer } from './lmtp-connection.ts'
import {
  LmtpTransaction,
  REPLIES,
  type Reply,
  type TransactionContext,
} from './lmtp-transaction.ts'
import type { RunningServer } from './pop3-server.ts'

export interface LmtpServerOptions {
  db: Database
  log: Log
  hostname: string
  addresses: readonly ListenAddress[]
  /** Who may deliver over TCP. */
  trustedNetworks: Networks
  messageMaxOctets: number
  /** What time it is, for Received; the system's clock if left out. */
  clock?: () => Date
  /** Silence after which a connection is closed. RFC 5321 §4.5.3.2.7 wants five minutes or more. */
  idleTimeoutMs?: number
  /** LIMIT: of this worker; an MTA keeps some dozens open (Postfix: 20 for a destination). */
  connectionsMax?: number
}

const IDLE_TIMEOUT_MS = 300_000
const CONNECTIONS_MAX = 500

/**
 * LIMIT: RFC 5321 §4.5.3.1.4 has 512, extensions and long addresses need more; 256 kept in reserve.
 */
const COMMAND_MAX_OCTETS = 2_048

/** LIMIT: RFC 5321 §4.5.3.1.3 has 256; a header line of the message must hold it (998 octets). */
const PATH_MAX_LENGTH = 512

/** Commands of the library that have no place in LMTP behind an MTA. */
const DISABLED_COMMANDS = [
  'AUTH',
  'STARTTLS',
  'XCLIENT',
  'XFORWARD',
  'HELP',
  'WIZ',
  'SHELL',
  'KILL',
]

export async function startLmtpServer(options: LmtpServerOptions): Promise<RunningServer> {
  const context: TransactionContext = {
    ...options,
    queue: new DeliveryQueue(options.db),
    clock: options.clock ?? (() => new Date()),
  }
  const protocol = new LmtpProtocol(context, options)
  const overTcp = new Listener((socket) => {
    const address = clientOf(socket)
    return protocol.accept(socket, {
      address,
      isTrusted: options.trustedNetworks.contains(address),
    })
  })
  const overUnix = new Listener((socket) =>
    protocol.accept(socket, { address: undefined, isTrusted: true }),
  )
  const isUnix = (address: ListenAddress) => 'path' in address
  const bound = await Promise.all([
    overTcp.open(options.addresses.filter((address) => !isUnix(address))),
    overUnix.open(options.addresses.filter(isUnix)),
  ])
  return {
    addresses: bound.flat(),
    retire: async () => {
      await Promise.all([overTcp.retire(), overUnix.retire()])
    },
    stop: async (graceMs) => {
      await Promise.all([overTcp.close(graceMs), overUnix.close(graceMs)])
    },
  }
}

/** smtp-server with its callbacks answered by transactions; it opens no socket itself. */
class LmtpProtocol {
  readonly #context: TransactionContext
  readonly #server: SMTPServer
  readonly #connections = new WeakMap<SMTPServerSession, LmtpConnection>()

  constructor(context: TransactionContext, options: LmtpServerOptions) {
    this.#context = context
    this.#server = new SMTPServer({
      lmtp: true,
      name: context.hostname,
      heloResponse: '%s',
      size: context.messageMaxOctets,
      hideENHANCEDSTATUSCODES: false,
      disabledCommands: DISABLED_COMMANDS,
      disableReverseLookup: true,
      // LENIENT: senders of the old world ("name.@example.com") are the MTA's business, not ours
      lenientAddressParsing: true,
      socketTimeout: options.idleTimeoutMs ?? IDLE_TIMEOUT_MS,
      maxClients: options.connectionsMax ?? CONNECTIONS_MAX,
      maxCommandLength: COMMAND_MAX_OCTETS,
      logger: false,
      onConnect: (session, done) => {
        const isTrusted = this.#connectionOf(session).peer.isTrusted
        done(isTrusted ? null : refusal(REPLIES.notTrusted))
      },
      onMailFrom: (sender, session, done) => done(refusal(this.#begin(sender, session))),
      onRcptTo: (recipient, session, done) => {
        void this.#addRecipient(recipient, session).then((reply) => done(refusal(reply)))
      },
      onData: (stream, session, done) => {
        const connection = this.#connectionOf(session)
        assert(connection.transaction !== undefined, 'DATA comes after MAIL')
        void connection.transaction.receive(stream).then(
          (replies) => {
            const results = replies.map((reply) => refusal(reply) ?? reply.text)
            done(null, results)
          },
          () => connection.destroy(),
        )
      },
    })
    this.#server.on('error', (error) => {
      context.log.debug({ error }, 'lmtp connection lost')
    })
  }

  accept(socket: Socket, peer: LmtpPeer): LmtpConnection {
    const connection = new LmtpConnection(this.#server, socket, peer)
    this.#connections.set(connection.session, connection)
    this.#server.connections.add(connection)
    connection.on('error', (error) => this.#server.emit('error', error))
    connection.init()
    METRICS.lmtpConnections.of().add(1)
    void connection.closed.then(() => METRICS.lmtpConnections.of().add(-1))
    return connection
  }

  #connectionOf(session: SMTPServerSession): LmtpConnection {
    const connection = this.#connections.get(session)
    assert(connection !== undefined, 'a session belongs to a connection')
    return connection
  }

  /** MAIL. */
  #begin(sender: SMTPServerAddress, session: SMTPServerSession): Reply | undefined {
    const parameters = Object.keys(sender.args || {})
    if (parameters.some((name) => !['SIZE', 'BODY', 'SMTPUTF8'].includes(name)))
      return REPLIES.unknownParameter
    if (sender.address.length > PATH_MAX_LENGTH) return REPLIES.pathTooLong
    const isUtf8 = sender.args !== false && sender.args.SMTPUTF8 === true
    if (!isUtf8 && !hasAsciiLocalPart(sender.address)) return REPLIES.utf8NotAsked
    const connection = this.#connectionOf(session)
    connection.transaction = new LmtpTransaction(this.#context, {
      sender: sender.address,
      heloName: session.hostNameAppearsAs,
      clientAddress: connection.peer.address,
      protocol: isUtf8 ? 'UTF8LMTP' : 'LMTP',
    })
    return undefined
  }

  /** RCPT. */
  async #addRecipient(address: SMTPServerAddress, session: SMTPServerSession): Promise<Reply> {
    if (address.args !== false) return REPLIES.unknownParameter
    const transaction = this.#connectionOf(session).transaction
    assert(transaction !== undefined, 'RCPT comes after MAIL')
    return transaction.addRecipient(address.address)
  }
}

/** The library takes a refusal as an Error with the code, anything else as "yes". */
function refusal(reply: Reply | undefined): Error | null {
  if (reply === undefined || reply.code < 400) return null
  return Object.assign(new Error(reply.text), { responseCode: reply.code })
}

function hasAsciiLocalPart(address: string): boolean {
  return /^[\x20-\x7e]*$/.test(address.slice(0, Math.max(address.lastIndexOf('@'), 0)))
}
