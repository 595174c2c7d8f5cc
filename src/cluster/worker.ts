/**
 * A worker process: the one file that wires storage, mail and servers together. It listens even
 * while the database is away, so that peers get a temporary refusal instead of a closed door. It
 * ends when told to drain, and by itself when the supervisor is gone, giving its leases back in
 * both cases.
 */
import cluster from 'node:cluster'
import { setTimeout as delay } from 'node:timers/promises'
import { Failure } from '../base/failure.ts'
import { Keyring } from '../base/keyring.ts'
import { GatheredOutput, type Log, openLog } from '../base/log.ts'
import { Secret } from '../base/secret.ts'
import { parseSettings, type Settings } from '../base/settings.ts'
import { Authenticator } from '../mail/auth/authenticator.ts'
import { BearerCheck } from '../mail/auth/bearer/bearer-check.ts'
import { Throttle } from '../mail/auth/throttle.ts'
import { LeaseKeeper } from '../mail/maildrop/lease-keeper.ts'
import { ReadAheadBudget } from '../mail/maildrop/reader.ts'
import { FirstLogins } from '../mail/moving/first-logins.ts'
import { startLmtpServer } from '../server/lmtp-server.ts'
import { type RunningPop3Server, startPop3Server } from '../server/pop3-server.ts'
import { TlsDoor } from '../server/tls/door.ts'
import { type Database, openDatabase } from '../storage/postgres/database.ts'
import { DrainOrders } from './drain-orders.ts'
import { explainListening } from './listen-failure.ts'
import { Offer } from './offer.ts'
import type { FromWorker, ServingAddresses, ToWorker } from './worker-messages.ts'
import { WorkerReports } from './worker-reports.ts'

/** A database that answers does so at once; one that is away must not keep the door closed. */
const FIRST_BEAT_MS = 1_000
/** So soon a renewed certificate is in use. */
const REFRESH_INTERVAL_MS = 5_000
/** For giving back leases and closing connections once the sessions are over. */
const CLOSE_MS = 1_500

interface Running {
  addresses: ServingAddresses
  /** Accepts no more; resolves when what is open has ended by itself. */
  retire(): Promise<void>
  stop(graceMs: number): Promise<void>
}

/** True in a process that a supervisor forked. */
export function isWorkerProcess(): boolean {
  return cluster.isWorker
}

/** Serves until drained; ends the process. Its settings come from the supervisor. */
export async function runWorker(): Promise<never> {
  let log = openLog('error')
  process.on('uncaughtException', (error) => {
    log.fatal({ error }, 'a bug ends this worker')
    process.exit(1)
  })
  const orders = new DrainOrders()
  const start = await askForStart()
  const settings = parseSettings(start.settings)
  log = openLog(settings.POPGRES_LOG_LEVEL, {}, new GatheredOutput())
  let running: Running
  try {
    running = await startServing(settings, start, log)
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    // What the operator can mend is told by the supervisor, once for all workers.
    if (!(error instanceof Failure)) log.error({ error }, 'this worker cannot serve')
    process.send?.({ kind: 'refused', reason } satisfies FromWorker, () => process.exit(1))
    return new Promise(() => {})
  }
  tell({ kind: 'serving', addresses: running.addresses })
  const { patienceMs } = await orders.first
  if (patienceMs > 0) await Promise.race([running.retire(), delay(patienceMs), orders.hurried])
  const { graceMs } = orders
  await Promise.race([running.stop(graceMs), delay(graceMs + CLOSE_MS)])
  process.exit(0)
}

function tell(message: FromWorker): void {
  if (process.connected) process.send?.(message)
}

function askForStart(): Promise<Extract<ToWorker, { kind: 'start' }>> {
  return new Promise((resolve) => {
    process.on('message', (message: ToWorker) => {
      if (message.kind === 'start') resolve(message)
    })
    tell({ kind: 'hello' })
  })
}

