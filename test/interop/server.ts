/**
 * The real server, as an operator starts it, on a clone of the test database; and users and mail
 * for one test. Every test has users of its own, so tests do not meet.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { type AddressInfo, connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { addUser, openTestDatabase, TEST_SECRET_KEY_HEX } from '../support/postgres.ts'

const PROJECT = resolve(dirname(fileURLToPath(import.meta.url)), '..', '..')
const START_DEADLINE_MS = 60_000
const STOP_DEADLINE_MS = 15_000

export const HOST = '127.0.0.1'
export const HOSTNAME = 'pop.interop.test'
export const DOMAIN = 'interop.test'
export const PASSWORD = 'correct horse 77'
/** Not the password: whoever logs in by APOP has proven this one. */
export const APOP_SECRET = 'tanstaaf-interop'

export interface InteropServer {
  pop3Port: number
  lmtpPort: number
  /** A directory for the clients' files, removed at the end. */
  directory: string
  /** @returns the address; it has the password, and the APOP secret if the server can do APOP */
  addUser(name: string): Promise<string>
  /** What the server wrote so far, for a test that failed. */
  output(): string
  stop(): Promise<void>
}

/** @param options.hasApop whether the server has a secret key, so that its greeting offers APOP */
export async function startServer(options: { hasApop: boolean }): Promise<InteropServer> {
  const database = await openTestDatabase()
  const directory = mkdtempSync(join(tmpdir(), 'popgres-interop-'))
  const [pop3Port, lmtpPort] = await Promise.all([freePort(), freePort()])
  if (options.hasApop) await addUser(database.db, `apop@${DOMAIN}`, { apopSecret: APOP_SECRET })
  const env = {
    ...environment(),
    DATABASE_URL: database.url,
    POPGRES_DATA_DIR: join(directory, 'data'),
    POPGRES_POP3_LISTEN: `${HOST}:${pop3Port}`,
    POPGRES_LMTP_LISTEN: `${HOST}:${lmtpPort}`,
    POPGRES_HOSTNAME: HOSTNAME,
    POPGRES_WORKERS: '2',
    POPGRES_SECRET_KEY: options.hasApop ? TEST_SECRET_KEY_HEX : '',
  }
  const main = join(PROJECT, 'dist', 'main.js')
  const child = spawn(process.execPath, [main, 'serve'], { cwd: directory, env })
  const chunks: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
  child.stderr.on('data', (chunk: Buffer) => chunks.push(chunk))
  const output = (): string => Buffer.concat(chunks).toString('utf8')
  const stop = async (): Promise<void> => {
    await stopChild(child)
    await database.close()
    rmSync(directory, { recursive: true, force: true })
  }
  try {
    for (const port of [pop3Port, lmtpPort]) await greeted(port, child, output)
  } catch (error) {
    await stop()
    throw error
  }
  return {
    pop3Port,
    lmtpPort,
    directory,
    output,
    stop,
    addUser: async (name) => {
      const address = `${name}@${DOMAIN}`
      const apop = options.hasApop ? { apopSecret: APOP_SECRET } : {}
      await addUser(database.db, address, { password: PASSWORD, ...apop })
      return address
    },
  }
}

/** Ours without settings of the one who runs the tests. */
function environment(): NodeJS.ProcessEnv {
  const entries = Object.entries(process.env)
  return Object.fromEntries(entries.filter(([name]) => !name.startsWith('POPGRES_')))
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, HOST)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** Until the port greets. There is no event for it, so it is asked for until the deadline. */
async function greeted(port: number, child: ChildProcess, output: () => string): Promise<void> {
  const deadline = performance.now() + START_DEADLINE_MS
  while (performance.now() < deadline) {
    if (child.exitCode !== null) break
    if (await isGreeting(port)) return
    await wait(50)
  }
  throw new Error(`the server does not greet on port ${port}; it wrote:\n${output()}`)
}

function isGreeting(port: number): Promise<boolean> {
  return new Promise((done) => {
    const socket = connect(port, HOST)
    const finish = (isGreeted: boolean): void => {
      socket.destroy()
      done(isGreeted)
    }
    socket.once('data', (chunk) => finish(/^(?:\+OK|220) /.test(chunk.toString('latin1'))))
    socket.once('error', () => finish(false))
    socket.once('end', () => finish(false))
  })
}

async function stopChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exit = once(child, 'exit')
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_DEADLINE_MS)
  await exit
  clearTimeout(timer)
}
