import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import {
  describeCommit,
  medianRows,
  type Results,
  type Row,
} from '../../../bench/report/results.ts'
import { formatResults, formatRows, formatTable } from '../../../bench/report/table.ts'
import { judge, type Verdict } from '../../../bench/report/targets.ts'

const row = (workload: string, server: string, rate: number, more: Partial<Row> = {}): Row => ({
  workload,
  server,
  rate,
  unit: 'polls',
  ...more,
})

function verdictOf(rows: Row[], target: string): Verdict {
  const found = judge(rows).find((verdict) => verdict.target === target)
  if (found === undefined) throw new Error(`no target ${target}`)
  return found
}

test('a row of medians has the middle of each figure over its rounds, at any depth', () => {
  const rounds = [
    row('poll', 'popgres', 30, { latencyMs: { p50: 1, p99: 9 }, note: 'warm' }),
    row('poll', 'popgres', 10, { latencyMs: { p50: 2, p99: 7 }, figures: { quitMs: 4 } }),
    row('poll', 'popgres', 20, { latencyMs: { p50: 6, p99: 8 }, figures: { quitMs: 6 } }),
    row('poll', 'canned', 99),
  ]
  expect(medianRows(rounds)).toEqual([
    row('poll', 'popgres', 20, {
      latencyMs: { p50: 2, p99: 8 },
      figures: { quitMs: 5 },
      note: 'warm',
    }),
    row('poll', 'canned', 99),
  ])
})

test('a target is the ratio of the medians, reached from its bound on', () => {
  const name = 'warm poll: rate / canned replies'
  const rounds = [row('poll', 'popgres', 1), row('poll', 'popgres', 40), row('poll', 'popgres', 50)]
  const reached = verdictOf([...rounds, row('poll', 'canned', 100)], name)
  expect(reached).toMatchObject({ bound: '≥ 0.4', measured: 0.4, isReached: true, margin: 1 })
  const missed = verdictOf([...rounds, row('poll', 'canned', 200)], name)
  expect(missed).toMatchObject({ measured: 0.2, isReached: false, margin: 0.5 })
})

test('a bound from above turns the margin round', () => {
  const name = 'idle session: KiB'
  const verdict = verdictOf([row('idle', 'popgres', 1, { memoryKib: 8 })], name)
  expect(verdict).toMatchObject({ bound: '< 16', measured: 8, isReached: true, margin: 2 })
  const atBound = verdictOf([row('idle', 'popgres', 1, { memoryKib: 16 })], name)
  expect(atBound.isReached).toBe(false)
})

test('against Dovecot counts the variant that is best at it, with all its CPU and ours', () => {
  const rows = [
    row('retr', 'dovecot argon2id', 100, { serverCpuMs: 1 }),
    row('retr', 'dovecot sha512 cache', 200, { serverCpuMs: 8 }),
    row('retr', 'popgres', 300, { serverCpuMs: 1, databaseCpuMs: 5 }),
  ]
  expect(verdictOf(rows, 'RETR: rate / Dovecot').measured).toBe(1.5)
  expect(verdictOf(rows, 'RETR: CPU a message / Dovecot').measured).toBe(0.75)
})

test('a target that cannot be computed says what was not measured', () => {
  const verdict = verdictOf([row('poll', 'popgres', 5)], 'warm poll: rate / canned replies')
  expect(verdict).toMatchObject({ measured: undefined, isReached: undefined })
  expect(verdict.missing).toBe('poll of canned was not measured')
  const without = verdictOf([row('idle', 'popgres', 5)], 'idle session: KiB')
  expect(without.missing).toBe('idle says no memory')
})

