/**
 * Many sessions that do nothing, as phones leave them: what they cost a node in memory, what happens
 * at its limit, and whether the memory comes back. The node is a process of its own and measures
 * itself after collecting its garbage and closing the gaps, without the space for new objects, which
 * has the size that V8 likes. Passwords are app passwords: real logins that cost no argon2.
 */
import { createHash } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { sql } from 'kysely'
import { expect } from 'vitest'
import { NodeProcess } from './node-process.ts'
import type { TestDatabase } from './postgres.ts'
import { servingUrl } from './postgres-setup.ts'

const APP_PASSWORD = 'abcdefghijklmnopqrstuvwx'
const SESSIONS_A_DOMAIN = 4_000
/** Below the 200 that POPGRES_CONNECTIONS_PER_NETWORK allows. */
const CLIENTS_AN_ADDRESS = 100
const AT_ONCE = 50
const WARM_UP = 300
const REFUSED = 20

/** On SIGUSR2: a line with the memory that is left after a collection. */
const COLLECT = `
import { readFileSync } from 'node:fs'
import { getHeapSpaceStatistics } from 'node:v8'
process.on('SIGUSR2', async () => {
  // Not gc({ type: 'major' }): in Node 20 that collects young objects only. What is found dead may
  // have to tell others first, and pages are given back by other threads: hence the turns.
  for (let round = 0; round < 8; round++) {
    gc()
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  const pss = Number(/^Pss:\\s+(\\d+)/m.exec(readFileSync('/proc/self/smaps_rollup', 'utf8'))[1])
  const young = getHeapSpaceStatistics().find((space) => space.space_name === 'new_space')
  const kib = pss - young.physical_space_size / 1024
  console.log(JSON.stringify({ level: 'info', pid: process.pid, msg: 'collected', kib }))
})`

export interface IdleFigures {
  sessions: number
  secondsToLogIn: number
  kibBefore: number
  kibWithAll: number
  kibAfter: number
  kibASession: number
}

export async function holdIdleSessions(
  database: TestDatabase,
  count: number,
): Promise<IdleFigures> {
  const domains = Math.ceil(count / SESSIONS_A_DOMAIN)
  await seed(database, count, domains)
  const node = new NodeProcess({
    env: {
      DATABASE_URL: servingUrl(database.url),
      POPGRES_WORKERS: '1',
      POPGRES_CONNECTIONS_MAX: String(count),
    },
    nodeOptions: ['--expose-gc', '--import', `data:text/javascript,${encodeURIComponent(COLLECT)}`],
  })
  try {
    const { pop3 } = await node.addresses()
    // Code is compiled and caches have their size before anything is measured.
    await quitAll(await logInAll(pop3, Math.min(count, WARM_UP), domains))
    const kibBefore = await measure(node)
    const begun = performance.now()
    const sessions = await logInAll(pop3, count, domains)
    const secondsToLogIn = (performance.now() - begun) / 1_000
    expect(await countRows(database)).toBe(count)
    const kibWithAll = await measure(node)

    for (let nth = 0; nth < REFUSED; nth++) expect(await refusalAt(pop3)).toMatch(TOO_MANY)
    const sample = sessions.filter((_, nth) => nth % 10 === 0)
    for (const session of sample) expect(await session.ask('STAT')).toBe('+OK 0 0')
    // A place that is given up is the next one's.
    await quitAll(sessions.splice(0, 1))
    sessions.push(await logInWhenOneFits(pop3, domains))

    await quitAll(sessions)
    expect(await countRows(database)).toBe(0)
    const kibAfter = await measure(node)
    const kibASession = (kibWithAll - kibBefore) / count
    return { sessions: count, secondsToLogIn, kibBefore, kibWithAll, kibAfter, kibASession }
  } finally {
    await node.destroy()
  }
}

const TOO_MANY = /^-ERR \[SYS\/TEMP\] too many connections, try again later$/

export function describeFigures(figures: IdleFigures): string {
  const mib = (kib: number): string => `${(kib / 1_024).toFixed(1)} MiB`
  const { sessions, secondsToLogIn, kibBefore, kibWithAll, kibAfter, kibASession } = figures
  return (
    `${sessions} idle sessions, logged in within ${secondsToLogIn.toFixed(1)} s: ` +
    `${kibASession.toFixed(1)} KiB a session (PSS of supervisor and worker: before ` +
    `${mib(kibBefore)}, with all ${mib(kibWithAll)}, after ${mib(kibAfter)})`
  )
}

