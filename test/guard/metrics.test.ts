/**
 * What counting a warm poll costs, in readings of the clock, of which it needs eight: a figure that is
 * much the same on every machine. The best of many short rounds counts, as others use it too.
 */
import { expect, test } from 'vitest'
import { METRICS } from '../../src/base/metrics.ts'
import { StatementMeter } from '../../src/storage/postgres/statement-meter.ts'
import { expectWithin } from './figure.ts'

const WARMING_POLLS = 50_000
const POLLS = 2_000
const ROUNDS = 60
const STATEMENTS = ['lease-acquire', 'maildrop-open', 'lease-release']
const EXCHANGES = 5

const metrics = METRICS
const hot = new StatementMeter('hot')

/** As arrival.ts, connection.ts, reply-writer.ts, verified-cache.ts and database.ts do. */
function countPoll(): void {
  metrics.pop3Connections.of().add(1)
  metrics.pop3Arrivals.of('greeted').add()
  for (let i = 0; i < EXCHANGES; i++) {
    metrics.pop3OctetsReceived.of().add(20)
    metrics.pop3OctetsSent.of().add(60)
  }
  const beganAt = performance.now()
  metrics.loginCache.of('hit').add()
  for (const name of STATEMENTS) hot.end(name, hot.begin())
  metrics.loginAttempts.of('password', 'opened').add()
  metrics.loginSeconds.of().observe((performance.now() - beganAt) / 1_000)
  metrics.pop3Sessions.of().add(1)
  metrics.pop3Commits.of('committed').add()
  metrics.pop3Deleted.of().add(0)
  metrics.pop3Sessions.of().add(-1)
  metrics.pop3SessionEnds.of('quit').add()
  metrics.pop3Connections.of().add(-1)
}

/** Nanoseconds of one call. */
function timeOf(work: () => void): number {
  for (let i = 0; i < WARMING_POLLS; i++) work()
  const rounds = Array.from({ length: ROUNDS }, () => {
    const beganAt = process.hrtime.bigint()
    for (let i = 0; i < POLLS; i++) work()
    return Number(process.hrtime.bigint() - beganAt) / POLLS
  })
  return Math.min(...rounds)
}

test('counting a warm poll', () => {
  let clock = 0
  const reading = timeOf(() => {
    clock += performance.now()
  })
  const counting = timeOf(countPoll)
  expect(clock).toBeGreaterThan(0)
  process.stdout.write(
    `guard: counting a warm poll takes ${Math.round(counting)} ns, ` +
      `a reading of the clock ${Math.round(reading)} ns\n`,
  )
  expectWithin('counting a warm poll: readings of the clock', counting / reading)
})
