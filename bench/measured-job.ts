/** One workload on one server, once: the job, and the server's CPU, memory and SQL meanwhile. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Job, JobResult } from './load/job.ts'
import { runJob, runShared } from './load/run-job.ts'
import {
  type DatabaseMeter,
  type DatabaseReading,
  type DatabaseWork,
  type Statement,
  workBetween,
} from './measure/database.ts'
import { cpuMillis, pssKib } from './measure/processes.ts'
import type { Workload } from './plan.ts'
import type { Figures, Row } from './report/results.ts'
import type { BenchServer } from './servers/server.ts'

/** From one look at the memory to the next: the server works meanwhile. */
const SAMPLE_MS = 100
const SETTLE_MS = 1_500
/** Above this share of a core the generator may have been what was measured. */
const GENERATOR_BUSY = 0.9
/**
 * Of the nodes' heartbeats and background work: they come by the clock, not by the session. What is
 * not known here counts as a session's.
 */
const BACKGROUND = new RegExp(
  [
    '\\bnodes\\b',
    'where (s\\.)?node_id = \\$\\d',
    'from oauth_providers\\)',
    'from users where (apop_secret|scram_keys) is not null\\)',
    '^select coalesce\\(max\\(p\\.delay\\)',
    '^delete from (known_networks k|throttles t|last_logins) where',
    'expire_messages',
    '^(begin|commit)$',
  ].join('|'),
  'i',
)

export async function measure(
  server: BenchServer,
  workload: Workload,
  job: Job,
  meter: DatabaseMeter | undefined,
): Promise<Row> {
  if (workload.load === 'lmtp') await meter?.checkpoint()
  const before = await meter?.read()
  // Of long sessions only what lies between login and QUIT is a message's; of WAL what a checkpoint
  // makes dear is over when the warm-up is.
  const isInside = ['retr', 'retr-pipelined', 'lmtp'].includes(workload.load)
  const watched = new Watched(server, workload, isInside ? meter : undefined)
  const { generators = 1 } = workload
  const result =
    generators > 1 ? await runShared(job, generators, watched) : await runJob(job, watched)
  await watched.stop()
  const after = await meter?.read()
  const work = before && after ? workBetween(before, after) : undefined
  const inside = await watched.work
  return toRow(server, workload, result, watched, work, inside)
}

class Watched {
  readonly #server: BenchServer
  readonly #meter: DatabaseMeter | undefined
  readonly #isSession: boolean
  readonly #idle: { sessions: number; kib: number }[] = []
  #looks: Promise<number[]> | undefined
  #isOver = false
  #cpu = { server: 0, database: 0, proxy: 0 }
  #readings: Promise<DatabaseReading>[] = []

  constructor(server: BenchServer, workload: Workload, meter: DatabaseMeter | undefined) {
    this.#server = server
    this.#meter = meter
    this.#isSession = workload.isSession === true
  }

  readonly onBegin = (): void => {
    this.#readDatabase()
    this.#cpu = this.#readCpu()
    if (this.#isSession) this.#looks = this.#look(() => this.#isOver)
  }

  readonly onEnd = (): void => {
    this.#isOver = true
    this.#readDatabase()
    const { server, database, proxy } = this.#readCpu()
    this.#cpu = {
      server: server - this.#cpu.server,
      database: database - this.#cpu.database,
      proxy: proxy - this.#cpu.proxy,
    }
  }

  readonly onReady = async (sessions: number): Promise<void> => {
    if (this.#isSession) {
      const since = performance.now()
      const looks = await this.#look(() => performance.now() - since > SETTLE_MS)
      this.#idle.push({ sessions, kib: Math.min(...looks) })
      return
    }
    await this.#server.collectGarbage?.()
    await delay(SETTLE_MS)
    const { server, database } = this.#server.pids()
    this.#idle.push({ sessions, kib: pssKib(server) + pssKib(database) })
  }

  /** Between begin and end. */
  get work(): Promise<DatabaseWork | undefined> {
    return Promise.all(this.#readings).then(([begin, end]) =>
      begin && end ? workBetween(begin, end) : undefined,
    )
  }

  get cpuMs(): { server: number; database: number; proxy: number } {
    return this.#cpu
  }

  /** Of a session: what each further idle one took, or the most by which a busy one grew it. */
  get memoryKib(): number | undefined {
    const [first, last] = this.#idle
    if (first === undefined || last === undefined) return undefined
    return (last.kib - first.kib) / (last.sessions - first.sessions)
  }

  async stop(): Promise<void> {
    this.#isOver = true
    const looks = await this.#looks
    if (looks !== undefined) this.#idle.push({ sessions: 1, kib: Math.max(...looks) })
  }