async function seed({ db }: TestDatabase, count: number, domains: number): Promise<void> {
  const digest = createHash('sha256').update(APP_PASSWORD).digest()
  await sql`insert into domains (name)
    select 'd' || nth || '.idle.test' from generate_series(0, ${domains - 1}) nth`.execute(
    db.kysely,
  )
  await sql`insert into users (domain_id, local_part)
    select d.domain_id, 'u' || nth from generate_series(0, ${count - 1}) nth
    join domains d on d.name = 'd' || nth % ${domains} || '.idle.test'`.execute(db.kysely)
  await sql`insert into credentials (domain_id, user_id, kind, name, digest)
    select domain_id, user_id, 'app-password', 'phone', ${digest} from users`.execute(db.kysely)
  await sql`analyze`.execute(db.kysely)
}

async function countRows({ db }: TestDatabase): Promise<number> {
  const { rows } = await sql<{ count: number }>`select count(*)::int from sessions`.execute(
    db.kysely,
  )
  return rows[0]?.count ?? -1
}

/** @returns KiB of supervisor and worker */
async function measure(node: NodeProcess): Promise<number> {
  let kib = 0
  for (const pid of [node.pid, ...(await node.crew(1))]) {
    const from = node.records.length
    process.kill(pid, 'SIGUSR2')
    kib += Number((await node.record('collected', from)).kib)
  }
  return kib
}

class IdleSession {
  readonly closed: Promise<void>
  readonly #socket: Socket
  #text = ''
  #hear = (_: string): void => {}

  constructor(address: string, localAddress: string) {
    const [host = '', port] = address.split(':')
    this.#socket = connect({ host, port: Number(port), localAddress })
    this.#socket.setEncoding('latin1').on('data', (text: string) => {
      this.#text += text
      const end = this.#text.indexOf('\r\n')
      if (end === -1) return
      const line = this.#text.slice(0, end)
      this.#text = this.#text.slice(end + 2)
      this.#hear(line)
    })
    this.#socket.on('error', (error) => this.#hear(error.message))
    this.closed = new Promise((resolve) => this.#socket.once('close', () => resolve()))
  }

  line(): Promise<string> {
    return new Promise((resolve) => {
      this.#hear = resolve
      void this.closed.then(() => resolve('closed'))
    })
  }

  ask(command: string): Promise<string> {
    this.#socket.write(`${command}\r\n`)
    return this.line()
  }
}

/** The first users log in, each with an address that is shared by few. */
async function logInAll(address: string, count: number, domains: number): Promise<IdleSession[]> {
  const sessions: IdleSession[] = []
  let next = 0
  const work = async (): Promise<void> => {
    while (next < count) {
      const nth = next++
      sessions[nth] = await logIn(address, nth, domains)
    }
  }
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, count) }, work))
  return sessions
}

async function logIn(address: string, nth: number, domains: number): Promise<IdleSession> {
  const session = new IdleSession(address, sourceOf(nth))
  const greeting = await session.line()
  if (!greeting.startsWith('+OK')) throw new Error(greeting)
  expect(await session.ask(`USER u${nth}@d${nth % domains}.idle.test`)).toMatch(/^\+OK/)
  expect(await session.ask(`PASS ${APP_PASSWORD}`)).toMatch(/^\+OK/)
  return session
}

/** A place is free when the server is done with a connection, a moment after its client is. */
async function logInWhenOneFits(address: string, domains: number): Promise<IdleSession> {
  for (;;) {
    const session = await logIn(address, 0, domains).catch((error: Error) => error.message)
    if (typeof session !== 'string') return session
    expect(session).toMatch(TOO_MANY)
  }
}

/** 127.0.1.1, 127.0.1.2 and so on: all of them are this machine. */
function sourceOf(nth: number): string {
  const source = Math.floor(nth / CLIENTS_AN_ADDRESS)
  return `127.0.${1 + Math.floor(source / 250)}.${1 + (source % 250)}`
}

async function quitAll(sessions: readonly IdleSession[]): Promise<void> {
  for (const session of sessions) expect(await session.ask('QUIT')).toMatch(/^\+OK/)
  await Promise.all(sessions.map(({ closed }) => closed))
}

/** What one more is told, to the end. */
async function refusalAt(address: string): Promise<string> {
  const session = new IdleSession(address, '127.0.0.1')
  const line = await session.line()
  await session.closed
  return line
}
