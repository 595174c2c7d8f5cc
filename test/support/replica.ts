/**
 * PostgreSQL servers that a test may kill, and streaming replicas of them to fail over to. The
 * embedded programs have no pg_basebackup, so a replica is made as its documentation says by hand:
 * pg_backup_start, a copy of the data directory, pg_backup_stop, standby.signal.
 */
import { randomBytes } from 'node:crypto'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { openLog } from '../../src/base/log.ts'
import { Secret } from '../../src/base/secret.ts'
import { type Account, resolveAccount } from '../../src/cli/embedded/account.ts'
import { prepareBinaries } from '../../src/cli/embedded/binaries.ts'
import { pgDataOf } from '../../src/cli/embedded/home.ts'
import { DATABASE_NAME, ensurePgData, SUPERUSER_NAME } from '../../src/cli/embedded/initdb.ts'
import { type Postmaster, startPostmaster, stopProcess } from '../../src/cli/embedded/postmaster.ts'
import { isRunning } from './processes.ts'

const log = openLog('error')

/** A server of its own, at 127.0.0.1 and at one port for all its life. */
export class PostgresServer {
  /** Of its superuser and the database `popgres`, through TCP. */
  readonly url: string
  readonly port: number
  readonly #home: string
  readonly #account: Account
  readonly #parameters: readonly string[]
  #postmaster: Postmaster

  private constructor(
    home: string,
    account: Account,
    parameters: readonly string[],
    password: string,
    postmaster: Postmaster,
  ) {
    this.#home = home
    this.#account = account
    this.#parameters = parameters
    this.#postmaster = postmaster
    this.port = postmaster.port
    this.url = `postgres://${SUPERUSER_NAME}:${password}@127.0.0.1:${this.port}/${DATABASE_NAME}`
  }

  /** @param home whose data directory is there */
  static async open(
    home: string,
    account: Account,
    parameters: readonly string[],
    password: string,
  ): Promise<PostgresServer> {
    const postmaster = await start(home, account, parameters, undefined)
    return new PostgresServer(home, account, parameters, password, postmaster)
  }

  /** Of the postmaster. */
  get pid(): number {
    return this.#postmaster.pid
  }

  /** As an operator stops it: connections are told. Nothing of it stays if `isForGood`. */
  async stop(isForGood = true): Promise<void> {
    await stopProcess(this.pid, () => isRunning(this.pid), 10_000)
    if (isForGood) rmSync(this.#home, { recursive: true, force: true, maxRetries: 3 })
  }

  /** kill -9 of all its processes: nobody is told. */
  async kill(): Promise<void> {
    const children = readFileSync(`/proc/${this.pid}/task/${this.pid}/children`, 'utf8')
    for (const pid of [this.pid, ...children.split(' ').filter(Boolean).map(Number)]) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // It has ended by itself.
      }
    }
    await this.#postmaster.exited
  }

  /** Again, after `stop(false)` or `kill`. */
  async start(): Promise<void> {
    this.#postmaster = await start(this.#home, this.#account, this.#parameters, this.port)
  }

  /** One statement of its superuser, on a connection of its own. */
  async query(text: string, values: unknown[] = []): Promise<Record<string, unknown>[]> {
    const client = new pg.Client(this.url)
    client.on('error', () => {}) // killed under it
    await client.connect()
    try {
      return (await client.query(text, values)).rows
    } finally {
      await client.end()
    }
  }
}

export interface Replica {
  url: string
  server: PostgresServer
  /** Resolves when it can be written to. */
  promote(): Promise<void>
  stop(): Promise<void>
}

/** @param parameters of the server, `name=value`, besides those for tests */
export async function startPrimary(parameters: readonly string[] = []): Promise<PostgresServer> {
  const { home, account } = makeHome('primary')
  const password = randomBytes(12).toString('hex')
  const binaries = prepareBinaries(home, account, log)
  await ensurePgData(home, account, binaries, new Secret(password), log, false)
  const all = ['max_connections=200', 'fsync=off', ...parameters]
  return PostgresServer.open(home, account, all, password)
}

/**
 * @param primary a server on this machine; its URL is a superuser's
 * @param options isSynchronous: from now on the primary's commits wait for this replica
 */
