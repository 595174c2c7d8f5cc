/**
 * `popgres serve`: this node, from the database up. Without DATABASE_URL the embedded PostgreSQL
 * is started and migrated first; with it, a database that is away is waited for while the workers
 * already listen and refuse for now. The order of the end is the reverse: sessions, workers,
 * PostgreSQL, within 10 seconds. The worker processes come through here as well: a fork runs the
 * same command. The log goes to standard output as JSON lines, hints for a human to standard
 * error as text.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { parseDatabaseUrl } from '../base/database-url.ts'
import { Failure } from '../base/failure.ts'
import type { Keyring } from '../base/keyring.ts'
import { type Log, openLog } from '../base/log.ts'
import type { Secret } from '../base/secret.ts'
import { parseSettings, type SettingName, type Settings } from '../base/settings.ts'
import { catchStopSignals } from '../cluster/stop-signals.ts'
import { isWorkerProcess, runWorker } from '../cluster/worker.ts'
import { checkSchema, migrate } from '../storage/migrator.ts'
import { type Database, openDatabase } from '../storage/postgres/database.ts'
import { warnOfLostSettings } from '../storage/postgres/lost-settings.ts'
import { openServingRole } from '../storage/serving-role.ts'
import { readVersion } from './command-context.ts'
import { type Embedded, findEmbedded, startEmbedded } from './embedded-postgres.ts'
import { keepSelfSigned } from './quickstart/self-signed.ts'
import { describeServing } from './quickstart/serving-hints.ts'
import { type Demo, makeDemo } from './quickstart.ts'
import type { Prepared } from './serve/reload.ts'
import { type Parts, superviseUntilStopped } from './serve/supervise.ts'
import { checkTlsFiles, warnWithoutCertificate } from './serve/tls-files.ts'

/** Their product is what the embedded PostgreSQL was started for. */
const WHAT_CONNECTS: readonly SettingName[] = ['POPGRES_WORKERS', 'POPGRES_DATABASE_CONNECTIONS']
const WAIT_MS = 5_000
/** A database that took the login and says nothing must not hold up the end, or the next SIGHUP. */
const LOOK_MS = 5_000
const SUPERVISOR_CONNECTIONS = 2
/** Besides the workers' own: supervisor, administration, a psql or two. */
const SPARE_CONNECTIONS = 30

/**
 * Runs until a signal ends it.
 * @param env from which the settings come
 * @param readEnv the same as it is later, when it is to be read anew
 * @returns the exit status
 * @throws {Failure} with a line for the operator, if the node cannot serve
 */
export async function serve(
  env: NodeJS.ProcessEnv,
  readEnv: () => NodeJS.ProcessEnv,
): Promise<number> {
  if (isWorkerProcess()) return runWorker()
  const settings = parseSettings(env)
  const log = openLog(settings.POPGRES_LOG_LEVEL)
  const signals = catchStopSignals(log)
  let hasFailed = false
  process.on('uncaughtException', (error) => {
    log.fatal({ error }, 'a bug ends this node')
    hasFailed = true
    signals.request()
  })
  log.info({ version: readVersion() }, 'starting')
  const tlsFiles = await checkTlsFiles(settings)
  const parts = { settings, env, readEnv, log, signals, tlsFiles }
  if (settings.DATABASE_URL !== undefined) await serveForeign(parts, settings.DATABASE_URL)
  else await serveEmbedded(parts)
  log.info('ended')
  return hasFailed ? 1 : 0
}

/** So many the embedded PostgreSQL must take: of the workers, and of one more at a reload. */
function connectionsOf(settings: Settings): number {
  // A worker has its pool, its pipelined connections and one for ordinary queries.
  const perWorker = settings.POPGRES_DATABASE_CONNECTIONS + 3
  return (settings.POPGRES_WORKERS + 1) * perWorker + SPARE_CONNECTIONS
}

async function serveEmbedded(parts: Parts): Promise<void> {
  const { settings, log, signals } = parts
  const connectionsMax = connectionsOf(settings)
  let embedded: Embedded
  try {
    embedded = await startEmbedded({ dataDir: settings.POPGRES_DATA_DIR, log, connectionsMax })
  } catch (error) {
    // Ctrl-C reached initdb as well.
    if (signals.requested.aborted) return
    throw error
  }
  const owner = openSupervisorDatabase(embedded.url, log)
  let db: Database | undefined
  const selfSigned = new SelfSigned(log)
  try {
    await migrate(owner, log)
    let demo: Demo | undefined
    if (embedded.isFirstStart && !signals.requested.aborted) {
      demo = await makeDemo(owner, settings.POPGRES_SECRET_KEY ?? embedded.keyring)
      embedded.confirmFirstStart()
    }
    const databaseUrl = await openServingRole(owner, embedded.url)
    await owner.close()
    db = openSupervisorDatabase(databaseUrl, log)
    const prepared: Prepared = {
      db,
      databaseUrl,
      keyring: settings.POPGRES_SECRET_KEY ?? embedded.keyring,
      tlsFiles: parts.tlsFiles ?? (await selfSigned.keep(settings)),
      workers: settings.POPGRES_WORKERS,
    }
    await superviseUntilStopped({
      ...parts,
      prepared,
      prepare: async (next) => ({
        ...prepared,
        keyring: next.POPGRES_SECRET_KEY ?? (await findKeyring(next)) ?? embedded.keyring,
        tlsFiles: (await checkTlsFiles(next)) ?? (await selfSigned.keep(next)),
        workers: next.POPGRES_WORKERS,
      }),
      keptUntilRestart: (next) => [
        ...(next.DATABASE_URL === undefined ? [] : ['DATABASE_URL' as const]),
        ...(connectionsOf(next) > connectionsMax ? WHAT_CONNECTS : []),
      ],
      onServing: (addresses) =>
        printHints(describeServing(addresses, { demo, isForeign: false, lacksCertificate: false })),
    })
  } finally {
    selfSigned.stop()
    // Whatever becomes of the connections: PostgreSQL must not be left behind.
    await Promise.allSettled([owner.close(), db?.close()])
    await embedded.stop()
  }
}

