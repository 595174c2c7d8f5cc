/**
 * The PostgreSQL of a run: the embedded one's programs, but started, killed and started again by us, so
 * that faults have it in their hands. Also the schema, and the role that nodes log in as.
 */
import pg from 'pg'
import { openLog } from '../../src/base/log.ts'
import { type Account, resolveAccount } from '../../src/cli/embedded/account.ts'
import { type Binaries, prepareBinaries } from '../../src/cli/embedded/binaries.ts'
import { pgDataOf } from '../../src/cli/embedded/home.ts'
import { type Postmaster, startPostmaster, stopProcess } from '../../src/cli/embedded/postmaster.ts'
import { startEmbedded } from '../../src/cli/embedded-postgres.ts'
import { migrate } from '../../src/storage/migrator.ts'
import { grantServing } from '../../src/storage/serving-role.ts'
import { openTestConnection } from '../support/postgres.ts'
import { MAKE_SERVING_ROLE, onServer, SERVING_ROLE } from '../support/postgres-setup.ts'
import { isRunning, untilGone } from '../support/processes.ts'
import type { TorturePostgres } from './fault.ts'
import { childrenOf } from './process-tree.ts'

const log = openLog('error')
const GONE_MS = 60_000
const STOP_MS = 20_000

/** No fault crashes Linux, so what PostgreSQL has written survives its death without fsync. */
export const PARAMETERS: readonly string[] = [
  'fsync=off',
  'full_page_writes=off',
  'max_connections=200',
  'shared_buffers=64MB',
  'max_wal_size=512MB',
  'jit=off',
  'max_parallel_workers_per_gather=0',
  'timezone=UTC',
]

/** Makes the data directory in `home`, migrates, and starts it. */
export async function makePostgres(
  home: string,
  parameters: readonly string[],
): Promise<PostgresServer> {
  const embedded = await startEmbedded({ dataDir: home, log, isDurable: false })
  const url = new URL(embedded.url.reveal().toString())
  try {
    const db = openTestConnection(url.toString())
    try {
      await migrate(db, log)
      await onServer(url.toString(), MAKE_SERVING_ROLE)
      await grantServing(db, SERVING_ROLE)
    } finally {
      await db.close()
    }
  } finally {
    await embedded.stop()
  }
  // A socket's directory otherwise; a proxy and a test want a port.
  url.hostname = '127.0.0.1'
  const server = new PostgresServer(home, url.toString(), parameters)
  await server.start()
  return server
}

export class PostgresServer implements TorturePostgres {
  readonly home: string
  readonly url: string
  parameters: string[]
  readonly #account: Account
  readonly #binaries: Binaries
  #postmaster: Postmaster | undefined

  /**
   * Not started yet.
   * @param home with the data directory in it, which has its owner
   * @param url of the superuser; its port is the server's
   */
  constructor(home: string, url: string, parameters: readonly string[]) {
    this.home = home
    this.url = url
    this.parameters = [...parameters]
    this.#account = resolveAccount(pgDataOf(home))
    this.#binaries = prepareBinaries(home, this.#account, log)
  }

  get pgData(): string {
    return pgDataOf(this.home)
  }

  get port(): number {
    return Number(new URL(this.url).port)
  }

  get pid(): number {
    return this.#postmaster?.pid ?? 0
  }

  async start(): Promise<void> {
    if (this.#postmaster !== undefined) throw new Error('PostgreSQL runs already')
    const { home, parameters, port } = this
    const started = await startPostmaster(home, this.#account, this.#binaries, parameters, port)
    this.#postmaster = started
    void started.exited.then(() => {
      if (this.#postmaster === started) this.#postmaster = undefined
    })
  }

  async kill(): Promise<void> {
    const postmaster = this.#postmaster
    if (postmaster === undefined) return
    const children = childrenOf(postmaster.pid)
    process.kill(postmaster.pid, 'SIGKILL')
    await postmaster.exited
    this.#postmaster = undefined
    await untilGone(() => children.some(isRunning), GONE_MS)
  }

  async stop(): Promise<void> {
    const postmaster = this.#postmaster
    if (postmaster === undefined) return
    await stopProcess(postmaster.pid, () => isRunning(postmaster.pid), STOP_MS)
    await postmaster.exited
    this.#postmaster = undefined
  }

  async query(statement: string, values?: readonly unknown[]): Promise<Record<string, unknown>[]> {
    const client = new pg.Client({ connectionString: this.url })
    client.on('error', () => {})
    await client.connect()
    try {
      const { rows } = await client.query(statement, values === undefined ? [] : [...values])
      return rows as Record<string, unknown>[]
    } finally {
      await client.end()
    }
  }
}
