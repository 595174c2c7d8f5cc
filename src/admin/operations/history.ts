/**
 * "Who took my mail?": which sessions fetched or deleted one message, or any message on a day. The
 * log notes what was sent whole, not what the client did with it.
 */
import type { Database } from '../../storage/postgres/database.ts'
import {
  type LoggedSession,
  type LogQuestion,
  selectLoggedSessions,
} from '../../storage/tenants/maildrops/session-log.ts'
import type { TracedMessage } from '../../storage/tenants/maildrops/trash.ts'
import { formatAddress } from '../address.ts'
import { refused } from '../refusal.ts'
import { findMessage } from './messages.ts'
import { requireUser } from './users.ts'

/** Of one message, of a span of time, or the latest that there are. */
export type HistoryQuestion = { id: string } | { from: Date; until: Date } | 'latest'

/** First and last uid. */
export type UidRange = [number, number]

export interface PastSession
  extends Omit<LoggedSession, 'fetchedUids' | 'deletedUids' | 'credentialName'> {
  /** `password`, `app password phone`, …; undefined: not noted, or nobody logged in */
  credential: string | undefined
  fetchedUids: UidRange[]
  deletedUids: UidRange[]
  /** Uids that lie in the ranges may not be meant: there were too many ranges to note. */
  isRough: boolean
}

export interface History {
  address: string
  /** the one that was asked for */
  message: TracedMessage | undefined
  /** the last ones, the oldest first */
  sessions: PastSession[]
  /** There are more, before these. */
  hasMore: boolean
}

/** @throws {Failure} OPERATION_REFUSED if there never was such a message, as far as is known */
export async function readHistory(
  db: Database,
  address: string,
  question: HistoryQuestion,
  limit: number,
): Promise<History> {
  const { row, domainName } = await requireUser(db, address)
  const kept = formatAddress({ localPart: row.localPart, domainName })
  const id = question !== 'latest' && 'id' in question ? question.id : undefined
  const message = id === undefined ? undefined : await findMessage(db, row, id)
  if (id !== undefined && message === undefined)
    throw refused(
      `nothing is known of a message ${id} of ${kept}; one that was imported and has ` +
        'left the trash is known by its UID alone: see --day',
    )
  const asked: LogQuestion =
    question === 'latest' ? question : 'id' in question ? { uid: message?.uid ?? 0 } : question
  const found = await selectLoggedSessions(db, row, asked, limit + 1)
  const hasMore = found.length > limit
  const sessions = found.slice(hasMore ? 1 : 0).map(toPast)
  return { address: kept, message, sessions, hasMore }
}

/** What a session did to one message. */
export function deedOf(session: PastSession, uid: number): string {
  const has = (ranges: UidRange[]) => ranges.some(([first, last]) => first <= uid && uid <= last)
  const deeds = []
  if (has(session.fetchedUids)) deeds.push('fetched')
  if (has(session.deletedUids)) deeds.push('deleted')
  return session.isRough ? `perhaps ${deeds.join(', ')}` : deeds.join(', ')
}

function toPast(logged: LoggedSession): PastSession {
  const { fetchedUids, deletedUids, credentialName, ...session } = logged
  const fetched = toRanges(fetchedUids)
  const deleted = toRanges(deletedUids)
  return {
    ...session,
    credential: credentialOf(logged),
    fetchedUids: fetched,
    deletedUids: deleted,
    isRough: countOf(fetched) > session.fetched || countOf(deleted) > session.deleted,
  }
}

function credentialOf(logged: LoggedSession): string | undefined {
  const { mechanism, credentialId, credentialName } = logged
  if (credentialId === undefined)
    return mechanism === 'password' || mechanism === 'scram' ? 'main password' : mechanism
  const kind = mechanism === 'external' ? 'certificate' : 'app password'
  return `${kind} ${credentialName ?? credentialId}`
}

/** PostgreSQL says `{[1,4),[7,8)}`. */
function toRanges(text: string | undefined): UidRange[] {
  const found = [...(text ?? '').matchAll(/\[(\d+),(\d+)\)/g)]
  return found.map(([, first, end]) => [Number(first), Number(end) - 1])
}

function countOf(ranges: readonly UidRange[]): number {
  return ranges.reduce((sum, [first, last]) => sum + last - first + 1, 0)
}
