/**
 * `popgres serve`: this node, from the database up. Without DATABASE_URL the embedded PostgreSQL
 * is started and migrated first; with it, a database that is away is waited for while the workers
 * already listen and refuse for now. The order of the end is the reverse: sessions, workers,
 * PostgreSQL, within 10 seconds. The worker processes come through here as well: a fork runs the
 * same command. The log goes to standard output as JSON lines, hints for a human to standard
 * error as text.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { Failure } from '../base/failure.ts'
import type { Keyring } from '../base/keyring.ts'
import { GatheredOutput, type Log, openLog } from '../base/log.ts'
import type { Secret } from '../base/secret.ts'
import type { Settings } from '../base/settings.ts'
import { catchStopSignals, type StopSignals } from '../cluster/stop-signals.ts'
import { Supervisor } from '../cluster/supervisor.ts'
import { isWorkerProcess, runWorker } from '../cluster/worker.ts'
import type { TlsFiles } from '../cluster/worker-messages.ts'
import { checkSchema, migrate } from '../storage/migrator.ts'
import { type Database, openDatabase } from '../storage/postgres/database.ts'
import { openServingRole } from '../storage/serving-role.ts'
import { readVersion } from './command-context.ts'
import { type Embedded, startEmbedded } from './embedded-postgres.ts'
import { keepSelfSigned } from './quickstart/self-signed.ts'
import { describeServing } from './quickstart/serving-hints.ts'
import { type Demo, makeDemo } from './quickstart.ts'
import { checkTlsFiles, warnWithoutCertificate } from './tls-files.ts'

/** Sessions get this long to finish what they are in; PostgreSQL needs some of the 10 s as well. */
const DRAIN_MS = 3_500
const WAIT_MS = 5_000
const SUPERVISOR_CONNECTIONS = 2
/** Besides the workers' own: supervisor, administration, a psql or two. */
const SPARE_CONNECTIONS = 30

/**
 * Runs until a signal ends it.
 * @returns the exit status
 * @throws {Failure} with a line for the operator, if the node cannot serve
 */
export async function serve(settings: Settings, log: Log): Promise<number> {
  if (isWorkerProcess())
    return runWorker(settings, openLog(settings.POPGRES_LOG_LEVEL, {}, new GatheredOutput()))
  const signals = catchStopSignals(log)
  let hasFailed = false
  process.on('uncaughtException', (error) => {
    log.fatal({ error }, 'a bug ends this node')
    hasFailed = true
    signals.request()
  })
  log.info({ version: readVersion() }, 'starting')
  const tlsFiles = await checkTlsFiles(settings)
  if (settings.DATABASE_URL !== undefined) {
    await serveForeign({ settings, log, signals, tlsFiles, databaseUrl: settings.DATABASE_URL })
  } else {
    await serveEmbedded({ settings, log, signals, tlsFiles })
  }
  log.info('ended')
  return hasFailed ? 1 : 0
}

interface Parts {
  settings: Settings
  log: Log
  signals: StopSignals
  /** As set; undefined: nothing is. */
  tlsFiles: TlsFiles | undefined
}

async function serveEmbedded({ settings, log, signals, tlsFiles }: Parts): Promise<void> {
  // A worker has its pool, its pipelined connection and two for ordinary queries.
  const perWorker = settings.POPGRES_DATABASE_CONNECTIONS + 3
  let embedded: Embedded
  try {
    embedded = await startEmbedded({
      dataDir: settings.POPGRES_DATA_DIR,
      log,
      connectionsMax: settings.POPGRES_WORKERS * perWorker + SPARE_CONNECTIONS,
    })
  } catch (error) {
    // Ctrl-C reached initdb as well.
    if (signals.requested.aborted) return
    throw error
  }
  const owner = openSupervisorDatabase(embedded.url, log)
  let db: Database | undefined
  let selfSigned: Awaited<ReturnType<typeof keepSelfSigned>> | undefined
  try {
    await migrate(owner, log)
    const keyring = settings.POPGRES_SECRET_KEY ?? embedded.keyring
    let demo: Demo | undefined
    if (embedded.isFirstStart && !signals.requested.aborted) {
      demo = await makeDemo(owner, keyring)
      embedded.confirmFirstStart()
    }
    const databaseUrl = await openServingRole(owner, embedded.url)
    await owner.close()
    db = openSupervisorDatabase(databaseUrl, log)
    if (tlsFiles === undefined)
      selfSigned = await keepSelfSigned(settings.POPGRES_DATA_DIR, settings.POPGRES_HOSTNAME, log)
    await superviseUntilStopped({
      settings,
      db,
      log,
      signals,
      databaseUrl,
      keyring,
      tlsFiles: tlsFiles ?? selfSigned?.files,
      onServing: (addresses) =>
        printHints(describeServing(addresses, { demo, isForeign: false, lacksCertificate: false })),
    })
  } finally {
    selfSigned?.stop()
    // Whatever becomes of the connections: PostgreSQL must not be left behind.
    await Promise.allSettled([owner.close(), db?.close()])
    await embedded.stop()
  }
}

