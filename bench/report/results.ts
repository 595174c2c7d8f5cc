/**
 * What a run of the bench has found, as it is kept in bench/results/: one row for each round of a
 * workload on a server, and what they come to. CPU is user and system time of whole process trees.
 */
import { execFileSync } from 'node:child_process'
import { cpus, totalmem } from 'node:os'

export interface Machine {
  cpu: string
  cores: number
  memoryGib: number
  node: string
}

export interface Results {
  machine: Machine
  /** of the project, see `describeCommit` */
  commit: string
  /** ISO 8601 */
  date: string
  rounds: number
  /** only some workloads or servers were asked for */
  isPartial: boolean
  /** one a round */
  rows: Row[]
}

/** Rates are operations a second; CPU is milliseconds for 1000 operations. */
export interface Row {
  workload: string
  server: string
  rate: number
  /** what is counted: polls, messages, MB, … */
  unit: string
  serverCpuMs?: number
  databaseCpuMs?: number
  generatorCpuMs?: number
  latencyMs?: { p50: number; p99: number }
  statementsPerSession?: number
  /** of a session: PSS of the whole tree for idle ones, growth for the others */
  memoryKib?: number
  figures?: Figures
  note?: string
}

/** What single workloads measure beyond rates; targets are computed from them. */
export interface Figures {
  /** big-maildrop, each by itself: from PASS to +OK, and the replies after it */
  loginMs?: number
  statMs?: number
  listMs?: number
  uidlMs?: number
  /** retr-dele: QUIT of 100 marks; durable-commit: one row, one client */
  quitMs?: number
  commitMs?: number
  statementsPerMessage?: number
  /** lmtp: between checkpoints, for each octet delivered */
  walOctetsPerOctet?: number
}

export function describeMachine(): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryGib: Math.round(totalmem() / 2 ** 30),
    node: process.version,
  }
}

/**
 * `1a2b3c4`, or `1a2b3c4 + changes`; `unknown` where git or its history is missing. Results of
 * earlier runs are no change.
 */
export function describeCommit(directory: string = import.meta.dirname): string {
  const git = (...words: string[]): string =>
    execFileSync('git', words, {
      cwd: directory,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim()
  try {
    const commit = git('rev-parse', '--short', 'HEAD')
    const changes = git('status', '--porcelain', '--', ':/', ':(top,exclude)bench/results')
    return changes === '' ? commit : `${commit} + changes`
  } catch {
    return 'unknown'
  }
}

/** In words, for the head of a report. */
export const machineInWords = ({ cpu, cores, memoryGib, node }: Machine): string =>
  `${cores} × ${cpu}, ${memoryGib} GiB, Node ${node}`

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((one, other) => one - other)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

/** One row for each workload and server, each figure the median of its rounds. */
export function medianRows(rows: readonly Row[]): Row[] {
  const groups = new Map<string, Row[]>()
  for (const row of rows) {
    const key = `${row.workload} of ${row.server}`
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [row])
    else group.push(row)
  }
  return [...groups.values()].map((rounds) => mergeRounds(rounds) as Row)
}

/** Numbers become medians, at any depth; the rest is the first round's that has it. */
function mergeRounds(rounds: readonly object[]): object {
  const merged: Record<string, unknown> = {}
  for (const name of new Set(rounds.flatMap((round) => Object.keys(round)))) {
    const values = rounds
      .map((round) => (round as Record<string, unknown>)[name])
      .filter((value) => value !== undefined)
    const [first] = values
    if (typeof first === 'number') merged[name] = median(values as number[])
    else if (typeof first === 'object') merged[name] = mergeRounds(values as object[])
    else merged[name] = first
  }
  return merged
}
