/**
 * A PgBouncer in transaction pooling before a server of the tests, set up as docs/operating.md says.
 * POPGRES_TEST_PGBOUNCER names its program, 1.21 or newer; with it the tests go through PgBouncer
 * where a node would, and what makes or ends databases goes to the server itself.
 */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { resolveAccount, SERVER_ENVIRONMENT } from '../../src/cli/embedded/account.ts'

const program = process.env.POPGRES_TEST_PGBOUNCER

/** Whether what a test opens goes through PgBouncer: sessions of the server are then not its own. */
export const isPooled = program !== undefined

export interface PgBouncer {
  port: number
  stop(): Promise<void>
}

/** @param url of the server, as its superuser; the role's password is asked of the server */
export async function startPgBouncer(url: string): Promise<PgBouncer> {
  if (program === undefined) throw new Error('POPGRES_TEST_PGBOUNCER names no program')
  checkVersion(program)
  const account = resolveAccount(undefined)
  const directory = mkdtempSync(join(tmpdir(), `popgres-test-${process.pid}-pgbouncer-`))
  const port = await freePort()
  const client = new pg.Client(url)
  await client.connect()
  const { rows } = await client.query('show port')
  await client.end()
  const { username, password } = new URL(url)
  const files = {
    'pgbouncer.ini': configuration(directory, port, Number(rows[0].port), username),
    'users.txt': `"${username}" "${decodeURIComponent(password)}"\n`,
  }
  chmodSync(directory, 0o755)
  for (const [name, text] of Object.entries(files)) {
    const file = join(directory, name)
    writeFileSync(file, text, { mode: 0o600 })
    if (account.ids !== undefined) chownSync(file, account.ids.uid, account.ids.gid)
  }
  const child = spawn(program, [join(directory, 'pgbouncer.ini')], {
    ...account.ids,
    cwd: '/',
    env: SERVER_ENVIRONMENT,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const exited = once(child, 'exit')
  let said = ''
  await new Promise<void>((resolve, reject) => {
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-4_000)
      if (/process up/.test(said)) resolve()
    })
    exited.then(() => reject(new Error(`PgBouncer has ended: ${said}`)))
  })
  return {
    port,
    stop: async () => {
      child.kill('SIGQUIT') // at once: clients may still be there
      await exited
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

function checkVersion(command: string): void {
  const text = execFileSync(command, ['--version'], { encoding: 'utf8' })
  const [, major = 0, minor = 0] = /PgBouncer (\d+)\.(\d+)/.exec(text) ?? []
  if (Number(major) === 1 && Number(minor) < 21)
    throw new Error(`${command} knows no prepared statements in transaction pooling: ${text}`)
}

/** PgBouncer cannot choose a port itself. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' ? (address?.port ?? 0) : 0
}

function configuration(
  directory: string,
  port: number,
  serverPort: number,
  superuser: string,
): string {
  return `[databases]
* = host=127.0.0.1 port=${serverPort}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = ${join(directory, 'users.txt')}
auth_user = ${superuser}
pool_mode = transaction
max_prepared_statements = 200
ignore_startup_parameters = lock_timeout,options
default_pool_size = 10
query_wait_timeout = 10
max_client_conn = 1000
`
}
