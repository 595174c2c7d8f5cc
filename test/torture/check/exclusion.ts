/**
 * No two sessions in TRANSACTION on one maildrop at one time. Three looks at each pair, the one that was
 * told +OK first being the older:
 *
 * - As their clients saw it: the older one's client had not sent QUIT nor seen the end of its
 *   connection when the newer one was told +OK. A client whose node is stopped sees nothing of its
 *   end: such a pair is excused while a `silenced` span of that node lasts.
 * - As they were served: the older one sent a command after that, and it was answered as in
 *   TRANSACTION. Nothing excuses that but lost leases.
 * - A QUIT with marks of the older one was acknowledged. Nothing excuses that.
 *
 * After `leases-lost` the first two are excused for one heartbeat, and what it takes to notice; a time
 * in which the older one's node is silent does not count.
 */
import type { Records, SessionRecord, Span } from './records.ts'
import type { Violation } from './violation.ts'

/** src/mail/maildrop/lease-keeper.ts */
const HEARTBEAT_MS = 5_000
/** A heartbeat that is sent, answered and acted upon by busy processes; a connection made anew. */
const NOTICE_MS = 5_000
/** In which order the events of two sockets reach one process is not quite theirs. */
const ORDER_MS = 250
/** From the end of a silence until the client has read the end of its session. */
const WAKE_MS = 2_000

export function checkExclusion({ sessions, spans }: Records): Violation[] {
  const violations: Violation[] = []
  for (const list of sessions.values())
    for (const [index, older] of list.entries())
      for (const newer of list.slice(index + 1)) {
        const lastAt = Math.max(older.endAt, older.servedUntil)
        if (Number.isFinite(lastAt) && newer.openAt > lastAt) break
        violations.push(...compare(older, newer, spans))
      }
  return violations
}

function compare(older: SessionRecord, newer: SessionRecord, spans: readonly Span[]): Violation[] {
  const { maildrop } = older
  const at = newer.openAt
  const pair = `session ${older.session} on ${older.node} and session ${newer.session} on ${newer.node}`
  const violations: Violation[] = []
  const seenMs = (older.isDeaf ? older.servedUntil : older.endAt) - at
  const isExcused = isSilenced(older, at, spans) || isAfterLoss(older, newer, spans, seenMs)
  if (older.servedUntil > at && !isAfterLoss(older, newer, spans, older.servedUntil - at)) {
    const detail = `${pair}: the older one was served ${ms(older.servedUntil - at)} longer`
    violations.push({ rule: 'two sessions at one time', at, maildrop, detail })
  } else if (seenMs > ORDER_MS && !isExcused) {
    const detail = `${pair}: the older one saw no end for ${ms(seenMs)}`
    violations.push({ rule: 'two sessions at one time', at, maildrop, detail })
  }
  if (isOvertaken(older, newer) && older.marked.size > 0 && isAcknowledged(older)) {
    const detail = `${pair}: the older one's QUIT with ${older.marked.size} marks was answered +OK`
    violations.push({ rule: 'overtaken session deleted', at: older.quitAt, maildrop, detail })
  }
  return violations
}

/** The newer one asked for and got the maildrop while the older one believed that it had it. */
export function isOvertaken(older: SessionRecord, newer: SessionRecord): boolean {
  return newer.loginAt > older.openAt && older.quitAt !== undefined && newer.openAt < older.quitAt
}

const isAcknowledged = ({ quitTold }: SessionRecord): boolean =>
  quitTold?.reply.startsWith('+OK') ?? false

function isSilenced({ node, endAt }: SessionRecord, at: number, spans: readonly Span[]): boolean {
  return spans.some(
    (span) =>
      span.kind === 'silenced' &&
      span.node === node &&
      span.from < at &&
      (at < span.to || span.to === Number.POSITIVE_INFINITY) &&
      endAt < span.to + WAKE_MS,
  )
}

/** One from before a loss of all leases, one from after it, for no longer than a heartbeat. */
function isAfterLoss(
  older: SessionRecord,
  newer: SessionRecord,
  spans: readonly Span[],
  overlapMs: number,
): boolean {
  return spans.some(
    (span) =>
      span.kind === 'leases-lost' &&
      older.openAt < span.to + NOTICE_MS &&
      newer.openAt > span.from &&
      overlapMs - silencedMs(older, newer.openAt, newer.openAt + overlapMs, spans) <=
        HEARTBEAT_MS + NOTICE_MS + Math.max(0, span.to - newer.openAt),
  )
}

/** For how long from then to then the node of a session told nobody anything. */
function silencedMs({ node }: SessionRecord, from: number, to: number, spans: readonly Span[]) {
  return spans
    .filter((span) => span.kind === 'silenced' && span.node === node)
    .reduce((sum, span) => sum + Math.max(0, Math.min(to, span.to) - Math.max(from, span.from)), 0)
}

const ms = (value: number): string =>
  Number.isFinite(value) ? `${Math.round(value)} ms` : 'all the rest of the run'
