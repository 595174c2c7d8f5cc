/**
 * Counts the statements of one door to PostgreSQL and their time, by name. Three of them are a
 * poll: what is known of a name is found by one look-up.
 */
import { METRICS } from '../../base/metrics.ts'
import type { Distribution, Tally } from '../../base/tally.ts'

interface Counts {
  executions: Tally
  seconds: Tally
}

let pending = 0
let lastSignAt = 0

/** For how long something has been asked of PostgreSQL and it has said nothing; 0: nothing is. */
export function silentMs(): number {
  return pending === 0 ? 0 : performance.now() - lastSignAt
}

export class StatementMeter {
  readonly #door: string
  readonly #pending: Tally
  readonly #all: Distribution
  readonly #counts = new Map<string, Counts>()

  constructor(door: 'hot' | 'bulk' | 'kysely') {
    this.#door = door
    this.#pending = METRICS.statementsPending.of(door)
    this.#all = METRICS.statementSeconds.of(door)
  }

  /** @returns what `end` wants to know */
  begin(): number {
    this.#pending.add(1)
    const now = performance.now()
    if (pending++ === 0) lastSignAt = now
    return now
  }

  /** Whether it failed or not. */
  end(name: string, beganAt: number): void {
    this.#pending.add(-1)
    pending--
    lastSignAt = performance.now()
    const seconds = (lastSignAt - beganAt) / 1_000
    const counts = this.#counts.get(name) ?? this.#enter(name)
    counts.executions.add()
    counts.seconds.add(seconds)
    this.#all.observe(seconds)
  }

  fail(code: string): void {
    METRICS.statementFailures.of(this.#door, code).add()
  }

  #enter(name: string): Counts {
    const executions = METRICS.statements.of(name, this.#door)
    const counts = { executions, seconds: METRICS.statementTime.of(name, this.#door) }
    this.#counts.set(name, counts)
    return counts
  }
}