test('every target can be computed', () => {
  const servers = ['popgres', 'dovecot sha512 cache', 'dovecot argon2id', 'canned']
  const workloads = new Set(
    `poll poll-stat poll-tls poll-tls-resumed cold-login retr retr-pipelined retr-dele big-maildrop
    large-message idle idle-tls lmtp poll-0ms retr-0ms poll-1ms retr-1ms quit
    big-maildrop-memory large-message-memory bare-argon2 durable-commit workers-1 workers-2 workers-4`.split(
      /\s+/,
    ),
  )
  const figures = { statMs: 1, listMs: 1, uidlMs: 1, quitMs: 1, commitMs: 1 }
  const more: Partial<Row> = {
    serverCpuMs: 1,
    memoryKib: 1,
    statementsPerSession: 1,
    figures: { ...figures, statementsPerMessage: 1, walOctetsPerOctet: 1 },
  }
  const rows = servers.flatMap((server) => [...workloads].map((name) => row(name, server, 1, more)))
  expect(judge(rows).filter(({ missing }) => missing !== undefined)).toEqual([])
})

test('a table has a column only where a row fills it, numbers to the right, bars escaped', () => {
  expect(formatRows([row('a|b', 'popgres', 12_345.6, { memoryKib: 5.67891 })])).toBe(
    '| workload | server | rate | a second | KiB |\n|---|---|---:|---|---:|\n' +
      '| a\\|b | popgres | 12,346 | polls | 5.68 |\n',
  )
  expect(formatTable(['x'], [], [true])).toBe('| x |\n|---:|\n')
})

const machine = { cpu: 'Z80', cores: 1, memoryGib: 64, node: 'v20' }
const results: Results = {
  machine,
  commit: '1a2b3c4 + changes',
  date: '2026-11-23T00:00:00Z',
  rounds: 3,
  isPartial: false,
  rows: [row('poll', 'popgres', 50), row('poll', 'canned', 100)],
}

test('a page tells machine, commit, date, rounds, targets and measurements', () => {
  const page = formatResults('Side by side', results, 'x.svg')
  expect(page).toMatch(/^# Bench: Side by side\n/)
  expect(page).toContain(
    '2026-11-23T00:00:00Z, commit 1a2b3c4 + changes, 1 × Z80, 64 GiB, Node v20',
  )
  expect(page).toContain('Medians of 3 rounds')
  expect(page).toContain('| warm poll: rate / canned replies | ≥ 0.4 | 0.5 | yes |')
  expect(page).toContain('idle of popgres was not measured')
  expect(page).toContain('| poll | canned | 100 | polls |')
  expect(page).toContain('](x.svg)')
})

test('a page of a partial run shows only the targets that it measured', () => {
  const page = formatResults('Some', { ...results, isPartial: true })
  expect(page).toContain('| warm poll: rate / canned replies | ≥ 0.4 | 0.5 | yes |')
  expect(page).not.toContain('was not measured')
  const [, ...others] = results.rows
  const without = formatResults('Some', { ...results, isPartial: true, rows: others })
  expect(without).not.toContain('## Targets')
  expect(without).toContain('## Measurements')
})

test('figures are told in words', () => {
  const figures = { quitMs: 2.14, statementsPerMessage: 0.0301 }
  const table = formatRows([row('retr', 'x', 1, { figures, statementsPerSession: 102, note: 'n' })])
  expect(table).toContain('| statements a session | further |')
  expect(table).toContain('| 102 | QUIT 2.14 ms, statements a message: 0.0301, n |')
})

test('a commit is named with whether the tree has changes, and is unknown without git', () => {
  const place = mkdtempSync(join(tmpdir(), 'popgres-commit-'))
  const git = (...words: string[]) => execFileSync('git', words, { cwd: place, stdio: 'ignore' })
  try {
    expect(describeCommit(place)).toBe('unknown')
    git('init')
    const author = ['-c', 'user.name=x', '-c', 'user.email=x@example.org', '-c', 'commit.gpgsign=0']
    git(...author, 'commit', '--allow-empty', '-m', 'x')
    mkdirSync(join(place, 'bench', 'results'), { recursive: true })
    writeFileSync(join(place, 'bench', 'results', 'page.md'), '')
    expect(describeCommit(join(place, 'bench'))).toMatch(/^[0-9a-f]{4,}$/)
    writeFileSync(join(place, 'new'), '')
    expect(describeCommit(join(place, 'bench'))).toMatch(/^[0-9a-f]{4,} \+ changes$/)
  } finally {
    rmSync(place, { recursive: true })
  }
})
