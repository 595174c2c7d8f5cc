/**
 * `npm run torture`: a cluster, many clients, faults, and a checker over what all of them were told.
 *
 *   TORTURE_SECONDS   how long clients and faults go on (120)
 *   TORTURE_SEED      of all choices; printed, else a new one each time
 *   TORTURE_FAULTS    names of faults, comma separated; `none`; all by default
 *   TORTURE_READERS, TORTURE_SENDERS   clients (30, 8)
 *   TORTURE_CLONE     directory of the project whose dist/ is tortured, if it is not this one
 *   TORTURE_HISTORY   file for the history as JSON lines; kept in the temporary directory if the run fails
 */

import { randomInt } from 'node:crypto'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { Secret } from '../../src/base/secret.ts'
import { hashPassword } from '../../src/mail/auth/argon2.ts'
import { checkHistory } from './check/checker.ts'
import { recover, runReader } from './clients/reader.ts'
import { runSender } from './clients/sender.ts'
import { DOMAINS, MAILDROPS, PASSWORD, type Stage } from './clients/stage.ts'
import { Cluster } from './cluster.ts'
import type { ClusterPlan, Fault, TorturePostgres } from './fault.ts'
import { FAULTS } from './faults/all.ts'
import { readFinalState } from './final-state.ts'
import { History } from './history.ts'
import { injectFaults } from './injector.ts'
import { PARAMETERS } from './postgres.ts'
import { Random } from './random.ts'
import { format, formatViolation, summarise } from './report.ts'

const setting = (name: string, otherwise: number): number =>
  Number(process.env[`TORTURE_${name}`] ?? otherwise)

const SECONDS = setting('SECONDS', 120)
const SEED = setting('SEED', randomInt(1, 2 ** 31))
const READERS = setting('READERS', 30)
const SENDERS = setting('SENDERS', 8)
/** By vitest; the report names some of each rule. */
const SHOWN = 10
const PROGRESS_MS = 15_000
/** Faults that are healed late, clients that wait, the look at the end. */
const LIMIT_MS = SECONDS * 1_000 + 400_000
const RECOVERY_LIMIT_MS = 60_000

const say = (text: string): void => {
  process.stdout.write(`${text}\n`)
}

test('nothing acknowledged is lost, nothing deleted comes back', { timeout: LIMIT_MS }, run)

async function run(): Promise<void> {
  say(`torture: seed ${SEED}, ${SECONDS} s (TORTURE_SEED=${SEED} TORTURE_SECONDS=${SECONDS})`)
  const directory = mkdtempSync(join(tmpdir(), 'popgres-torture-'))
  chmodSync(directory, 0o755) // as root, PostgreSQL's account has to get in
  const plan: ClusterPlan = { directory, parameters: [...PARAMETERS], env: {}, nodeOptions: [] }
  const faults = chosenFaults()
  const undo: (() => Promise<void>)[] = []
  try {
    for (const fault of faults) undo.push((await fault.prepare?.(plan)) ?? (async () => {}))
    const cluster = await Cluster.start(plan, addUsers)
    try {
      await torture(cluster, faults, `${directory}.jsonl`)
    } finally {
      await cluster.stop()
    }
  } finally {
    for (const one of undo.reverse()) await one()
    rmSync(directory, { recursive: true, force: true, maxRetries: 3 })
  }
}

async function torture(cluster: Cluster, faults: readonly Fault[], temporary: string) {
  const wanted = process.env.TORTURE_HISTORY
  const path = wanted ?? temporary
  const history = new History(path)
  let isGood = false
  try {
    await storm(cluster, history, faults)
    await cluster.stopNodes()
    const violations = checkHistory(history.events, await readFinalState(cluster.postgres))
    const workers = cluster.nodes.map(({ workerCount }) => workerCount).join(' + ')
    const nodes = `${cluster.nodes.length} nodes with ${workers} workers`
    const run = { seed: SEED, seconds: SECONDS, nodes, violations }
    say(format(summarise(history.events, run)))
    expect(violations.slice(0, SHOWN).map(formatViolation)).toEqual([])
    isGood = true
  } finally {
    await history.close()
    if (isGood && wanted === undefined) rmSync(path, { force: true })
    else {
      writeFileSync(`${path}.log`, cluster.nodes.flatMap(({ log }) => log).join('\n'))
      say(`torture: the history is in ${path}, the log of the nodes beside it`)
    }
  }
}

function chosenFaults(): readonly Fault[] {
  const names = process.env.TORTURE_FAULTS?.split(',').map((name) => name.trim())
  if (names === undefined) return FAULTS
  if (names.join() === 'none') return []
  return names.map((name) => {
    const fault = FAULTS.find((one) => one.name === name)
    if (fault === undefined)
      throw new Error(
        `TORTURE_FAULTS: ${name} is none of ${FAULTS.map((one) => one.name).join(', ')}`,
      )
    return fault
  })
}

async function addUsers(postgres: TorturePostgres): Promise<void> {
  const hash = await hashPassword(new Secret(PASSWORD))
  for (const { name, secondLogin } of DOMAINS)
    await postgres.query('insert into domains (name, second_login) values ($1, $2)', [
      name,
      secondLogin,
    ])
  for (const address of MAILDROPS) {
    const [localPart, domain] = address.split('@')
    await postgres.query(
      `insert into users (domain_id, local_part, password_hash)
      select domain_id, $1, $2 from domains where name = $3`,
      [localPart, hash, domain],
    )
  }
}

async function storm(cluster: Cluster, history: History, faults: readonly Fault[]): Promise<void> {
  const random = new Random(SEED)
  const stopping = new AbortController()
  let count = 0
  const stage: Stage = {
    cluster,
    history,
    stopping: stopping.signal,
    nextNumber: () => ++count,
  }
  const progress = setInterval(() => tell(history), PROGRESS_MS)
  const clients: Promise<void>[] = []
  for (let i = 0; i < READERS; i++) clients.push(runReader(stage, random.fork(`reader ${i}`)))
  for (let i = 0; i < SENDERS; i++) clients.push(runSender(stage, random.fork(`sender ${i}`)))
  try {
    const runMs = SECONDS * 1_000
    const injecting = injectFaults({
      cluster,
      history,
      random: random.fork('faults'),
      faults,
      runMs,
      signal: stopping.signal,
    })
    await Promise.all([injecting, delay(runMs)])
    stopping.abort()
    await Promise.all(clients)
    await Promise.all(MAILDROPS.map((maildrop) => recover(stage, maildrop, RECOVERY_LIMIT_MS)))
  } finally {
    clearInterval(progress)
    stopping.abort()
    // They write to the history, which is closed next.
    await Promise.allSettled(clients)
  }
}

function tell({ events }: History): void {
  const many = (type: string): number => events.filter((event) => event.type === type).length
  say(
    `torture: ${Math.round((events.at(-1)?.at ?? 0) / 1000)} s: ${many('login')} logins, ` +
      `${many('delivery')} deliveries, ${many('quit')} QUITs, ${many('fault')} lines of faults`,
  )
}
