/**
 * The bench: starts the servers, seeds them alike, and for each round and each workload has every
 * server in turn do it, so that what else goes on in the machine meets all of them.
 *
 *   npm run bench          Popgres and the canned-reply server
 *   npm run bench:peers    with Dovecot and Courier, from Debian's packages
 *
 * BENCH_WORKLOADS, BENCH_SERVERS (names, separated by commas), BENCH_ROUNDS, BENCH_SECONDS,
 * BENCH_WORKERS, BENCH_USERS, BENCH_DIST, BENCH_NODE_OPTIONS, BENCH_KEEP: see README.md.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { chooseNamed, namesIn, UnknownName } from './chosen.ts'
import type { Seed } from './load/content.ts'
import type { Job, Load } from './load/job.ts'
import { runJob } from './load/run-job.ts'
import { DatabaseMeter } from './measure/database.ts'
import { measure } from './measured-job.ts'
import {
  COLD_USERS,
  isWorkload,
  POLL_USERS,
  planRound,
  type Workload,
  type Yardstick,
} from './plan.ts'
import { describeCommit, describeMachine, type Row } from './report/results.ts'
import { figuresInWords } from './report/table.ts'
import { writeResults } from './report/write.ts'
import { startCanned } from './servers/canned.ts'
import type { Peer } from './servers/peers.ts'
import { type PopgresServer, startPopgres } from './servers/popgres.ts'
import type { BenchServer } from './servers/server.ts'
import { measureArgon2, measureCommits } from './servers/yardsticks.ts'

const RESULTS = fileURLToPath(new URL('../../bench/results', import.meta.url))

type Step = Workload | Yardstick

/** Of each worker. */
const POLLS_UNTIL_COMPILED = 12_000
/** As often is TLS rehearsed, whose polls are the slowest: it falls for some thousands of them. */
const TLS_TIMES = 3
/** By all those polls. */
const COMPILED_BY_WARM_UP: ReadonlySet<Load> = new Set(['poll', 'cold-login'])

const numberOf = (name: string, otherwise: number): number => Number(process.env[name] ?? otherwise)

const rounds = numberOf('BENCH_ROUNDS', 3)
const hasPeers = process.argv.includes('peers')
/** With peers there is three times as much to do, and 15 minutes for it. */
const seconds = numberOf('BENCH_SECONDS', hasPeers ? 2 : 3)
/** As Popgres has by default. */
const workers = numberOf('BENCH_WORKERS', Math.ceil(availableParallelism() / 2))

function chosenSteps(): Step[] {
  const most = numberOf('BENCH_USERS', POLL_USERS)
  return chooseNamed<Step>('BENCH_WORKLOADS', planRound(workers)).map((step) =>
    isWorkload(step) ? { ...step, users: Math.min(step.users, most) } : step,
  )
}

function seedFor(workloads: readonly Workload[]): Seed {
  const special = workloads.flatMap(({ needs }) => needs ?? [])
  const hasCold = workloads.some(({ load }) => load === 'cold-login')
  const most = Math.max(1, ...workloads.map(({ users }) => users))
  const users = hasCold ? POLL_USERS + COLD_USERS * rounds : most
  const cold = hasCold ? { coldFrom: POLL_USERS + 1 } : {}
  return { users, ...cold, messagesEach: 10, messageOctets: 1_024, special: [...new Set(special)] }
}

class Bench {
  readonly rows: Row[] = []
  readonly #place = mkdtempSync(join(tmpdir(), 'popgres-bench-'))
  readonly #servers: BenchServer[] = []
  readonly #nodes = new Map<string, BenchServer>()
  readonly #steps: readonly Step[]
  readonly #workloads: readonly Workload[]
  readonly #seed: Seed
  #popgres: PopgresServer | undefined
  #meter: DatabaseMeter | undefined
  hasFailed = false

  constructor(steps: readonly Step[]) {
    this.#steps = steps
    this.#workloads = steps.filter(isWorkload)
    this.#seed = seedFor(this.#workloads)
  }