async function serveForeign(parts: Parts & { databaseUrl: Secret }): Promise<void> {
  const { settings, log, databaseUrl } = parts
  const db = openSupervisorDatabase(databaseUrl, log)
  try {
    // Asked once before anything listens: a schema that does not fit is told at once.
    const absence = await findAbsence(db)
    const warn = () => warnWithoutCertificate(settings, db, log)
    const lacksCertificate = absence === undefined && (await warn())
    const circumstances = { demo: undefined, isForeign: true, lacksCertificate }
    await superviseUntilStopped({
      ...parts,
      db,
      keyring: settings.POPGRES_SECRET_KEY,
      onServing: (addresses) => printHints(describeServing(addresses, circumstances)),
      until: absence && waitForSchema(absence, db, parts).then((isThere) => isThere && warn()),
    })
  } finally {
    await db.close()
  }
}

interface Supervision extends Parts {
  db: Database
  databaseUrl: Secret
  keyring: Keyring | undefined
  onServing: (addresses: Awaited<ReturnType<Supervisor['start']>>) => void
  /** Ends the node if it fails. */
  until?: Promise<unknown> | undefined
}

async function superviseUntilStopped(options: Supervision): Promise<void> {
  const { settings, signals } = options
  const supervisor = new Supervisor({
    ...options,
    version: readVersion(),
    workers: settings.POPGRES_WORKERS,
    workerArgs: ['serve'],
  })
  signals.hurried.addEventListener('abort', () => void supervisor.stop(0))
  try {
    if (signals.requested.aborted) return
    const ends = [untilAborted(signals.requested)]
    if (options.until !== undefined) ends.push(orNever(options.until))
    await Promise.race([supervisor.start().then(options.onServing), ...ends])
    await Promise.race(ends)
  } finally {
    signals.request() // also for `until`, which else would go on waiting
    await supervisor.stop(signals.hurried.aborted ? 0 : DRAIN_MS)
  }
}

function openSupervisorDatabase(url: Secret, log: Log): Database {
  return openDatabase({
    url,
    applicationName: 'popgres supervisor',
    connectionsMax: SUPERVISOR_CONNECTIONS,
    log,
  })
}

/** @returns why the database is away, if it is; @throws {Failure} if its schema does not fit */
async function findAbsence(db: Database): Promise<Failure | undefined> {
  try {
    await checkSchema(db, readVersion())
    return undefined
  } catch (error) {
    if (error instanceof Failure && error.isRetryable) return error
    throw error
  }
}

/**
 * A login that is refused is waited for as well: passwords are changed while nodes run.
 * @returns false: the node is ending
 */
async function waitForSchema(
  absence: Failure,
  db: Database,
  { log, signals, databaseUrl }: Parts & { databaseUrl: Secret },
): Promise<boolean> {
  const database = describeDatabase(databaseUrl)
  let error: Failure | undefined = absence
  while (!signals.requested.aborted) {
    log.warn({ database, error }, 'waiting for the database; meanwhile peers are refused for now')
    await delay(WAIT_MS, undefined, { signal: signals.requested }).catch(() => {})
    if (signals.requested.aborted) return false
    error = await findAbsence(db)
    if (error !== undefined) continue
    log.info({ database }, 'the database is there')
    return true
  }
  return false
}

/** Host, port and name; nothing that is secret. */
function describeDatabase(url: Secret): string {
  try {
    const { host, pathname } = new URL(url.reveal().toString())
    return `${decodeURIComponent(host)}${pathname}`
  } catch {
    throw new Failure('SETTINGS_INVALID', 'DATABASE_URL is not a postgres:// URL')
  }
}

function untilAborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve())
  })
}

/** Only the failure counts. */
function orNever(work: Promise<unknown>): Promise<void> {
  return work.then(() => new Promise(() => {}))
}

function printHints(text: string): void {
  process.stderr.write(`\n${text}\n`)
}
