/**
 * What was deleted, and by whom. Whoever sent QUIT with a message marked may have deleted it: surely if
 * it was answered +OK, surely not if it was answered -ERR, else all or nothing. What a later session was
 * shown, and what the database holds at the end, must fit.
 *
 * Why a later session decides: it is given the maildrop only when the lease of the one before is gone, and
 * then a QUIT of that one has been carried out or can delete nothing any more.
 */
import { isOvertaken } from './exclusion.ts'
import type { FinalMessage, FinalState } from './final.ts'
import { type Records, type SessionRecord, uniqueIdsOf } from './records.ts'
import type { Violation } from './violation.ts'

const UNASKED = 'deleted without an acknowledged QUIT'

interface Attempt {
  session: SessionRecord
  ids: ReadonlySet<string>
  quitAt: number
  /** When +OK was read. */
  toldAt: number | undefined
  answer: '+OK' | '-ERR' | 'none'
  fate: 'all' | 'none' | 'unknown'
  /** What shows that nothing was deleted. */
  reason: string
  /** Another session had the maildrop before QUIT was sent. */
  isOvertaken: boolean
}

export function checkDeletes({ deliveries, sessions }: Records, final: FinalState): Violation[] {
  const stored = new Map<string, FinalMessage[]>()
  for (const message of final.messages)
    stored.set(message.maildrop, [...(stored.get(message.maildrop) ?? []), message])
  const maildrops = new Set([...sessions.keys(), ...stored.keys()])
  return [...maildrops].flatMap((maildrop) => {
    const messages = stored.get(maildrop) ?? []
    const since = new Map<string, number>()
    for (const { token, uniqueId } of messages) {
      const at = deliveries.get(token)?.acknowledged.get(maildrop)
      if (at !== undefined) since.set(uniqueId, at)
    }
    return new Maildrop(maildrop, sessions.get(maildrop) ?? [], messages, since).check()
  })
}

class Maildrop {
  readonly #name: string
  readonly #sessions: readonly SessionRecord[]
  readonly #attempts: Attempt[]
  readonly #left: ReadonlySet<string>
  /** Unique-id → from when on it is known to be there. */
  readonly #since: Map<string, number>
  readonly #violations: Violation[] = []

