/**
 * The targets: what Popgres has to reach, as ratios of figures of one run, each with how it is
 * computed. A target whose figures were not measured says which row is missing.
 */
import { medianRows, type Row } from './results.ts'

export interface Verdict {
  target: string
  /** What has to be reached, in words: `≥ 2`. */
  bound: string
  /** undefined: it cannot be computed, see `missing` */
  measured: number | undefined
  isReached: boolean | undefined
  /** How far beyond the bound: 1 is just reached, more is better. */
  margin: number | undefined
  missing: string | undefined
}

type Comparison = '≥' | '≤' | '<'

interface Target {
  name: string
  comparison: Comparison
  bound: number
  measure(rows: Lookup): number
}

const OWN = 'popgres'
const DOVECOT_FAST = 'dovecot sha512 cache'
const DOVECOT_ARGON2 = 'dovecot argon2id'
const CANNED = 'canned'

/** Thrown while a target is computed. */
class Missing extends Error {}

class Lookup {
  readonly #rows: readonly Row[]

  constructor(rows: readonly Row[]) {
    this.#rows = rows
  }

  row(workload: string, server = OWN): Row {
    const found = this.#rows.find((row) => row.workload === workload && row.server === server)
    if (found === undefined || Number.isNaN(found.rate))
      throw new Missing(`${workload} of ${server} was not measured`)
    return found
  }

  rate(workload: string, server = OWN): number {
    return this.row(workload, server).rate
  }

  /** Of Dovecot's variants the one that is best at it. */
  bestDovecot(workload: string): Row {
    const [best] = this.#rows
      .filter((row) => row.workload === workload && row.server.startsWith('dovecot'))
      .filter((row) => !Number.isNaN(row.rate))
      .sort((one, other) => other.rate - one.rate)
    if (best === undefined) throw new Missing(`${workload} of Dovecot was not measured`)
    return best
  }

  /** A figure of a row of ours that may be absent. */
  figure(workload: string, name: string, choose: (row: Row) => number | undefined): number {
    const value = choose(this.row(workload))
    if (value === undefined) throw new Missing(`${workload} says no ${name}`)
    return value
  }

  /** Of server and database together, for 1000 operations. */
  cpuMs(row: Row): number {
    if (row.serverCpuMs === undefined)
      throw new Missing(`${row.workload} of ${row.server} says no CPU`)
    return row.serverCpuMs + (row.databaseCpuMs ?? 0)
  }
}

const figureOf =
  (workload: string, name: keyof NonNullable<Row['figures']>) =>
  (rows: Lookup): number =>
    rows.figure(workload, name, (row) => row.figures?.[name])

const memoryOf =
  (workload: string) =>
  (rows: Lookup): number =>
    rows.figure(workload, 'memory', (row) => row.memoryKib)

const statementsOf =
  (workload: string) =>
  (rows: Lookup): number =>
    rows.figure(workload, 'statements', (row) => row.statementsPerSession)

/** Of the rates of two workloads of ours. */
const rateRatio =
  (workload: string, base: string) =>
  (rows: Lookup): number =>
    rows.rate(workload) / rows.rate(base)

/** Of our rate and that of another server. */
const against =
  (workload: string, server: string) =>
  (rows: Lookup): number =>
    rows.rate(workload) / rows.rate(workload, server)

const againstDovecot =
  (workload: string, dovecotsWorkload = workload) =>
  (rows: Lookup): number =>
    rows.rate(workload) / rows.bestDovecot(dovecotsWorkload).rate

const cpuAgainstDovecot =
  (workload: string) =>
  (rows: Lookup): number =>
    rows.cpuMs(rows.row(workload)) / rows.cpuMs(rows.bestDovecot(workload))

const target = (
  name: string,
  comparison: Comparison,
  bound: number,
  measure: (rows: Lookup) => number,
): Target => ({ name, comparison, bound, measure })

const MIB_4 = 4 * 1024

