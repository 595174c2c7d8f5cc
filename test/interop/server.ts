/**
 * The real server, as an operator starts it, on a clone of the test database; and users and mail
 * for one test. Every test has users of its own, so tests do not meet.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { addUser } from '../../src/admin/operations/users.ts'
import { Secret } from '../../src/base/secret.ts'
import { TestAuthority } from '../support/certificates.ts'
import {
  addDomain,
  openTestDatabase,
  TEST_KEYRING,
  TEST_SECRET_KEY_HEX,
  type TestDatabase,
} from '../support/postgres.ts'

const PROJECT = resolve(dirname(fileURLToPath(import.meta.url)), '..', '..')
const START_DEADLINE_MS = 60_000
const STOP_DEADLINE_MS = 15_000

export const HOST = '127.0.0.1'
/** The same by name: the one in the certificate. */
export const HOST_NAME = 'localhost'
export const HOSTNAME = 'pop.interop.test'
export const DOMAIN = 'interop.test'
export const PASSWORD = 'correct horse 77'
/** Not the password: whoever logs in by APOP has proven this one. */
export const APOP_SECRET = 'tanstaaf-interop'

export interface InteropServer {
  pop3Port: number
  pop3sPort: number
  lmtpPort: number
  databaseUrl: string
  /** A directory for the clients' files, removed at the end. */
  directory: string
  /** PEM file: the authority that vouches for the server, and one that does not. */
  caFile: string
  otherCaFile: string
  /** @returns the address; it has the password, and the APOP secret if the server can do APOP */
  addUser(name: string): Promise<string>
  /** For what a test changes or asks beside the server. */
  database: TestDatabase
  /** What the server wrote so far, for a test that failed. */
  output(): string
  stop(): Promise<void>
}

/**
 * @param options.hasApop whether users have an APOP secret: then the greeting offers it
 * @param options.hasSasl whether SASL mechanisms are offered; default: yes
 */
export async function startServer(options: {
  hasApop: boolean
  hasSasl?: boolean
}): Promise<InteropServer> {
  const database = await openTestDatabase()
  const directory = mkdtempSync(join(tmpdir(), 'popgres-interop-'))
  const [pop3Port, pop3sPort, lmtpPort] = await Promise.all([freePort(), freePort(), freePort()])
  const tls = await writeCertificates(directory)
  const newUser = (name: string): Promise<string> =>
    addUser(database.db, `${name}@${DOMAIN}`, {
      password: new Secret(PASSWORD),
      apopSecret: options.hasApop ? new Secret(APOP_SECRET) : undefined,
      quotaOctets: undefined,
      keyring: TEST_KEYRING,
    })
  await addDomain(database.db, DOMAIN)
  // What nobody could use is not offered; and what is, is looked up at the start.
  await newUser('first')
  const env = {
    ...environment(),
    DATABASE_URL: database.url,
    POPGRES_DATA_DIR: join(directory, 'data'),
    POPGRES_POP3_LISTEN: `${HOST}:${pop3Port}`,
    POPGRES_POP3S_LISTEN: `${HOST}:${pop3sPort}`,
    POPGRES_TLS_CERT: tls.certFile,
    POPGRES_TLS_KEY: tls.keyFile,
    POPGRES_LMTP_LISTEN: `${HOST}:${lmtpPort}`,
    POPGRES_HTTP_LISTEN: '',
    POPGRES_HOSTNAME: HOSTNAME,
    POPGRES_WORKERS: '2',
    POPGRES_SECRET_KEY: TEST_SECRET_KEY_HEX,
    ...(options.hasSasl === false && { POPGRES_SASL_MECHANISMS: '' }),
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
  const { caFile, otherCaFile } = tls
  const ports = { pop3Port, pop3sPort, lmtpPort }
  const databaseUrl = database.url
  return {
    ...ports,
    databaseUrl,
    directory,
    caFile,
    otherCaFile,
    database,
    output,
    stop,
    addUser: newUser,
  }
}

/** Made anew at each start, so that nothing in the repository expires. */
async function writeCertificates(
  directory: string,
): Promise<Record<'certFile' | 'keyFile' | 'caFile' | 'otherCaFile', string>> {
  const [authority, other] = await Promise.all([
    TestAuthority.create('Interop authority'),
    TestAuthority.create('Another authority'),
  ])
  const { cert, key } = await authority.issue([HOST_NAME])
  const write = (name: string, pem: string): string => {
    const file = join(directory, name)
    writeFileSync(file, pem, { mode: 0o600 })
    return file
  }
  return {
    certFile: write('cert.pem', cert),
    keyFile: write('key.pem', key),
    caFile: write('ca.pem', authority.cert),
    otherCaFile: write('other-ca.pem', other.cert),
  }
}

/** Ours without settings of the one who runs the tests. */
function environment(): NodeJS.ProcessEnv {
  const entries = Object.entries(process.env)
  return Object.fromEntries(entries.filter(([name]) => !name.startsWith('POPGRES_')))
}

/** Below those that the system gives to outgoing connections, which would be in the way. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(10_000, 32_000)
    const server = createServer().listen(port, HOST)
    const isFree = await once(server, 'listening').then(
      () => true,
      () => false,
    )
    if (!isFree) continue
    server.close()
    await once(server, 'close')
    return port
  }
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
