/** One workload on one server, once: the job, and the server's CPU, memory and SQL meanwhile. */
import type { Job, JobResult } from './load/job.ts'
import { runJob } from './load/run-job.ts'
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
  // Of long sessions only what lies between login and QUIT is a message's.
  const isInside = workload.load === 'retr' || workload.load === 'retr-pipelined'
  const watched = new Watched(server, workload, isInside ? meter : undefined)
  const result = await runJob(job, watched)
  watched.stop()
  const after = await meter?.read()
  const work = before && after ? workBetween(before, after) : undefined
  const inside = await watched.work
  return toRow(server, workload, result, watched, work, inside)
}

class Watched {
  readonly #server: BenchServer
  readonly #meter: DatabaseMeter | undefined
  readonly #timer: NodeJS.Timeout | undefined
  readonly #idle: { sessions: number; kib: number }[] = []
  readonly #kibBefore: number = 0
  #kibMost = 0
  #cpu = { server: 0, database: 0 }
  #readings: Promise<DatabaseReading>[] = []

  constructor(server: BenchServer, { atOnce, load }: Workload, meter: DatabaseMeter | undefined) {
    this.#server = server
    this.#meter = meter
    // Of one session at a time memory can be told.
    if (atOnce !== 1 || load === 'cold-login') return
    this.#kibBefore = pssKib(server.pids().server)
    this.#timer = setInterval(() => this.#sample(), SAMPLE_MS)
  }

  readonly onBegin = (): void => {
    this.#readDatabase()
    this.#cpu = this.#readCpu()
  }

  readonly onEnd = (): void => {
    this.#readDatabase()
    const { server, database } = this.#readCpu()
    this.#cpu = { server: server - this.#cpu.server, database: database - this.#cpu.database }
  }

  readonly onReady = async (sessions: number): Promise<void> => {
    this.#server.collectGarbage?.()
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS))
    const { server, database } = this.#server.pids()
    this.#idle.push({ sessions, kib: pssKib(server) + pssKib(database) })
  }

  /** Between begin and end. */
  get work(): Promise<DatabaseWork | undefined> {
    return Promise.all(this.#readings).then(([begin, end]) =>
      begin && end ? workBetween(begin, end) : undefined,
    )
  }

  get cpuMs(): { server: number; database: number } {
    return this.#cpu
  }

  /** Of a session: what each further idle one took, or what one grew the server by. */
  get memoryKib(): number | undefined {
    const [first, last] = this.#idle
    if (first && last) return (last.kib - first.kib) / (last.sessions - first.sessions)
    return this.#timer === undefined ? undefined : Math.max(0, this.#kibMost - this.#kibBefore)
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  #readDatabase(): void {
    if (this.#meter !== undefined) this.#readings.push(this.#meter.read())
  }

  #sample(): void {
    this.#kibMost = Math.max(this.#kibMost, pssKib(this.#server.pids().server))
  }

  #readCpu(): { server: number; database: number } {
    const { server, database } = this.#server.pids()
    return { server: cpuMillis(server), database: cpuMillis(database) }
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
  const isLarge = workload.load === 'large-message'
  const isIdle = workload.load === 'idle' || workload.load === 'idle-tls'
  const perThousand = (ms: number): number => (ms / operations) * 1_000
  const { memoryKib, cpuMs } = watched
  if (process.env.BENCH_STATEMENTS !== undefined) show(work?.statements ?? [])
  const statements = work && countCalls(work)
  const notes = notesOf(workload, result, work)
  const figures = figuresOf(workload, result, work, inside)
  return {
    workload: workload.name,
    server: server.databaseUrl === undefined ? server.name : 'popgres',
    rate: isLarge ? octets / 1e6 / seconds : operations / seconds,
    unit: isLarge ? 'MB' : workload.unit,
    ...(isIdle
      ? {}
      : {
          serverCpuMs: perThousand(cpuMs.server),
          ...(server.databaseUrl === undefined
            ? {}
            : { databaseCpuMs: perThousand(cpuMs.database) }),
          generatorCpuMs: perThousand(cpuSeconds * 1_000),
        }),
    latencyMs,
    ...(statements === undefined || isIdle
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
  { details, octetsInAll, operations, operationsInAll }: JobResult,
  work: DatabaseWork | undefined,
  inside: DatabaseWork | undefined,
): Figures {
  const figures: Figures = {}
  if (load === 'big-maildrop')
    for (const name of ['loginMs', 'statMs', 'listMs', 'uidlMs'] as const)
      figures[name] = details[name] ?? Number.NaN
  if (load === 'retr-dele') figures.quitMs = details.quitMs ?? Number.NaN
  if (inside !== undefined) figures.statementsPerMessage = countCalls(inside) / operations
  if (load === 'retr-dele' && work !== undefined)
    figures.statementsPerMessage = countCalls(work) / operationsInAll
  if (load === 'lmtp' && work !== undefined)
    figures.walOctetsPerOctet = work.walOctets / octetsInAll
  return figures
}

function notesOf(
  { load }: Workload,
  { cpuSeconds, seconds, details, octetsInAll }: JobResult,
  work: DatabaseWork | undefined,
): string[] {
  const notes: string[] = []
  const share = cpuSeconds / seconds
  if (share > GENERATOR_BUSY) notes.push(`the generator took ${share.toFixed(2)} of a core`)
  if (load.startsWith('poll-tls')) notes.push(`${details.resumed ?? 0} resumed`)
  if (load === 'mixed-day')
    notes.push(`${details.fetches ?? 0} fetches, ${details.deliveries ?? 0} deliveries`)
  if (load === 'lmtp' && work !== undefined) {
    const pages = (work.walFullPages * 8_192) / octetsInAll
    notes.push(`whole pages in WAL: at most ${pages.toFixed(2)} an octet`)
  }
  return notes
}
