/** What a run was, in a few lines for the terminal and for docs/reliability.md. */
import type { Violation } from './check/violation.ts'
import type { HistoryEvent } from './history.ts'

const SAMPLES = 6

export interface RunSummary {
  seed: number
  seconds: number
  nodes: string
  /** Answered +OK. */
  sessions: number
  logins: Record<string, number>
  quits: { acknowledged: number; refused: number; unanswered: number }
  /** Recipients of deliveries. */
  deliveries: { acknowledged: number; refused: number; unanswered: number }
  fetched: number
  faults: Record<string, number>
  skipped: Record<string, string>
  slowestRecoveryMs: number
  violations: Violation[]
}

export function summarise(
  events: readonly HistoryEvent[],
  run: Pick<RunSummary, 'seed' | 'seconds' | 'nodes' | 'violations'>,
): RunSummary {
  const count = (test: (event: HistoryEvent) => boolean): number => events.filter(test).length
  const quits = count(({ type }) => type === 'quit')
  const quitsTold = tally(events, (event) =>
    event.type === 'quit-told' ? event.reply.slice(0, 3) : undefined,
  )
  const told = tally(events, (event) =>
    event.type === 'delivery-told' ? String(event.code) : undefined,
  )
  let recipients = 0
  let acknowledged = 0
  let slowestRecoveryMs = 0
  for (const event of events) {
    if (event.type === 'delivery') recipients += event.recipients.length
    if (event.type === 'delivery-told' && event.stage === 'data' && event.code === 250)
      acknowledged++
    if (event.type === 'recovered') slowestRecoveryMs = Math.max(slowestRecoveryMs, event.tookMs)
  }
  const refused = Object.entries(told)
    .filter(([code]) => code !== '250')
    .reduce((sum, [, many]) => sum + many, 0)
  const acknowledgedQuits = quitsTold['+OK'] ?? 0
  const refusedQuits = quitsTold['-ER'] ?? 0
  return {
    ...run,
    sessions: count((event) => event.type === 'login-told' && event.reply.startsWith('+OK')),
    logins: tally(events, (event) =>
      event.type === 'login-told' ? loginOf(event.reply) : undefined,
    ),
    quits: {
      acknowledged: acknowledgedQuits,
      refused: refusedQuits,
      unanswered: quits - acknowledgedQuits - refusedQuits,
    },
    deliveries: { acknowledged, refused, unanswered: recipients - acknowledged - refused },
    fetched: count((event) => event.type === 'message' && event.command === 'RETR'),
    faults: tally(events, (event) =>
      event.type === 'fault' && event.phase === 'begun' ? event.name : undefined,
    ),
    skipped: Object.fromEntries(
      events.flatMap((event) =>
        event.type === 'fault' && event.phase === 'skipped'
          ? [[event.name, event.detail ?? '']]
          : [],
      ),
    ),
    slowestRecoveryMs,
  }
}

function tally(
  events: readonly HistoryEvent[],
  nameOf: (event: HistoryEvent) => string | undefined,
): Record<string, number> {
  const counts: Record<string, number> = {}
  for (const event of events) {
    const name = nameOf(event)
    if (name !== undefined) counts[name] = (counts[name] ?? 0) + 1
  }
  return counts
}

const loginOf = (reply: string): string => /^(\+OK|-ERR( \[[^\]]*\])?)/.exec(reply)?.[0] ?? 'other'

export function format(summary: RunSummary): string {
  const { seed, seconds, nodes, sessions, logins, quits, deliveries, fetched } = summary
  const list = (counts: Record<string, number>): string =>
    Object.entries(counts)
      .sort(([one], [other]) => one.localeCompare(other))
      .map(([name, many]) => `${name} ${many}`)
      .join(', ') || 'none'
  const lines = [
    `seed ${seed}, ${seconds} s, ${nodes}`,
    `sessions ${sessions} (logins: ${list(logins)}), messages fetched ${fetched}`,
    `QUIT +OK ${quits.acknowledged}, -ERR ${quits.refused}, unanswered ${quits.unanswered}`,
    `deliveries, by recipient: 250 ${deliveries.acknowledged}, refused ${deliveries.refused}, ` +
      `unanswered ${deliveries.unanswered}`,
    `faults: ${list(summary.faults)}`,
    ...Object.entries(summary.skipped).map(([name, why]) => `skipped: ${name}: ${why}`),
    `after the faults every maildrop was available within ${Math.round(summary.slowestRecoveryMs)} ms`,
    summary.violations.length === 0
      ? 'the checker found nothing'
      : `the checker found ${summary.violations.length}:`,
    ...samples(summary.violations),
  ]
  return lines.map((line) => `torture: ${line}`).join('\n')
}

/** Of each rule how many, and the first ones. */
function samples(violations: readonly Violation[]): string[] {
  const rules = [...new Set(violations.map(({ rule }) => rule))]
  return rules.flatMap((rule) => {
    const own = violations.filter((violation) => violation.rule === rule)
    return [`${own.length} × ${rule}`, ...own.slice(0, SAMPLES).map(formatViolation)]
  })
}

export function formatViolation({ rule, at, maildrop, detail }: Violation): string {
  const when = at === undefined ? 'final state' : `${Math.round(at)} ms`
  return `${rule}: ${maildrop === undefined ? '' : `${maildrop}: `}${detail} (${when})`
}