/** The key file of the data directory, as it is now. */
async function findKeyring({ POPGRES_DATA_DIR: dataDir }: Settings): Promise<Keyring | undefined> {
  return (await findEmbedded({ dataDir }))?.keyring
}

async function serveForeign(parts: Parts, databaseUrl: Secret): Promise<void> {
  const { settings, log, tlsFiles } = parts
  const db = openSupervisorDatabase(databaseUrl, log, LOOK_MS)
  try {
    // Asked once before anything listens: a schema that does not fit is told at once.
    const absence = await findAbsence(db)
    const warn = async (db: Database) => {
      await warnOfLostSettings(db, log)
      return warnWithoutCertificate(settings, db, log)
    }
    const lacksCertificate = absence === undefined && (await warn(db))
    const circumstances = { demo: undefined, isForeign: true, lacksCertificate }
    const { POPGRES_SECRET_KEY: keyring, POPGRES_WORKERS: workers } = settings
    await superviseUntilStopped({
      ...parts,
      prepared: { db, databaseUrl, keyring, tlsFiles, workers },
      prepare: (next, current) => prepareForeign(next, current, log),
      keptUntilRestart: (next) => (next.DATABASE_URL === undefined ? ['DATABASE_URL'] : []),
      onServing: (addresses) => printHints(describeServing(addresses, circumstances)),
      until: absence && ((current) => waitForSchema(absence, current, parts, warn)),
    })
  } finally {
    await db.close()
  }
}

/** The node could serve by these. @throws {Failure} with a line for the operator, if not */
async function prepareForeign(settings: Settings, current: Prepared, log: Log): Promise<Prepared> {
  const { POPGRES_SECRET_KEY: keyring, POPGRES_WORKERS: workers } = settings
  const databaseUrl = settings.DATABASE_URL ?? current.databaseUrl
  const tlsFiles = await checkTlsFiles(settings)
  if (databaseUrl.reveal().equals(current.databaseUrl.reveal()))
    return { ...current, keyring, tlsFiles, workers }
  const db = openSupervisorDatabase(databaseUrl, log, LOOK_MS)
  try {
    await checkSchema(db, readVersion())
  } catch (error) {
    await db.close()
    const why = error instanceof Error ? error.message : String(error)
    throw new Failure('SETTINGS_INVALID', `DATABASE_URL: ${why}`, error)
  }
  return { db, databaseUrl, keyring, tlsFiles, workers }
}

/** The certificate of the node's own making, kept while it is in use. */
class SelfSigned {
  readonly #log: Log
  #kept: Awaited<ReturnType<typeof keepSelfSigned>> | undefined

  constructor(log: Log) {
    this.#log = log
  }

  async keep({ POPGRES_DATA_DIR: dataDir, POPGRES_HOSTNAME: hostname }: Settings) {
    const kept = await keepSelfSigned(dataDir, hostname, this.#log)
    this.stop()
    this.#kept = kept
    return kept.files
  }

  stop(): void {
    this.#kept?.stop()
  }
}

function openSupervisorDatabase(url: Secret, log: Log, queryTimeoutMs?: number): Database {
  return openDatabase({
    url,
    applicationName: 'popgres supervisor',
    connectionsMax: SUPERVISOR_CONNECTIONS,
    log,
    ...(queryTimeoutMs === undefined ? {} : { queryTimeoutMs }),
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
 * A login that is refused is waited for as well: passwords are changed while nodes run, or
 * DATABASE_URL is corrected by a reload.
 */
async function waitForSchema(
  absence: Failure,
  current: () => Prepared,
  { log, signals }: Parts,
  warn: (db: Database) => Promise<unknown>,
): Promise<void> {
  let error: Failure | undefined = absence
  while (!signals.requested.aborted) {
    const { databaseUrl, db } = current()
    const database = describeDatabase(databaseUrl)
    error ??= await findAbsence(db)
    if (error === undefined) {
      log.info({ database }, 'the database is there')
      await warn(db)
      return
    }
    log.warn({ database, error }, 'waiting for the database; meanwhile peers are refused for now')
    error = undefined
    await delay(WAIT_MS, undefined, { signal: signals.requested }).catch(() => {})
  }
}

/** Hosts, ports and name; nothing that is secret. */
function describeDatabase(url: Secret): string {
  const parsed = parseDatabaseUrl(url.reveal().toString())
  if ('wrong' in parsed) throw new Failure('SETTINGS_INVALID', `DATABASE_URL ${parsed.wrong}`)
  return parsed.description
}

function printHints(text: string): void {
  process.stderr.write(`\n${text}\n`)
}
