/**
 * The embedded PostgreSQL: a real server of this node's own, for a machine that has none.
 * Everything about it lies in POPGRES_DATA_DIR (or where a note there points, see
 * embedded/home.ts). `startEmbedded` is for the supervisor: it makes, starts, watches and stops
 * the server. `findEmbedded` is for a command that wants to use the database while the server
 * runs.
 */
import { existsSync, rmSync } from 'node:fs'
import { resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Failure } from '../base/failure.ts'
import type { Keyring } from '../base/keyring.ts'
import type { Log } from '../base/log.ts'
import { Secret } from '../base/secret.ts'
import { parseKeyring } from '../base/settings.ts'
import type { Account } from './embedded/account.ts'
import { type Binaries, prepareBinaries } from './embedded/binaries.ts'
import {
  cannotUse,
  findHome,
  firstStartFileOf,
  openHome,
  passwordFileOf,
  secretKeyFileOf,
  serverLogOf,
} from './embedded/home.ts'
import { DATABASE_NAME, ensurePgData, SUPERUSER_NAME } from './embedded/initdb.ts'
import {
  findPostmaster,
  lastPortOf,
  type Postmaster,
  socketDirectoryOf,
  startPostmaster,
  stopOrphan,
  stopProcess,
} from './embedded/postmaster.ts'
import { boundLogFile, openSecretFile, readSecretFile } from './embedded/private-files.ts'
import { acquireSupervisorLock } from './embedded/supervisor-lock.ts'

const SECRET_KEY_OCTETS = 32
const PASSWORD_OCTETS = 24
const LOG_MAX_OCTETS = 8 * 1024 * 1024
const LOG_CHECK_MS = 60_000
/** The sessions' share of the 10 s in which a node ends comes first. */
const STOP_MS = 2_500
const RESTART_MIN_MS = 100
const RESTART_MAX_MS = 30_000

export interface EmbeddedOptions {
  /** Directory of POPGRES_DATA_DIR; relative to the working directory. */
  dataDir: string
  log: Log
  /** For this many connections at the same time. */
  connectionsMax?: number
  /** False only for tests: a crash of the machine may then cost the database. */
  isDurable?: boolean
}

export interface Embedded {
  url: Secret
  keyring: Keyring
  /** True until `confirmFirstStart` was called once, over all starts. */
  isFirstStart: boolean
  confirmFirstStart(): void
  /** A PostgreSQL that a killed supervisor had left was stopped first. */
  wasOrphanStopped: boolean
  /** Idempotent; resolves when no process of it is left. */
  stop(): Promise<void>
}

/** @throws {Failure} EMBEDDED_POSTGRES whose message says what to do */
export async function startEmbedded(options: EmbeddedOptions): Promise<Embedded> {
  const { log } = options
  const dataDir = resolve(options.dataDir)
  const { home, account } = openHome(dataDir, log)
  let releaseLock = (): void => {}
  let keeper: PostmasterKeeper | undefined
  const stop = async (): Promise<void> => {
    await keeper?.stop()
    releaseLock()
  }
  try {
    releaseLock = acquireSupervisorLock(home)
    const wasOrphanStopped = await stopOrphan(home, log)
    const password = openSecretFile(passwordFileOf(home), PASSWORD_OCTETS)
    const keyFile = secretKeyFileOf(home)
    const keyring = keyringOf(keyFile, openSecretFile(keyFile, SECRET_KEY_OCTETS))
    const binaries = prepareBinaries(home, account, log)
    const isDurable = options.isDurable ?? true
    await ensurePgData(home, account, binaries, password, log, isDurable)
    const parameters = serverParameters(options.connectionsMax ?? 100, isDurable)
    keeper = new PostmasterKeeper(home, account, binaries, parameters, log)
    const port = await keeper.start()
    return {
      url: urlOf(home, password, port),
      keyring,
      isFirstStart: existsSync(firstStartFileOf(home)),
      confirmFirstStart: () => rmSync(firstStartFileOf(home), { force: true }),
      wasOrphanStopped,
      stop,
    }
  } catch (error) {
    await stop()
    throw error instanceof Failure ? error : cannotUse(home, error)
  }
}

/**
 * The embedded PostgreSQL that runs now, or undefined.
 * @throws {Failure} EMBEDDED_POSTGRES if this user may not read its password
 */
export async function findEmbedded(options: {
  dataDir: string
}): Promise<{ url: Secret; keyring: Keyring } | undefined> {
  const dataDir = resolve(options.dataDir)
  try {
    const home = findHome(dataDir)
    if (home === undefined) return undefined
    const running = findPostmaster(home)
    if (running === undefined) return undefined
    const url = urlOf(home, readSecretFile(passwordFileOf(home)), running.port)
    const keyFile = secretKeyFileOf(home)
    return { url, keyring: keyringOf(keyFile, readSecretFile(keyFile)) }
  } catch (error) {
    throw error instanceof Failure ? error : cannotUse(dataDir, error)
  }
}

