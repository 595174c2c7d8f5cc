/**
 * A unique-id is one message's for ever, a message's unique-id never changes, its octets neither, and
 * numbers follow the uids.
 */
import type { FinalState } from './final.ts'
import type { Listing, Records, SessionRecord } from './records.ts'
import type { Violation } from './violation.ts'

export function checkUniqueIds({ sessions }: Records, final: FinalState): Violation[] {
  const known = new Known()
  for (const list of sessions.values())
    for (const session of list) {
      for (const listing of session.listings) checkListing(session, listing, known)
      for (const { number, token, at } of session.messages) {
        const uniqueId = session.entries.get(number)?.[1]
        if (uniqueId !== undefined) known.isToken(session.maildrop, uniqueId, token, at)
      }
    }
  for (const { maildrop, uniqueId, token, octets } of final.messages) {
    known.isToken(maildrop, uniqueId, token, undefined)
    known.hasOctets(maildrop, uniqueId, octets, undefined)
  }
  return known.violations
}

function checkListing(
  { maildrop, session, entries }: SessionRecord,
  { at, entries: listed }: Listing,
  known: Known,
): void {
  const fail = (rule: Violation['rule'], detail: string): void => {
    known.violations.push({ rule, at, maildrop, detail: `session ${session}: ${detail}` })
  }
  let lastNumber = 0
  let lastUid = 0
  for (const [number, uniqueId, octets] of listed) {
    const uid = uidOf(uniqueId)
    if (number <= lastNumber || uid <= lastUid)
      fail(
        'numbers out of order',
        `${number} ${uniqueId} follows ${lastNumber} with uid ${lastUid}`,
      )
    lastNumber = number
    lastUid = uid
    const before = entries.get(number)?.[1]
    if (before !== undefined && before !== uniqueId)
      fail('unique-id reused or changed', `number ${number} was ${before} and is ${uniqueId}`)
    known.hasOctets(maildrop, uniqueId, octets, at)
  }
}

/** `<uid_validity>.<uid>`, as no message here is imported. */
const uidOf = (uniqueId: string): number => Number(uniqueId.slice(uniqueId.lastIndexOf('.') + 1))

class Known {
  readonly violations: Violation[] = []
  readonly #tokens = new Map<string, string>()
  readonly #uniqueIds = new Map<string, string>()
  readonly #octets = new Map<string, number>()

  isToken(maildrop: string, uniqueId: string, token: string, at: number | undefined): void {
    const rule = 'unique-id reused or changed'
    const oldToken = remember(this.#tokens, `${maildrop} ${uniqueId}`, token)
    if (oldToken !== token) {
      const detail = `${uniqueId} was ${oldToken} and is ${token}`
      this.violations.push({ rule, at, maildrop, detail })
    }
    const oldId = remember(this.#uniqueIds, `${maildrop} ${token}`, uniqueId)
    if (oldId !== uniqueId) {
      const detail = `${token} was ${oldId} and is ${uniqueId}`
      this.violations.push({ rule, at, maildrop, detail })
    }
  }

  hasOctets(maildrop: string, uniqueId: string, octets: number, at: number | undefined): void {
    const before = remember(this.#octets, `${maildrop} ${uniqueId}`, octets)
    if (before === octets) return
    const detail = `${uniqueId} had ${before} octets and has ${octets}`
    this.violations.push({ rule: 'message changed', at, maildrop, detail })
  }
}

/** @returns what was remembered first */
function remember<T>(map: Map<string, T>, key: string, value: T): T {
  const before = map.get(key)
  if (before !== undefined) return before
  map.set(key, value)
  return value
}
