/**
 * What a flood of wrong passwords for one domain does to the logins of another: a real node on
 * embedded PostgreSQL; each try comes from an address, for a user and with a password of its own.
 * Measured from PASS to its reply, one login after the other, before the flood and in it: first
 * logins (argon2) and repeated ones (verified lately).
 *
 *   npm run bench:login-flood
 *
 * BENCH_LOGINS: measured logins a phase (60); BENCH_ATTACKERS: connections at once (600). The
 * result is printed and written to bench/results/.
 */
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { cpus, tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect, test } from 'vitest'
import { NodeProcess, PROJECT } from '../test/support/node-process.ts'

const LOGINS = Number(process.env.BENCH_LOGINS ?? 60)
const ATTACKERS = Number(process.env.BENCH_ATTACKERS ?? 600)
const PASSWORD = randomBytes(12).toString('hex')
const WORKERS = 2
const QUIET = 'quiet.example'
const FLOODED = 'flooded.example'

/** Milliseconds, ascending. */
type Times = readonly number[]

interface Phase {
  first: Times
  repeated: Times
}

interface Flood {
  /** Tries that were answered, by the first word in brackets of the answer. */
  answers: Map<string, number>
  seconds: number
}

class Peer {
  readonly #socket: Socket
  readonly #lines: AsyncIterator<string>