  async start(): Promise<void> {
    const extras = this.#workloads.flatMap(({ extra }) => extra ?? [])
    const startOwn = async (): Promise<BenchServer> => {
      this.#popgres = await startPopgres(this.#place, this.#seed, workers, extras)
      this.#meter = await DatabaseMeter.open(this.#popgres.databaseUrl)
      return this.#popgres
    }
    const all: readonly Peer[] = [
      { name: 'popgres', start: startOwn },
      { name: 'canned', start: startCanned },
      ...(hasPeers ? (await import('./servers/peers.ts')).PEERS : []),
    ]
    // `dovecot` is all its variants.
    const chosen = chooseNamed('BENCH_SERVERS', all, (name, word) => name.startsWith(word))
    for (const { name, start } of chosen) {
      say(`starting ${name}`)
      this.#servers.push(await start(this.#place, this.#seed))
    }
  }

  /**
   * Whoever remembers logins has seen everybody before anything is measured, and V8 has compiled
   * what runs: a server runs for weeks.
   */
  async warmUp(): Promise<void> {
    const warm = this.#workloads.filter(
      ({ load, node, isMemory }) => load !== 'cold-login' && !node && !isMemory,
    )
    const users = Math.max(0, ...warm.map((workload) => workload.users))
    for (const server of this.#servers)
      if (server.cachesLogins !== false || server.nodeWorkers) await this.#warmUpOne(server, users)
    for (const workload of this.#workloads.filter(({ node }) => node !== undefined)) {
      const server = await this.#nodeFor(workload)
      if (server !== undefined) await this.#warmUpOne(server, workload.users)
    }
    for (const workload of this.#workloads)
      if (!(workload.isMemory || workload.extra || COMPILED_BY_WARM_UP.has(workload.load)))
        for (const server of await this.#serversFor(workload))
          if (server.nodeWorkers !== undefined) await this.#rehearse(server, workload)
  }

  async run(): Promise<void> {
    for (let round = 1; round <= rounds; round++)
      for (const step of this.#steps) {
        if (!isWorkload(step)) {
          await this.#compareWith(step)
          continue
        }
        if (!step.isMemory) await this.#stopMemoryNodes()
        await this.#onAll(step, round)
      }
  }

  async stop(): Promise<void> {
    await this.#meter?.close()
    for (const server of this.#servers) await server.stop()
    if (process.env.BENCH_KEEP !== undefined) say(`logs and databases are in ${this.#place}`)
    else rmSync(this.#place, { recursive: true, force: true, maxRetries: 3 })
  }

  async #onAll(workload: Workload, round: number): Promise<void> {
    if (workload.isOnce && round > 1) return
    for (const server of await this.#serversFor(workload))
      if (round === 1 || !isVariant(server.name)) await this.#measure(server, workload, round)
  }

  /** Not measured, and not believed blindly either: a wrong reply fails the run. */
  async #rehearse(server: BenchServer, workload: Workload): Promise<void> {
    const { name, load, users, atOnce } = workload
    say(`warming up ${server.name}: ${name}`)
    try {
      const job = this.#job(server, load, { from: 1, count: users }, atOnce)
      await runJob({ ...job, seconds: seconds * (load.startsWith('poll-tls') ? TLS_TIMES : 1) })
    } catch (error) {
      this.hasFailed = true
      say(`FAILED: ${name} on ${server.name}: ${error}`)
    }
    await server.reset(name)
  }

  async #stopMemoryNodes(): Promise<void> {
    for (const [key, { collectGarbage, stop }] of this.#nodes) {
      if (collectGarbage === undefined) continue
      this.#nodes.delete(key)
      await stop()
    }
  }

  async #compareWith({ name }: Yardstick): Promise<void> {
    const url = this.#popgres?.databaseUrl
    if (name === 'bare-argon2') this.#add(await measureArgon2(seconds))
    else if (url !== undefined) this.#add(await measureCommits(url, seconds))
  }

  async #warmUpOne(server: BenchServer, users: number): Promise<void> {
    if (users === 0) return
    say(`warming up ${server.name}: ${users} users`)
    const job = this.#job(server, 'warm-up', { from: 1, count: users }, 32)
    const { nodeWorkers } = server
    const pollsMin = nodeWorkers && { pollsMin: nodeWorkers * POLLS_UNTIL_COMPILED }
    await runJob({ ...job, ...pollsMin })
  }

