/**
 * Popgres as a user gets it: `popgres serve` with the embedded PostgreSQL and default settings,
 * but for limits that would stop one machine from playing a thousand clients. pg_stat_statements
 * is added to PostgreSQL, which costs it a little. `attach` starts further nodes on the same
 * database, with other numbers of workers or through a slower network.
 */
import { once } from 'node:events'
import { chmodSync, closeSync, mkdirSync, openSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { PASSWORD, type Seed } from '../load/content.ts'
import { startDelayProxy } from '../load/delay-proxy.ts'
import { ProcessGroup } from '../measure/processes.ts'
import { type Certificate, makeCertificate } from './certificate.ts'
import { collectGarbage, collecting } from './garbage.ts'
import { type ExtraMaildrop, resetMail, seedMail } from './popgres-mail.ts'
import { setPasswords } from './popgres-passwords.ts'
import type { BenchServer, Endpoint } from './server.ts'

const PROJECT = fileURLToPath(new URL('../../..', import.meta.url))
/** Another build of the project may be measured. */
const DIST = resolve(process.env.BENCH_DIST ?? join(PROJECT, 'dist'))
/** For profiles of the server: --cpu-prof. */
const NODE_OPTIONS = process.env.BENCH_NODE_OPTIONS
const START_MS = 60_000
const ROLE = 'popgres_bench'

export interface NodeOptions {
  workers: number
  /** Its memory is to be measured. */
  canCollect?: boolean
  /** Milliseconds to the database and back, through a proxy; 0: the proxy's own. */
  delayMs?: number
  /** For this alone, whose memory nothing else has stretched. */
  purpose?: string
}

export interface PopgresServer extends BenchServer {
  readonly databaseUrl: string
  attach(options: NodeOptions): Promise<BenchServer>
}

interface Node {
  group: ProcessGroup
  pop3: Endpoint
  pop3s: Endpoint
  lmtp: Endpoint
  stop(): Promise<void>
}

export async function startPopgres(
  place: string,
  seed: Seed,
  workers = 2,
  extras: readonly ExtraMaildrop[] = [],
): Promise<PopgresServer> {
  const own = join(place, 'popgres')
  mkdirSync(own, { recursive: true })
  for (const directory of [place, own]) chmodSync(directory, 0o755) // PostgreSQL's account passes
  const certificate = await makeCertificate(own)
  const dataDir = join(own, 'data')
  const settings = { POPGRES_DATA_DIR: dataDir, POPGRES_WORKERS: String(workers) }
  const first = await startNode(own, 'popgres', certificate, settings)
  await run(urlOf(dataDir), "alter system set shared_preload_libraries = 'pg_stat_statements'")
  await first.stop()
  const node = await startNode(own, 'popgres', certificate, settings)
  const databaseUrl = urlOf(dataDir)
  try {
    const setCold = (): Promise<void> => setPasswords(DIST, databaseUrl, secretKeyOf(dataDir), seed)
    await seedMail(databaseUrl, seed, extras, setCold)
  } catch (error) {
    await node.stop()
    throw error
  }
  const database = new ProcessGroup('popgres-database')
  database.adopt(postmasterOf(dataDir).pid)
  const attached = new Set<BenchServer>()
  const pidsOf = (group: ProcessGroup) => () => {
    const ofDatabase = new Set(database.pids())
    const server = group.pids().filter((pid) => !ofDatabase.has(pid))
    return { server, database: [...ofDatabase] }
  }
  const base = {
    cannot: new Map<string, string>(),
    databaseUrl,
    reset: (workload: string): Promise<void> => resetMail(databaseUrl, workload),
  }
  const { group, stop, ...endpoints } = node
  let nodes = 0
  const attach = async (options: NodeOptions): Promise<BenchServer> => {
    const more = await startAttached(own, `popgres ${++nodes}`, certificate, options)
    const { group, stop, ...others } = more
    const pids = pidsOf(group)
    const collect = { collectGarbage: () => collectGarbage(own, pids().server) }
    const server: BenchServer = {
      ...base,
      ...others,
      nodeWorkers: options.workers,
      pids,
      ...(options.canCollect ? collect : {}),
      stop: async () => {
        if (attached.delete(server)) await stop()
      },
    }
    attached.add(server)
    return server
  }
  return {
    ...base,
    ...endpoints,
    name: 'popgres',
    nodeWorkers: workers,
    pids: pidsOf(group),
    attach,
    stop: async () => {
      for (const server of [...attached]) await server.stop()
      await stop()
      await database.close()
    },
  }
}

/** On the database of the first node. */
async function startAttached(
  own: string,
  id: string,
  certificate: Certificate,
  { workers, delayMs, canCollect = false }: NodeOptions,
): Promise<Node & { name: string; proxyPid?: number }> {
  const dataDir = join(own, 'data')
  const distance = delayMs === undefined ? `${workers} workers` : `${delayMs}ms`
  const proxy =
    delayMs === undefined ? undefined : await startDelayProxy(postmasterOf(dataDir).port, delayMs)
  const url = await makeRole(urlOf(dataDir))
  if (proxy !== undefined) {
    url.hostname = '127.0.0.1'
    url.port = String(proxy.port)
  }
  const name = `${id} ${distance}`
  const node = await startNode(own, name, certificate, {
    DATABASE_URL: url.toString(),
    POPGRES_SECRET_KEY: secretKeyOf(dataDir),
    POPGRES_WORKERS: String(workers),
    ...(canCollect ? { NODE_OPTIONS: collecting(own).join(' ') } : {}),
  })
  const stop = async (): Promise<void> => {
    await node.stop()
    await proxy?.stop()
  }
  return { ...node, name, stop, ...(proxy && { proxyPid: proxy.pid }) }
}

const secretKeyOf = (dataDir: string): string =>
  readFileSync(join(dataDir, 'secret-key'), 'utf8').trim()

/** @returns once it serves */
async function startNode(
  own: string,
  name: string,
  certificate: Certificate,
  settings: Record<string, string>,
): Promise<Node> {
  const group = new ProcessGroup(name)
  const log = openSync(join(own, `${name.replaceAll(' ', '-')}.log`), 'a')
  const child = group.spawn(process.execPath, [join(DIST, 'main.js'), 'serve'], {
    cwd: own,
    stdio: ['ignore', log, 'pipe'],
    env: {
      PATH: process.env.PATH,
      POPGRES_POP3_LISTEN: '127.0.0.1:0',
      POPGRES_POP3S_LISTEN: '127.0.0.1:0',
      POPGRES_LMTP_LISTEN: '127.0.0.1:0',
      POPGRES_HTTP_LISTEN: '',
      POPGRES_TLS_CERT: certificate.certFile,
      POPGRES_TLS_KEY: certificate.keyFile,
      POPGRES_CONNECTIONS_PER_NETWORK: '100000',
      POPGRES_SESSIONS_PER_DOMAIN: '100000',
      ...(NODE_OPTIONS === undefined ? {} : { NODE_OPTIONS }),
      ...settings,
    },
  })
  closeSync(log)
  const hasEnded = once(child, 'exit')
  let said = ''
  const timer = setTimeout(() => child.kill('SIGKILL'), START_MS)
  const endpointOf = (word: string): Endpoint | undefined => {
    const port = new RegExp(`\\n {2}${word} +\\S*:(\\d+)`).exec(said)?.[1]
    if (port === undefined) return undefined
    return { host: '127.0.0.1', port: Number(port), tls: word === 'POP3S' }
  }
  child.stderr?.setEncoding('utf8')
  await new Promise<void>((ready, fail) => {
    child.stderr?.on('data', (text: string) => {
      said += text
      if (/\n {2}LMTP .*\n/.test(said)) ready()
    })
    child.once('exit', (status) => fail(new Error(`popgres ended with ${status}: ${said}`)))
  })
  clearTimeout(timer)
  const [pop3, pop3s, lmtp] = ['POP3', 'POP3S', 'LMTP'].map(endpointOf)
  if (!pop3 || !pop3s || !lmtp) throw new Error(`popgres does not say where it listens: ${said}`)
  const stop = async (): Promise<void> => {
    child.kill('SIGTERM')
    await hasEnded
    await group.close()
  }
  return { group, pop3, pop3s, lmtp, stop }
}

/** What the embedded PostgreSQL leaves in the data directory. */
function postmasterOf(dataDir: string): { pid: number; port: number; host: string } {
  const file = readFileSync(join(dataDir, 'postgres', 'postmaster.pid'), 'utf8')
  const [pid, , , port, socketDirectory] = file.split('\n')
  if (!pid || !port) throw new Error('PostgreSQL does not run')
  return { pid: Number(pid), port: Number(port), host: socketDirectory || '127.0.0.1' }
}

function urlOf(dataDir: string): string {
  const password = readFileSync(join(dataDir, 'database-password'), 'utf8').trim()
  const { host, port } = postmasterOf(dataDir)
  return `postgres://popgres:${password}@${encodeURIComponent(host)}:${port}/popgres`
}

/** For attached nodes: the embedded one's own role gets another password at each start. */
async function makeRole(databaseUrl: string): Promise<URL> {
  const make = `do $$ begin create role ${ROLE} login password '${PASSWORD}';
    exception when duplicate_object then null; end $$`
  await run(databaseUrl, make, `select grant_serving('${ROLE}')`)
  const url = new URL(databaseUrl)
  url.username = ROLE
  url.password = PASSWORD
  return url
}

async function run(url: string, ...statements: string[]): Promise<void> {
  const client = new pg.Client(url)
  await client.connect()
  try {
    for (const statement of statements) await client.query(statement)
  } finally {
    await client.end()
  }
}