  constructor(port: number, localAddress: string) {
    this.#socket = connect({ host: '127.0.0.1', port, localAddress })
    this.#socket.on('error', () => {})
    const lines = createInterface({ input: this.#socket })
    this.#socket.on('close', () => lines.close())
    this.#lines = lines[Symbol.asyncIterator]()
  }

  /** @returns undefined if the connection is closed */
  async line(): Promise<string | undefined> {
    const { value, done } = await this.#lines.next()
    return done === true ? undefined : value
  }

  ask(command: string): Promise<string | undefined> {
    this.#socket.write(`${command}\r\n`)
    return this.line()
  }

  destroy(): void {
    this.#socket.destroy()
  }
}

/** 127.group.x.y: each number is an address of its own. */
const addressOf = (group: number, number: number): string =>
  `127.${group}.${1 + (Math.floor(number / 250) % 250)}.${1 + (number % 250)}`

async function timeLogin(port: number, index: number): Promise<number> {
  const peer = new Peer(port, addressOf(1, index))
  try {
    await peer.line()
    await peer.ask(`USER u${index}@${QUIET}`)
    const began = performance.now()
    const reply = await peer.ask(`PASS ${PASSWORD}`)
    const took = performance.now() - began
    expect(reply).toMatch(/^\+OK/)
    await peer.ask('QUIT')
    return took
  } finally {
    peer.destroy()
  }
}

/** @param from number of the first user: those of another phase have logged in before */
async function measure(port: number, from: number): Promise<Phase> {
  const times = { first: [] as number[], repeated: [] as number[] }
  for (let index = from; index < from + LOGINS; index++) {
    times.first.push(await timeLogin(port, index))
    // Each worker remembers for itself, and takes connections in turn.
    for (let worker = 1; worker <= WORKERS; worker++) await timeLogin(port, index)
    times.repeated.push(await timeLogin(port, index))
  }
  for (const list of Object.values(times)) list.sort((a, b) => a - b)
  return times
}

class Attack {
  readonly answers = new Map<string, number>()
  readonly #port: number
  readonly #began = performance.now()
  readonly #peers = new Set<Peer>()
  readonly #ended: Promise<unknown>
  #tries = 0
  #isOver = false
  #onAnswer = (): void => {}

  constructor(port: number) {
    this.#port = port
    this.#ended = Promise.all(Array.from({ length: ATTACKERS }, () => this.#attack()))
  }

  /** Once every attacker could have been answered. */
  async isInFullSwing(): Promise<void> {
    let answered = 0
    await new Promise<void>((resolve) => {
      this.#onAnswer = () => {
        answered += 1
        if (answered >= ATTACKERS) resolve()
      }
    })
  }

  async end(): Promise<Flood> {
    const seconds = (performance.now() - this.#began) / 1_000
    this.#isOver = true
    for (const peer of this.#peers) peer.destroy()
    await this.#ended
    return { answers: this.answers, seconds }
  }

  async #attack(): Promise<void> {
    while (!this.#isOver) {
      const number = this.#tries++
      const peer = new Peer(this.#port, addressOf(2, number))
      this.#peers.add(peer)
      await peer.line()
      await peer.ask(`USER x${number}@${FLOODED}`)
      const reply = await peer.ask(`PASS wrong-${number}`)
      peer.destroy()
      this.#peers.delete(peer)
      if (this.#isOver) break
      const answer = reply === undefined ? 'closed' : (/\[([A-Z/]+)\]/.exec(reply)?.[1] ?? reply)
      this.answers.set(answer, (this.answers.get(answer) ?? 0) + 1)
      this.#onAnswer()
    }
  }
}

const at = (times: Times, share: number): number =>
  times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? Number.NaN

const describeTimes = (times: Times) => ({
  median: Math.round(at(times, 0.5) * 10) / 10,
  p95: Math.round(at(times, 0.95) * 10) / 10,
})

function makeReport(before: Phase, during: Phase, flood: Flood) {
  const [cpu] = cpus()
  const tries = [...flood.answers.values()].reduce((sum, count) => sum + count, 0)
  return {
    date: new Date().toISOString(),
    machine: {
      cpu: cpu?.model ?? 'unknown',
      cores: cpus().length,
      memoryGib: Math.round(totalmem() / 2 ** 30),
      node: process.version,
    },
    workers: WORKERS,
    loginsAPhase: LOGINS,
    attackers: ATTACKERS,
    flood: {
      seconds: Math.round(flood.seconds),
      answeredASecond: Math.round(tries / flood.seconds),
      answers: Object.fromEntries(flood.answers),
    },
    millisecondsOfLogins: {
      first: { before: describeTimes(before.first), during: describeTimes(during.first) },
      repeated: { before: describeTimes(before.repeated), during: describeTimes(during.repeated) },
    },
  }
}

function formatReport(report: ReturnType<typeof makeReport>): string {
  const { machine, flood, millisecondsOfLogins: times } = report
  const row = (name: string, { before, during }: (typeof times)['first']): string =>
    `| ${name} | ${before.median} | ${before.p95} | ${during.median} | ${during.p95} |`
  const answers = Object.entries(flood.answers).map(([name, count]) => `${count} × ${name}`)
  return `# Logins of one domain while another is flooded with wrong passwords

${report.date}, ${machine.cores} × ${machine.cpu}, ${machine.memoryGib} GiB, Node ${machine.node}.
Clients, node (${report.workers} workers) and PostgreSQL share the machine. ${report.attackers} attackers,
each try from an address of its own and for another user of one domain; ${flood.answeredASecond} answers a second in
${flood.seconds} s (${answers.join(', ')}). ${report.loginsAPhase} logins a phase.

| milliseconds from PASS to +OK | before: median | p95 | in the flood: median | p95 |
|---|---:|---:|---:|---:|
${row('first login (argon2)', times.first)}
${row('repeated login (verified lately)', times.repeated)}
`
}

test('a flood of wrong passwords for one domain', { timeout: 900_000 }, async () => {
  const place = mkdtempSync(join(tmpdir(), 'popgres-bench-'))
  const env = { POPGRES_DATA_DIR: join(place, 'data'), POPGRES_LOG_LEVEL: 'warn' }
  const node = new NodeProcess({
    env: {
      ...env,
      POPGRES_POP3S_LISTEN: '',
      POPGRES_HTTP_LISTEN: '',
      POPGRES_WORKERS: String(WORKERS),
    },
  })
  const administer = (...args: string[]): void => {
    const options = { cwd: place, env: { PATH: process.env.PATH, ...env } }
    execFileSync(process.execPath, [join(PROJECT, 'dist', 'main.js'), ...args], options)
  }
  try {
    const { pop3 } = await node.addresses()
    const port = Number(pop3.split(':').at(-1))
    for (const domain of [QUIET, FLOODED]) administer('domain', 'add', domain)
    const users = Array.from({ length: 2 * LOGINS }, (_, i) => `u${i}@${QUIET},${PASSWORD}\n`)
    writeFileSync(join(place, 'users.csv'), `address,password\n${users.join('')}`)
    administer('user', 'import', 'users.csv')

    const before = await measure(port, 0)
    const attack = new Attack(port)
    await attack.isInFullSwing()
    const during = await measure(port, LOGINS)
    const report = makeReport(before, during, await attack.end())

    const text = formatReport(report)
    console.info(text)
    const results = join(PROJECT, 'bench', 'results')
    mkdirSync(results, { recursive: true })
    const name = join(results, `login-flood-${report.date.slice(0, 10)}`)
    writeFileSync(`${name}.json`, `${JSON.stringify(report, null, 2)}\n`)
    writeFileSync(`${name}.md`, text)
  } finally {
    await node.destroy()
    rmSync(place, { recursive: true, force: true, maxRetries: 3 })
  }
})
