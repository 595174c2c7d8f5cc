/**
 * Starts and stops one postmaster. It gets a session of its own, so Ctrl-C in a terminal, which
 * goes to the whole process group, reaches the supervisor and not PostgreSQL: the supervisor ends
 * it when the workers are done. A postmaster that outlived its supervisor (kill -9) is recognised
 * by its pid file and command line and stopped before a new one starts: one way to come into
 * being is simpler than two, and takes half a second. It listens on TCP at 127.0.0.1, and on a Unix
 * socket in its data directory if that does not lie too deep: octets through a socket cost both
 * sides about half of what they cost through TCP.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { closeSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Failure } from '../../base/failure.ts'
import type { Log } from '../../base/log.ts'
import { type Account, SERVER_ENVIRONMENT } from './account.ts'
import type { Binaries } from './binaries.ts'
import { pgDataOf, serverLogOf } from './home.ts'
import { openLogFile } from './private-files.ts'
import { commandLine, isAlive } from './processes.ts'

/** Nobody waits for the end of an orphan; its last checkpoint may be a large one. */
const ORPHAN_STOP_MS = 30_000
const BY_FORCE_MS = 500
const START_MS = 120_000 // crash recovery replays at most max_wal_size
const POLL_MS = 20
/** LIMIT: sockaddr_un.sun_path, with its NUL, is 104 octets in macOS and 108 in Linux. */
const SOCKET_PATH_MAX_OCTETS = 103

/** What postmaster.pid tells; `status` is `ready` once it accepts connections. */
interface PidFile {
  pid: number
  port: number
  status: string
}

export interface Postmaster {
  pid: number
  port: number
  /** Resolves, with what it ended by, however it ended. */
  exited: Promise<string>
}