const TARGETS: readonly Target[] = [
  target('warm poll: rate / Dovecot, fast hashes, cache', '≥', 2, against('poll', DOVECOT_FAST)),
  target('warm poll: rate / Dovecot, argon2id', '≥', 40, against('poll', DOVECOT_ARGON2)),
  target('warm poll: rate / canned replies', '≥', 0.4, against('poll', CANNED)),
  target('warm poll: statements a session, with UIDL', '≤', 4, statementsOf('poll')),
  target('warm poll: statements a session, STAT alone', '≤', 3, statementsOf('poll-stat')),
  target(
    'cold login: rate / bare argon2',
    '≥',
    0.9,
    (rows) => rows.rate('cold-login') / rows.rate('bare-argon2'),
  ),
  target('RETR: rate / Dovecot', '≥', 1.5, againstDovecot('retr')),
  target('RETR pipelined: rate / Dovecot', '≥', 1.5, againstDovecot('retr-pipelined')),
  target('RETR: CPU a message / Dovecot', '<', 1, cpuAgainstDovecot('retr')),
  target('RETR pipelined: CPU a message / Dovecot', '<', 1, cpuAgainstDovecot('retr-pipelined')),
  target('RETR: statements a message', '≤', 1 / 20, figureOf('retr', 'statementsPerMessage')),
  target('RETR+DELE+QUIT: rate / Dovecot', '≥', 1, againstDovecot('retr-dele')),
  target(
    'QUIT of 100 deletes / durable commit of one row',
    '≤',
    4,
    (rows) => figureOf('quit', 'quitMs')(rows) / figureOf('durable-commit', 'commitMs')(rows),
  ),
  target('100,000 messages: STAT, ms', '<', 5, figureOf('big-maildrop', 'statMs')),
  target(
    '100,000 messages: LIST and UIDL, ms',
    '<',
    150,
    (rows) => figureOf('big-maildrop', 'listMs')(rows) + figureOf('big-maildrop', 'uidlMs')(rows),
  ),
  target(
    '100,000 messages: memory of the session, KiB',
    '<',
    MIB_4,
    memoryOf('big-maildrop-memory'),
  ),
  target('50 MB message: rate / Dovecot', '≥', 1.2, againstDovecot('large-message')),
  target('50 MB message: memory of the session, KiB', '<', MIB_4, memoryOf('large-message-memory')),
  target('idle session: KiB', '<', 16, memoryOf('idle')),
  target('idle session over TLS: KiB', '<', 60, memoryOf('idle-tls')),
  target('LMTP: rate / Dovecot', '≥', 3, againstDovecot('lmtp')),
  target('LMTP: WAL octets / octet delivered', '≤', 1.3, figureOf('lmtp', 'walOctetsPerOctet')),
  target('database 1 ms away: poll / poll at 0 ms', '≥', 0.7, rateRatio('poll-1ms', 'poll-0ms')),
  target('database 1 ms away: RETR / RETR at 0 ms', '≥', 0.9, rateRatio('retr-1ms', 'retr-0ms')),
  target('two workers / one', '≥', 0.95, rateRatio('workers-2', 'workers-1')),
  target('four workers / two', '≥', 0.95, rateRatio('workers-4', 'workers-2')),
  target('TLS poll: rate / Dovecot', '≥', 1, againstDovecot('poll-tls')),
  target('TLS poll resumed: rate / Dovecot unresumed', '≥', 3, (rows) =>
    againstDovecot('poll-tls-resumed', 'poll-tls')(rows),
  ),
]

/** @param rows of all rounds, or medians */
export function judge(rows: readonly Row[]): Verdict[] {
  const lookup = new Lookup(medianRows(rows))
  return TARGETS.map((each) => {
    const named = {
      target: each.name,
      bound: `${each.comparison} ${Number(each.bound.toFixed(3))}`,
    }
    try {
      const measured = each.measure(lookup)
      const isReached = compare(measured, each.comparison, each.bound)
      const margin = each.comparison === '≥' ? measured / each.bound : each.bound / measured
      return { ...named, measured, isReached, margin, missing: undefined }
    } catch (error) {
      if (!(error instanceof Missing)) throw error
      const unknown = { measured: undefined, isReached: undefined, margin: undefined }
      return { ...named, ...unknown, missing: error.message }
    }
  })
}

function compare(measured: number, comparison: Comparison, bound: number): boolean {
  if (comparison === '≥') return measured >= bound
  return comparison === '≤' ? measured <= bound : measured < bound
}