async function startServing(
  settings: Settings,
  start: Extract<ToWorker, { kind: 'start' }>,
  processLog: Log,
): Promise<Running> {
  let nodeId = start.nodeId
  const log = withNode(processLog, () => nodeId)
  const keyring =
    start.secretKeysHex &&
    new Keyring(start.secretKeysHex.map((key) => new Secret(Buffer.from(key, 'hex'))))
  const db = openDatabase({
    url: new Secret(start.databaseUrl),
    applicationName: 'popgres worker',
    connectionsMax: settings.POPGRES_DATABASE_CONNECTIONS,
    log,
  })
  const offer = new Offer(db, keyring, settings.POPGRES_SASL_MECHANISMS.areChosen)
  const door = new TlsDoor({
    db,
    log,
    keyring,
    certFile: start.tlsFiles?.certFile,
    keyFile: start.tlsFiles?.keyFile,
    directory: settings.POPGRES_TLS_DIRECTORY,
    wantsClientCertificates: settings.POPGRES_TLS_CLIENT_CERTIFICATES,
    ticketKeys: Buffer.from(start.ticketKeysHex, 'hex'),
  })
  const keeper = new LeaseKeeper({
    db,
    log,
    hostname: settings.POPGRES_HOSTNAME,
    version: start.version,
    nodeId,
    onBeat: async () => {
      await Promise.all([offer.refresh(), moving.refresh()])
    },
    onNodeIdChanged: (changed) => {
      nodeId = changed
      tell({ kind: 'node', nodeId })
    },
  })
  const budget = new ReadAheadBudget()
  const moving = new FirstLogins({ db, log, keeper, budget })
  // Apart from the heartbeat: certificates in files do not wait for the database.
  const refreshing = setInterval(() => void door.refresh(), REFRESH_INTERVAL_MS)
  await Promise.race([Promise.all([door.refresh(), keeper.start()]), delay(FIRST_BEAT_MS)])
  const pop3 = await explainListening(
    'POPGRES_POP3_LISTEN or POPGRES_POP3S_LISTEN',
    startPop3(settings, { db, log, keeper, budget, keyring, offer, door, moving }),
  )
  const lmtp = await explainListening(
    'POPGRES_LMTP_LISTEN',
    startLmtpServer({
      db,
      log,
      hostname: settings.POPGRES_HOSTNAME,
      addresses: settings.POPGRES_LMTP_LISTEN,
      trustedNetworks: settings.POPGRES_LMTP_TRUSTED_NETWORKS,
      messageMaxOctets: settings.POPGRES_MESSAGE_MAX_OCTETS,
    }),
  )
  const reports = new WorkerReports(() => keeper.isInTouch())
  return {
    addresses: { pop3: pop3.addresses, pop3s: pop3.tlsAddresses, lmtp: lmtp.addresses },
    retire: async () => {
      reports.retire()
      await Promise.all([pop3.retire(), lmtp.retire()])
    },
    stop: async (graceMs) => {
      // First: who is in the middle of a handshake cannot be told to go.
      door.close()
      reports.retire()
      await Promise.all([pop3.stop(graceMs), lmtp.stop(graceMs)])
      clearInterval(refreshing)
      await moving.stop()
      await keeper.stop()
      await db.close()
      await reports.end()
    },
  }
}

/** The node id changes when others took this process for dead: each line has the one of then. */
function withNode(log: Log, nodeId: () => string): Log {
  const addNode = (fields: object): Record<string, unknown> => ({ node: nodeId(), ...fields })
  return log.child({}, { formatters: { log: addNode } })
}

interface Pop3Parts {
  db: Database
  log: Log
  keeper: LeaseKeeper
  budget: ReadAheadBudget
  keyring: Keyring | undefined
  offer: Offer
  door: TlsDoor
  moving: FirstLogins
}

function startPop3(settings: Settings, parts: Pop3Parts): Promise<RunningPop3Server> {
  const { db, log, keeper, budget, keyring, offer, door, moving } = parts
  return startPop3Server({
    ...offer,
    db,
    log,
    keeper,
    door,
    authenticator: new Authenticator({
      db,
      log,
      defaultDomain: settings.POPGRES_DEFAULT_DOMAIN,
      keyring,
      throttle: new Throttle({ db, log, keyring }),
      bearer: new BearerCheck({ db, keyring }),
      moving,
    }),
    budget,
    addresses: settings.POPGRES_POP3_LISTEN,
    tlsAddresses: settings.POPGRES_POP3S_LISTEN,
    proxyNetworks: settings.POPGRES_PROXY_NETWORKS,
    saslMechanisms: settings.POPGRES_SASL_MECHANISMS.names,
    isUtf8Asked: settings.POPGRES_UTF8_MESSAGES === 'refuse',
    limits: {
      connections: settings.POPGRES_CONNECTIONS_MAX,
      connectionsPerNetwork: settings.POPGRES_CONNECTIONS_PER_NETWORK,
      sessionsPerDomain: settings.POPGRES_SESSIONS_PER_DOMAIN,
    },
    pace: { loginMs: settings.POPGRES_LOGIN_TIMEOUT * 1_000 },
    hostname: settings.POPGRES_HOSTNAME,
    plaintextAuth: settings.POPGRES_PLAINTEXT_AUTH,
    autologoutMs: settings.POPGRES_AUTOLOGOUT * 1_000,
  })
}