/** undefined: there is no such file, or it is not complete yet. */
function readPidFile(home: string): PidFile | undefined {
  let lines: string[]
  try {
    lines = readFileSync(join(pgDataOf(home), 'postmaster.pid'), 'utf8').split('\n')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  const [pid, , , port, , , , status] = lines
  if (port === undefined || status === undefined) return undefined
  return { pid: Number(pid), port: Number(port), status: status.trim() }
}

/**
 * The port of the last start, from what PostgreSQL itself has written down; undefined: it never
 * started. Files of others name it (an MTA's maps), so it is kept while nobody else has it.
 */
export function lastPortOf(home: string): number | undefined {
  try {
    const options = readFileSync(join(pgDataOf(home), 'postmaster.opts'), 'utf8')
    const port = Number(/"port=(\d{1,5})"/.exec(options)?.[1])
    return port >= 1024 && port <= 65_535 ? port : undefined
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/** The running postmaster of this home, if there is one. */
export function findPostmaster(home: string): PidFile | undefined {
  const file = readPidFile(home)
  return file !== undefined && isPostmasterOf(home, file.pid) ? file : undefined
}

function isPostmasterOf(home: string, pid: number): boolean {
  return isAlive(pid) && (commandLine(pid)?.includes(`-D\0${pgDataOf(home)}\0`) ?? false)
}

/**
 * Where the socket is, which only the server's account and root reach; undefined: the path would be
 * too long for one.
 */
export function socketDirectoryOf(home: string): string | undefined {
  const directory = pgDataOf(home)
  const longest = join(directory, '.s.PGSQL.65535')
  return Buffer.byteLength(longest) > SOCKET_PATH_MAX_OCTETS ? undefined : directory
}

/** @returns true if one was left over from a supervisor that was killed */
export async function stopOrphan(home: string, log: Log): Promise<boolean> {
  const file = readPidFile(home)
  if (file === undefined) return false
  if (!isAlive(file.pid)) return false
  if (!isPostmasterOf(home, file.pid)) {
    // PostgreSQL would refuse to start because of any process with that number.
    rmSync(join(pgDataOf(home), 'postmaster.pid'), { force: true })
    return false
  }
  log.warn(
    { postmaster: file.pid },
    'stopping the PostgreSQL that an earlier supervisor left behind',
  )
  await stopProcess(file.pid, () => isPostmasterOf(home, file.pid), ORPHAN_STOP_MS)
  return true
}

/**
 * Fast (running transactions are rolled back), then immediate (the next start recovers), then by
 * force.
 */
export async function stopProcess(
  pid: number,
  isRunning: () => boolean,
  fastMs: number,
): Promise<void> {
  for (const signal of ['SIGINT', 'SIGQUIT', 'SIGKILL'] as const) {
    try {
      process.kill(pid, signal)
    } catch {
      return // it is gone
    }
    const deadline = performance.now() + (signal === 'SIGINT' ? fastMs : BY_FORCE_MS)
    while (isRunning()) {
      if (performance.now() > deadline) break
      await delay(POLL_MS)
    }
    if (!isRunning()) return
  }
}

/**
 * @param parameters server parameters, `name=value`
 * @param port the one to try first; undefined: any free one
 * @param isFirm no other will do: after a crash the workers know this one
 * @throws {Failure} EMBEDDED_POSTGRES with the end of PostgreSQL's log
 */
export async function startPostmaster(
  home: string,
  account: Account,
  binaries: Binaries,
  parameters: readonly string[],
  port: number | undefined,
  isFirm = port !== undefined,
): Promise<Postmaster> {
  for (let attempt = 1; ; attempt++) {
    // PostgreSQL cannot choose a port itself. Below 32768 no outgoing connection takes it.
    const isAgain = isFirm || attempt === 1
    const candidate = (isAgain ? port : undefined) ?? randomInt(15_000, 32_000)
    const logFrom = statSync(serverLogOf(home), { throwIfNoEntry: false })?.size ?? 0
    const child = spawnPostmaster(home, account, binaries, parameters, candidate)
    const exited = new Promise<string>((resolve) => {
      child.once('error', (error) => resolve(error.message))
      child.once('exit', (status, signal) => resolve(signal ?? `exit status ${status}`))
    })
    const end = await Promise.race([exited, untilReady(home, child)])
    if (end === 'ready') return { pid: child.pid ?? 0, port: candidate, exited }
    const said = readFileSync(serverLogOf(home), 'utf8').slice(logFrom).trim()
    const isTaken = /could not bind|could not create any TCP/.test(said)
    if (isTaken && !isFirm && attempt < 20) continue
    const lines = said.split('\n').slice(-5).join(' | ')
    throw new Failure('EMBEDDED_POSTGRES', `PostgreSQL does not start (${end}): ${lines}`)
  }
}

function spawnPostmaster(
  home: string,
  account: Account,
  binaries: Binaries,
  parameters: readonly string[],
  port: number,
): ChildProcess {
  const log = openLogFile(serverLogOf(home))
  const all = [
    `port=${port}`,
    'listen_addresses=127.0.0.1',
    `unix_socket_directories=${quoted(socketDirectoryOf(home))}`,
    'unix_socket_permissions=0700',
    'logging_collector=off',
    'log_destination=stderr',
    'log_line_prefix=%m [%p] ',
    'log_timezone=UTC',
    // Errors of statements are the asking worker's to log; here they would only fill the disk.
    'log_min_messages=log',
    'log_checkpoints=off',
    ...parameters,
  ]
  const args = ['-D', pgDataOf(home), ...all.flatMap((text) => ['-c', text])]
  try {
    return spawn(binaries.postgres, args, {
      ...account.ids,
      cwd: '/',
      env: SERVER_ENVIRONMENT,
      stdio: ['ignore', log, log],
      detached: true,
    })
  } finally {
    closeSync(log)
  }
}

/** As an element of a list of directories. */
function quoted(directory: string | undefined): string {
  return directory === undefined ? '' : `"${directory.replaceAll('"', '""')}"`
}

async function untilReady(home: string, child: ChildProcess): Promise<string> {
  const deadline = performance.now() + START_MS
  while (performance.now() < deadline) {
    const file = readPidFile(home)
    if (file?.pid === child.pid && file?.status === 'ready') return 'ready'
    if (child.exitCode !== null || child.signalCode !== null) return 'it ended'
    await delay(POLL_MS)
  }
  child.kill('SIGQUIT')
  return `not ready after ${START_MS / 1_000} s`
}
