/** Sums and counters: of sessions, of the maildrops, of what the sweep leaves; and the way back to normal. */
import type { HistoryEvent } from '../history.ts'
import type { FinalState } from './final.ts'
import type { Records, SessionRecord } from './records.ts'
import type { Violation } from './violation.ts'

const RECOVERY_MS = 45_000

export function checkCounts({ sessions }: Records, final: FinalState): Violation[] {
  const violations: Violation[] = []
  for (const list of sessions.values()) for (const one of list) violations.push(...checkStats(one))
  violations.push(...checkCounters(final))
  const { beforePurge, afterPurge, trash } = final.orphans
  if (beforePurge + afterPurge + trash > 0) {
    const detail = `${beforePurge} after the sweep, ${afterPurge} and ${trash} rows of trash after the purge`
    violations.push({ rule: 'orphan bodies', detail })
  }
  for (const detail of final.findings) violations.push({ rule: 'popgres check', detail })
  violations.push(...checkAfterSweep(final))
  return violations
}

/** STAT is what LIST adds up to, without what is marked (RFC 1939 §5). */
function checkStats({ session, maildrop, listings, stats, entries }: SessionRecord): Violation[] {
  const violations: Violation[] = []
  const rule = 'STAT and LIST differ'
  for (const { at, mismatch } of listings)
    if (mismatch !== undefined) {
      const detail = `session ${session}: LIST and UIDL name different messages: ${mismatch}`
      violations.push({ rule, at, maildrop, detail })
    }
  // A first listing after marks does not tell what was marked: a client here marks what it has listed.
  if (listings.length === 0) return violations
  for (const { at, count, octets, marked } of stats) {
    const left = [...entries.values()].filter(([number]) => !marked.has(number))
    const sum = left.reduce((total, [, , size]) => total + size, 0)
    if (left.length === count && sum === octets) continue
    const detail = `session ${session}: STAT says ${count} ${octets}, LIST ${left.length} ${sum}`
    violations.push({ rule, at, maildrop, detail })
  }
  return violations
}

function checkCounters({ messages, counters }: FinalState): Violation[] {
  const violations: Violation[] = []
  const sums = new Map<string, { count: number; octets: number; lastUid: number }>()
  for (const { maildrop, place, octets, uid } of messages) {
    const sum = sums.get(maildrop) ?? { count: 0, octets: 0, lastUid: 0 }
    if (place === 'maildrop') {
      sum.count++
      sum.octets += octets
    }
    sum.lastUid = Math.max(sum.lastUid, uid)
    sums.set(maildrop, sum)
  }
  for (const { maildrop, count, octets, nextUid } of counters) {
    const sum = sums.get(maildrop) ?? { count: 0, octets: 0, lastUid: 0 }
    sums.delete(maildrop)
    const rule = 'counters differ from rows'
    if (sum.count !== count || sum.octets !== octets) {
      const detail = `the counters say ${count} with ${octets} octets, the rows ${sum.count} with ${sum.octets}`
      violations.push({ rule, maildrop, detail })
    }
    if (nextUid <= sum.lastUid) {
      const detail = `the next uid is ${nextUid}, and ${sum.lastUid} has been used`
      violations.push({ rule, maildrop, detail })
    }
  }
  for (const maildrop of sums.keys()) {
    const detail = 'there are messages and no counters'
    violations.push({ rule: 'counters differ from rows', maildrop, detail })
  }
  return violations
}

/** The purge takes bodies that only the trash named, and no other. */
function checkAfterSweep({ messages, afterSweep }: FinalState): Violation[] {
  const left = new Map(
    afterSweep.map(({ maildrop, uniqueId, digest }) => [`${maildrop} ${uniqueId}`, digest]),
  )
  return messages
    .filter(({ place }) => place === 'maildrop')
    .filter(({ maildrop, uniqueId, digest }) => left.get(`${maildrop} ${uniqueId}`) !== digest)
    .map(({ maildrop, uniqueId, token }) => ({
      rule: 'acknowledged message lost',
      maildrop,
      detail: `${token} (${uniqueId}) was there before the sweep and is lost or changed after it`,
    }))
}

export function checkRecovery(events: readonly HistoryEvent[]): Violation[] {
  const violations: Violation[] = []
  for (const event of events) {
    if (event.type !== 'recovered') continue
    const { at, maildrop, tookMs, reply } = event
    if (tookMs <= RECOVERY_MS && reply.startsWith('+OK')) continue
    const detail = `login and QUIT took ${Math.round(tookMs)} ms, the last answer was: ${reply}`
    violations.push({ rule: 'not available again', at, maildrop, detail })
  }
  return violations
}