  async #serversFor(workload: Workload): Promise<BenchServer[]> {
    if (workload.node !== undefined) return [(await this.#nodeFor(workload)) ?? []].flat()
    if (workload.extra !== undefined) return this.#popgres === undefined ? [] : [this.#popgres]
    const servers = this.#servers.filter(
      ({ cannot, name }) => !cannot.has(workload.name) && (workload.isLogin || !isVariant(name)),
    )
    if (!workload.isMemory) return servers
    const purpose = workload.isSession ? workload.name : 'idle'
    const node = await this.#nodeFor({ ...workload, node: { workers, canCollect: true, purpose } })
    return servers.map((server) => (server === this.#popgres && node ? node : server))
  }

  async #nodeFor({ node }: Workload): Promise<BenchServer | undefined> {
    const key = JSON.stringify(node)
    if (node === undefined || this.#popgres === undefined) return undefined
    const server = this.#nodes.get(key) ?? (await this.#popgres.attach(node))
    this.#nodes.set(key, server)
    return server
  }

  async #measure(server: BenchServer, workload: Workload, round: number): Promise<void> {
    const { name, load, users, atOnce, extra } = workload
    const from = load === 'cold-login' ? POLL_USERS + 1 + (round - 1) * COLD_USERS : 1
    const job = this.#job(server, load, { from, count: users }, atOnce)
    if (extra !== undefined) job.bigUser = extra
    try {
      const meter = server.databaseUrl === undefined ? undefined : this.#meter
      this.#add(await measure(server, workload, job, meter))
    } catch (error) {
      this.hasFailed = true
      say(`FAILED: ${name} on ${server.name}: ${error}`)
      const nothing = { rate: Number.NaN, unit: workload.unit, note: `failed: ${error}` }
      this.rows.push({ workload: name, server: server.name, ...nothing })
    }
    await server.reset(name)
  }

  #job(server: BenchServer, load: Load, users: Job['users'], atOnce: number): Job {
    const { pop3, pop3s, lmtp } = server
    const endpoints = { pop3, ...(pop3s && { pop3s }), ...(lmtp && { lmtp }) }
    // Whole pages, which a checkpoint makes dear, are over then.
    const warmUpSeconds = load === 'lmtp' ? 1.5 : 0.5
    return { load, ...endpoints, seed: this.#seed, users, atOnce, seconds, warmUpSeconds }
  }

  #add(row: Row): void {
    this.rows.push(row)
    say(describeRow(row))
  }
}

/** Of one server with others' ways to log in. */
const isVariant = (name: string): boolean =>
  name.startsWith('dovecot') && name !== 'dovecot sha512 cache'

const say = (text: string): void => void process.stderr.write(`${text}\n`)

function describeRow(row: Row): string {
  const ms = (value: number | undefined): string => value?.toFixed(1) ?? '-'
  return [
    `${row.workload} on ${row.server}: ${row.rate.toFixed(1)} ${row.unit}/s`,
    `CPU per 1000: server ${ms(row.serverCpuMs)} database ${ms(row.databaseCpuMs)}` +
      ` generator ${ms(row.generatorCpuMs)} ms`,
    `p50 ${row.latencyMs?.p50.toFixed(2)} p99 ${row.latencyMs?.p99.toFixed(2)} ms`,
    row.statementsPerSession && `${row.statementsPerSession.toFixed(2)} statements a session`,
    row.memoryKib && `${row.memoryKib.toFixed(1)} KiB`,
    ...figuresInWords(row.figures),
    row.note,
  ]
    .filter(Boolean)
    .join(', ')
}

async function main(): Promise<void> {
  const commit = describeCommit()
  const bench = new Bench(chosenSteps())
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => void bench.stop().finally(() => process.exit(130)))
  try {
    await bench.start()
    await bench.warmUp()
    await bench.run()
  } finally {
    await bench.stop()
  }
  const isPartial = [...namesIn('BENCH_WORKLOADS'), ...namesIn('BENCH_SERVERS')].length > 0
  const results = {
    machine: describeMachine(),
    commit,
    date: new Date().toISOString(),
    rounds,
    isPartial,
    rows: bench.rows,
  }
  const title = hasPeers ? 'Popgres and its peers' : 'Popgres'
  const place = isPartial ? mkdtempSync(join(tmpdir(), 'popgres-bench-results-')) : RESULTS
  console.info(writeResults(place, hasPeers ? 'peers' : 'bench', title, results))
  say(`results are in ${place}`)
  process.exitCode = bench.hasFailed ? 1 : 0
}

await main().catch((error: unknown) => {
  if (!(error instanceof UnknownName)) throw error
  say(error.message)
  process.exitCode = 1
})
