/**
 * What an operator does with the memory of failed logins: see who is delayed or refused, and forget
 * it.
 */
import { judgeCount } from '../../mail/auth/throttle.ts'
import type { Database } from '../../storage/postgres/database.ts'
import { clearThrottles, selectThrottleRows, type ThrottleKind } from '../../storage/throttles.ts'
import { refused } from '../refusal.ts'

export interface ThrottleEntry {
  /** `known`: the user, from a network that it lately logged in from */
  kind: ThrottleKind
  /** an address, a domain, or a network */
  subject: string
  /** only of `known`: from where */
  network: string | null
  /** not whole, as they fade */
  failures: number
  effect: 'none' | 'delayed' | 'refused'
  lastFailureAt: Date
}

/** The most failures first. */
export async function listThrottles(db: Database): Promise<ThrottleEntry[]> {
  const rows = await selectThrottleRows(db)
  return rows.map(({ key, failures, updatedAt }) => {
    const [kind, ...words] = key.split(' ') as [ThrottleKind, ...string[]]
    const subject = words.at(-1) ?? ''
    return {
      kind,
      subject: kind === 'network' ? formatNetwork(subject) : subject,
      network: kind === 'known' ? formatNetwork(words[0] ?? '') : null,
      failures: Math.round(failures * 10) / 10,
      effect: effectOf(kind, failures),
      lastFailureAt: updatedAt,
    }
  })
}

/**
 * @param subject as listed: an address (with the networks it is known from), a domain, a network;
 *   undefined: all
 * @returns how many entries there were
 * @throws {Failure} OPERATION_REFUSED if there were none of the subject
 */
export async function clearThrottle(db: Database, subject: string | undefined): Promise<number> {
  const cleared = await clearThrottles(db, subject?.replace(/::\/64$/, ''))
  if (subject !== undefined && cleared === 0)
    throw refused(`no failed logins of ${JSON.stringify(subject)}: see "popgres throttle list"`)
  return cleared
}

function effectOf(kind: ThrottleKind, failures: number): ThrottleEntry['effect'] {
  const verdict = judgeCount(kind, failures)
  if (verdict.kind === 'refuse') return 'refused'
  return verdict.delayMs > 0 ? 'delayed' : 'none'
}

/** The keys hold the first four groups of an IPv6 address. */
function formatNetwork(source: string): string {
  return source.includes(':') ? `${source}::/64` : source
}