/** psql understands it too: a host that begins with a slash is a socket's directory. */
function urlOf(home: string, password: Secret, port: number): Secret {
  const account = `${SUPERUSER_NAME}:${password.reveal().toString()}`
  const host = encodeURIComponent(socketDirectoryOf(home) ?? '127.0.0.1')
  return new Secret(`postgres://${account}@${host}:${port}/${DATABASE_NAME}`)
}

/** As POPGRES_SECRET_KEY parses. @throws {Failure} EMBEDDED_POSTGRES, naming the wrong line */
function keyringOf(file: string, secret: Secret): Keyring {
  const text = secret.reveal().toString()
  const keyring = parseKeyring(text)
  if (keyring !== undefined) return keyring
  const isWrong = (line: string): boolean => line.trim() !== '' && parseKeyring(line) === undefined
  const line = Math.max(0, text.split(/\r?\n/).findIndex(isWrong)) + 1
  throw new Failure(
    'EMBEDDED_POSTGRES',
    `${file}, line ${line}: a key is 64 hexadecimal digits, one a line`,
  )
}

function serverParameters(connectionsMax: number, isDurable: boolean): string[] {
  const parameters = [
    `max_connections=${Math.max(100, connectionsMax)}`,
    'shared_buffers=128MB', // modest: the machine may be small and shared
    'max_wal_size=1GB',
    'wal_compression=on', // of the whole pages that follow a checkpoint
    'jit=off', // statements are short
    // Docker gives /dev/shm 64 MB, which parallel queries of several sessions exceed.
    'max_parallel_workers_per_gather=0',
    'timezone=UTC',
  ]
  return isDurable ? parameters : [...parameters, 'fsync=off', 'full_page_writes=off']
}

/** Keeps one postmaster running, always at the same port, until it is told to stop. */
class PostmasterKeeper {
  readonly #home: string
  readonly #account: Account
  readonly #binaries: Binaries
  readonly #parameters: readonly string[]
  readonly #log: Log
  readonly #stopping = new AbortController()
  #current: Postmaster | undefined
  #watch: Promise<void> = Promise.resolve()
  #logTimer: NodeJS.Timeout | undefined

  constructor(
    home: string,
    account: Account,
    binaries: Binaries,
    parameters: readonly string[],
    log: Log,
  ) {
    this.#home = home
    this.#account = account
    this.#binaries = binaries
    this.#parameters = parameters
    this.#log = log
  }

  /** @returns the port */
  async start(): Promise<number> {
    this.#truncateLog()
    const last = lastPortOf(this.#home)
    const postmaster = await this.#startOnce(last, false)
    if (last !== undefined && postmaster.port !== last)
      this.#log.warn(
        { before: last, port: postmaster.port },
        'the port of PostgreSQL is taken by another: it has a new one',
      )
    this.#log.info({ postmaster: postmaster.pid, port: postmaster.port }, 'PostgreSQL is ready')
    this.#watch = this.#restartWhenItEnds(postmaster)
    this.#logTimer = setInterval(() => this.#truncateLog(), LOG_CHECK_MS).unref()
    return postmaster.port
  }

  async stop(): Promise<void> {
    clearInterval(this.#logTimer)
    this.#stopping.abort()
    const current = this.#current
    if (current !== undefined) {
      let hasEnded = false
      current.exited.then(() => {
        hasEnded = true
      })
      await stopProcess(current.pid, () => !hasEnded, STOP_MS)
    }
    await this.#watch
  }

  async #startOnce(port: number | undefined, isFirm: boolean): Promise<Postmaster> {
    const postmaster = await startPostmaster(
      this.#home,
      this.#account,
      this.#binaries,
      this.#parameters,
      port,
      isFirm,
    )
    this.#current = postmaster
    return postmaster
  }

  async #restartWhenItEnds(first: Postmaster): Promise<void> {
    const isStopping = (): boolean => this.#stopping.signal.aborted
    let postmaster = first
    let waitMs = RESTART_MIN_MS
    for (;;) {
      const end = await postmaster.exited
      this.#current = undefined
      while (!isStopping() && this.#current === undefined) {
        this.#log.error({ end, waitMs }, 'PostgreSQL has ended: starting it again')
        await delay(waitMs, undefined, { signal: this.#stopping.signal }).catch(() => {})
        waitMs = Math.min(waitMs * 2, RESTART_MAX_MS)
        if (isStopping()) break
        try {
          postmaster = await this.#startOnce(first.port, true)
          this.#log.info({ postmaster: postmaster.pid }, 'PostgreSQL is back')
          waitMs = RESTART_MIN_MS
        } catch (error) {
          this.#log.error({ error }, 'PostgreSQL does not start')
        }
      }
      if (isStopping()) break
    }
    // Stopped while it was starting again.
    const late: Postmaster | undefined = this.#current
    if (late !== undefined) await this.#stopLate(late)
  }

  async #stopLate(postmaster: Postmaster): Promise<void> {
    process.kill(postmaster.pid, 'SIGINT')
    await postmaster.exited
  }

  /** PostgreSQL appends: cutting the file is enough, and keeps it bounded. */
  #truncateLog(): void {
    try {
      boundLogFile(serverLogOf(this.#home), LOG_MAX_OCTETS)
    } catch (error) {
      this.#log.warn({ error }, "PostgreSQL's log cannot be kept short")
    }
  }
}