export async function startReplica(
  primary: { url: string },
  options: { isSynchronous?: boolean } = {},
): Promise<Replica> {
  const name = `replica_${randomBytes(4).toString('hex')}`
  const { home, account } = makeHome('replica')
  const client = new pg.Client(primary.url)
  await client.connect()
  try {
    const parameters = await copyPrimary(client, pgDataOf(home), name, account)
    const password = decodeURIComponent(new URL(primary.url).password)
    const server = await PostgresServer.open(home, account, parameters, password)
    await until(
      client,
      `select from pg_stat_replication where state = 'streaming'
      and application_name = '${name}'`,
    )
    if (options.isSynchronous) await makeSynchronous(client, name)
    return {
      url: server.url,
      server,
      promote: async () => {
        await server.query('select pg_promote(true, 60)')
      },
      stop: () => server.stop(),
    }
  } finally {
    await client.end()
  }
}

async function start(
  home: string,
  account: Account,
  parameters: readonly string[],
  port: number | undefined,
): Promise<Postmaster> {
  return startPostmaster(home, account, prepareBinaries(home, account, log), parameters, port)
}

function makeHome(kind: string): { home: string; account: Account } {
  // Named so that the next run removes what a killed one has left: see postgres-setup.ts.
  const home = mkdtempSync(join(tmpdir(), `popgres-test-${process.pid}-${kind}-`))
  chmodSync(home, 0o755) // as root, PostgreSQL's account has to get in
  return { home, account: resolveAccount(undefined) }
}

/** Of these directories only the names are part of a backup. */
const EMPTY = /\/(pg_wal|pg_replslot|pg_dynshmem|pg_notify|pg_serial|pg_snapshots|pg_subtrans)$/
const LEFT_OUT = /^(postmaster\.(pid|opts)|pgsql_tmp.*|\.s\.PGSQL.*|pg_internal\.init.*)$/

/** @returns parameters that a replica must have as its primary has them */
async function copyPrimary(
  client: pg.Client,
  to: string,
  name: string,
  account: Account,
): Promise<string[]> {
  const show = async (parameter: string): Promise<string> =>
    (await client.query('select current_setting($1) as value', [parameter])).rows[0].value
  await client.query('select pg_create_physical_replication_slot($1, true)', [name])
  await client.query('select pg_backup_start($1, true)', [name])
  const from = await show('data_directory')
  copyDirectory(from, to)
  for (const directory of ['pg_wal/archive_status', 'pg_wal/summaries'])
    mkdirSync(join(to, directory), { recursive: true })
  const { rows } = await client.query('select labelfile from pg_backup_stop(false)')
  writeFileSync(join(to, 'backup_label'), rows[0].labelfile)
  writeFileSync(join(to, 'standby.signal'), '')
  const { user, password } = client
  const conninfo =
    `host=127.0.0.1 port=${await show('port')} user=${user} password=${password} ` +
    `application_name=${name}`
  appendFileSync(
    join(to, 'postgresql.auto.conf'),
    `\nprimary_conninfo = '${conninfo}'\nprimary_slot_name = '${name}'\n` +
      "synchronous_standby_names = ''\nhot_standby_feedback = on\n",
  )
  giveTo(to, account)
  const parameters = ['fsync=off']
  for (const same of ['max_connections', 'max_worker_processes', 'max_wal_senders'])
    parameters.push(`${same}=${await show(same)}`)
  return parameters
}

/** Of a running server: what vanishes meanwhile is replayed from the WAL. */
function copyDirectory(from: string, to: string): void {
  mkdirSync(to, { mode: 0o700 })
  if (EMPTY.test(from)) return
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    if (LEFT_OUT.test(entry.name)) continue
    const [source, target] = [join(from, entry.name), join(to, entry.name)]
    try {
      if (entry.isDirectory()) copyDirectory(source, target)
      else if (entry.isFile()) copyFileSync(source, target)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
  }
}

function giveTo(path: string, account: Account): void {
  if (account.ids === undefined) return
  chownSync(path, account.ids.uid, account.ids.gid)
  if (!statSync(path).isDirectory()) return
  for (const name of readdirSync(path)) giveTo(join(path, name), account)
}

async function makeSynchronous(client: pg.Client, name: string): Promise<void> {
  await client.query(`alter system set synchronous_standby_names = '${name}'`)
  await client.query('select pg_reload_conf()')
  await until(
    client,
    `select from pg_stat_replication where sync_state = 'sync'
    and application_name = '${name}'`,
  )
}

/** PostgreSQL tells nobody: it is asked again. */
async function until(client: pg.Client, rowsOf: string): Promise<void> {
  const deadline = performance.now() + 60_000
  for (;;) {
    if (((await client.query(rowsOf)).rowCount ?? 0) > 0) return
    if (performance.now() > deadline) throw new Error(`never true: ${rowsOf}`)
    await client.query('select pg_sleep(0.02)')
  }
}