  constructor(
    name: string,
    sessions: readonly SessionRecord[],
    messages: readonly FinalMessage[],
    since: Map<string, number>,
  ) {
    this.#name = name
    this.#sessions = sessions
    this.#left = new Set(
      messages.filter(({ place }) => place === 'maildrop').map(({ uniqueId }) => uniqueId),
    )
    this.#since = since
    for (const { listings } of sessions)
      for (const { at, uniqueIds } of listings)
        for (const id of uniqueIds) since.set(id, Math.min(at, since.get(id) ?? at))
    this.#attempts = sessions.flatMap((session) => attemptOf(session) ?? [])
  }

  check(): Violation[] {
    for (const attempt of this.#attempts) this.#decide(attempt)
    const goneAt = this.#checkListings()
    for (const id of this.#since.keys()) {
      if (!this.#left.has(id)) {
        if (!goneAt.has(id)) this.#explain(id, Number.POSITIVE_INFINITY, 'at the end')
      } else if (goneAt.has(id)) this.#cameBack(id, goneAt.get(id) ?? 0, undefined, 'at the end')
    }
    return this.#violations
  }

  /** Of an attempt without an answer: a message that is still there shows that it did nothing. */
  #decide(attempt: Attempt): void {
    const { session, ids, quitAt } = attempt
    const newer = this.#sessions.find((one) => one !== session && isOvertaken(session, one))
    // An acknowledged one is named by exclusion.ts.
    if (newer !== undefined && attempt.answer !== '+OK') {
      attempt.isOvertaken = true
      attempt.fate = 'none'
      attempt.reason = `session ${newer.session} had the maildrop before`
    }
    if (attempt.fate !== 'unknown') return
    for (const id of ids) {
      const witness = this.#sessions.find(
        ({ loginAt, listings }) =>
          loginAt > quitAt && listings.some(({ uniqueIds }) => uniqueIds.has(id)),
      )
      if (witness === undefined && !this.#left.has(id)) continue
      attempt.fate = 'none'
      const place = witness === undefined ? 'at the end' : `in session ${witness.session}`
      attempt.reason = `${id} was still there ${place}`
      return
    }
  }

  /** @returns unique-id → when it was first seen to be gone */
  #checkListings(): Map<string, number> {
    const goneAt = new Map<string, number>()
    const listings = this.#sessions
      .flatMap((session) => session.listings.map((listing) => ({ session, ...listing })))
      .sort((one, other) => one.at - other.at)
    const expected = new Map([...this.#since].sort(([, one], [, other]) => one - other))
    for (const { session, at, uniqueIds, markedIds } of listings) {
      for (const [id, since] of expected) {
        if (since >= session.loginAt) break
        if (uniqueIds.has(id) || markedIds.has(id)) continue
        this.#explain(id, at, `in session ${session.session}`)
        goneAt.set(id, at)
        expected.delete(id)
      }
      for (const id of uniqueIds) {
        const before = goneAt.get(id)
        if (before !== undefined && before < session.loginAt)
          this.#cameBack(id, before, at, `in session ${session.session}`)
      }
    }
    this.#checkAcknowledged()
    return goneAt
  }

  /** After +OK nobody who logs in is shown it again. */
  #checkAcknowledged(): void {
    for (const { session, ids, toldAt } of this.#attempts) {
      if (toldAt === undefined) continue
      const by = `was deleted by session ${session.session}, whose QUIT was answered +OK`
      for (const id of ids) {
        const seen = this.#sessions
          .filter(({ loginAt }) => loginAt > toldAt)
          .find(({ listings }) => listings.some(({ uniqueIds }) => uniqueIds.has(id)))
        if (seen !== undefined)
          this.#fail(`${id} ${by}, and is in session ${seen.session}`, seen.openAt)
        else if (this.#left.has(id)) this.#fail(`${id} ${by}, and is there at the end`, undefined)
      }
    }
  }

  #cameBack(id: string, before: number, at: number | undefined, where: string): void {
    this.#fail(`${id} was gone at ${Math.round(before)} ms and is there ${where}`, at)
  }

  #fail(detail: string, at: number | undefined): void {
    const maildrop = this.#name
    this.#violations.push({ rule: 'acknowledged delete came back', at, maildrop, detail })
  }

  /** Somebody must have asked for it who was not told that nothing was deleted. */
  #explain(id: string, at: number, where: string): void {
    const asked = this.#attempts.filter(({ ids, quitAt }) => ids.has(id) && quitAt < at)
    if (asked.some(({ fate }) => fate !== 'none')) return
    const overtaken = asked.find((attempt) => attempt.isOvertaken)
    const half = asked.find(({ answer }) => answer === 'none')
    const refused = asked.find(({ answer }) => answer === '-ERR')
    const [rule, why] =
      overtaken !== undefined
        ? (['overtaken session deleted', `by ${quitOf(overtaken)}: ${overtaken.reason}`] as const)
        : half !== undefined
          ? (['half a QUIT', `by the unanswered ${quitOf(half)}, but ${half.reason}`] as const)
          : refused !== undefined
            ? ([UNASKED, `and the ${quitOf(refused)} was answered -ERR`] as const)
            : ([UNASKED, 'and no session that had it marked sent QUIT'] as const)
    const detail = `${id} is gone ${where}, ${why}`
    const time = Number.isFinite(at) ? at : undefined
    this.#violations.push({ rule, at: time, maildrop: this.#name, detail })
  }
}

const quitOf = ({ session }: Attempt): string => `QUIT of session ${session.session}`

function attemptOf(session: SessionRecord): Attempt | undefined {
  const { quitAt, quitTold, marked } = session
  if (quitAt === undefined || marked.size === 0) return undefined
  const ids = uniqueIdsOf(session, marked)
  const attempt = { session, ids, quitAt, toldAt: undefined, reason: '', isOvertaken: false }
  if (quitTold === undefined) return { ...attempt, answer: 'none', fate: 'unknown' }
  if (!quitTold.reply.startsWith('+OK')) return { ...attempt, answer: '-ERR', fate: 'none' }
  return { ...attempt, toldAt: quitTold.at, answer: '+OK', fate: 'all' }
}