  /** What is in use, again and again; Node servers collect their garbage just before. */
  async #look(isEnough: () => boolean): Promise<number[]> {
    const looks: number[] = []
    do {
      const collected = await this.#server.collectGarbage?.()
      looks.push(collected ?? pssKib(this.#server.pids().server))
      await delay(SAMPLE_MS)
    } while (!isEnough())
    return looks
  }

  #readDatabase(): void {
    if (this.#meter !== undefined) this.#readings.push(this.#meter.read())
  }

  #readCpu(): { server: number; database: number; proxy: number } {
    const { server, database } = this.#server.pids()
    const { proxyPid } = this.#server
    return {
      server: cpuMillis(server),
      database: cpuMillis(database),
      proxy: proxyPid === undefined ? 0 : cpuMillis([proxyPid]),
    }
  }
}

function toRow(
  server: BenchServer,
  workload: Workload,
  result: JobResult,
  watched: Watched,
  work: DatabaseWork | undefined,
  inside: DatabaseWork | undefined,
): Row {
  const { operations, seconds, octets, latencyMs, cpuSeconds } = result
  const isLarge = workload.load.startsWith('large-message')
  const isMemory = workload.isMemory === true
  const perThousand = (ms: number): number => (ms / operations) * 1_000
  const { memoryKib, cpuMs } = watched
  if (process.env.BENCH_STATEMENTS !== undefined) show(work?.statements ?? [])
  const statements = work && countCalls(work)
  const notes = notesOf(workload, result, inside)
  if (cpuMs.proxy > 0) notes.push(`the proxy's CPU ${perThousand(cpuMs.proxy).toFixed(0)}`)
  const figures = figuresOf(workload, result, work, inside)
  return {
    workload: workload.name,
    server: server.databaseUrl === undefined ? server.name : 'popgres',
    rate: isLarge ? octets / 1e6 / seconds : operations / seconds,
    unit: isLarge ? 'MB' : workload.unit,
    ...(isMemory
      ? {}
      : {
          serverCpuMs: perThousand(cpuMs.server),
          ...(server.databaseUrl === undefined
            ? {}
            : { databaseCpuMs: perThousand(cpuMs.database) }),
          generatorCpuMs: perThousand(cpuSeconds * 1_000),
        }),
    latencyMs,
    ...(statements === undefined || isMemory
      ? {}
      : { statementsPerSession: statements / result.sessions }),
    ...(memoryKib === undefined ? {} : { memoryKib }),
    ...(Object.keys(figures).length === 0 ? {} : { figures }),
    ...(notes.length === 0 ? {} : { note: notes.join('; ') }),
  }
}

const countCalls = ({ statements }: DatabaseWork): number =>
  statements.reduce((sum, { query, calls }) => sum + (BACKGROUND.test(query) ? 0 : calls), 0)

/** For who wants to know which statements a session costs. */
function show(statements: readonly Statement[]): void {
  for (const { calls, query } of statements) {
    const text = query.replace(/\s+/g, ' ').slice(0, 160)
    console.error(`  ${BACKGROUND.test(query) ? '(background) ' : ''}${calls} × ${text}`)
  }
}

function figuresOf(
  { load }: Workload,
  { details, octets, operations, operationsInAll }: JobResult,
  work: DatabaseWork | undefined,
  inside: DatabaseWork | undefined,
): Figures {
  const figures: Figures = {}
  if (load === 'big-maildrop')
    for (const name of ['loginMs', 'statMs', 'listMs', 'uidlMs'] as const)
      figures[name] = details[name] ?? Number.NaN
  if (load === 'retr-dele' || load === 'quit') figures.quitMs = details.quitMs ?? Number.NaN
  if (load === 'retr-dele' && work !== undefined)
    figures.statementsPerMessage = countCalls(work) / operationsInAll
  if (inside !== undefined && load === 'lmtp') figures.walOctetsPerOctet = inside.walOctets / octets
  else if (inside !== undefined) figures.statementsPerMessage = countCalls(inside) / operations
  return figures
}

function notesOf(
  { load, generators = 1 }: Workload,
  { cpuSeconds, seconds, details, octets }: JobResult,
  inside: DatabaseWork | undefined,
): string[] {
  const notes: string[] = []
  const share = cpuSeconds / seconds
  if (share > GENERATOR_BUSY * generators)
    notes.push(
      `the generator took ${share.toFixed(2)} of ${generators === 1 ? 'a core' : `${generators} cores`}`,
    )
  else if (generators > 1) notes.push(`${generators} generators: ${share.toFixed(2)} of a core`)
  if (load.startsWith('poll-tls')) notes.push(`${details.resumed ?? 0} resumed`)
  if (load === 'mixed-day')
    notes.push(`${details.fetches ?? 0} fetches, ${details.deliveries ?? 0} deliveries`)
  if (load === 'lmtp' && inside !== undefined) {
    const pages = (inside.walFullPages * 8_192) / octets
    notes.push(`whole pages in WAL: at most ${pages.toFixed(2)} an octet`)
  }
  return notes
}
