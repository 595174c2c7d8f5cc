/**
 * `popgres message history`: who fetched or deleted a message, or any message on a day. The
 * operation is in admin/operations/history.ts.
 */
import { type Command, InvalidArgumentError } from 'commander'
import {
  deedOf,
  type History,
  type HistoryQuestion,
  type PastSession,
  readHistory,
  type UidRange,
} from '../../../admin/operations/history.ts'
import { refused } from '../../../admin/refusal.ts'
import { type CommandContext, withDatabase } from '../../command-context.ts'
import { type Column, formatJson, formatMoment, formatTable } from '../../output.ts'

const LIST_LIMIT = 1_000
/** LIMIT: of those that nobody has asked for more closely. */
const LATEST_LIMIT = 20
const DAY_MS = 86_400_000
/** Of a list for the eye; --json has all. */
const RANGES_SHOWN = 8

interface HistoryOptions {
  uniqueId?: string
  day?: Date
  json?: boolean
}

export function defineMessageHistory(message: Command, context: CommandContext): void {
  message
    .command('history')
    .description('show who fetched or deleted: the latest sessions, a message, or a day')
    .argument('<address>')
    .option('--unique-id <id>', 'sessions that took this message: unique-id or UID, or uid:3, id:3')
    .option(
      '--day <day>',
      'sessions that ended on this day, from midnight to midnight UTC',
      parseDay,
    )
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
Without --unique-id and --day these are the latest 20 sessions. All times are UTC. A session that
neither fetched nor deleted is not noted. FETCHED and DELETED are UIDs; fetched is what was sent
whole. CLIENT sql is an operator or the expiry of old mail. What a session deleted comes back
with "popgres message restore --session". The log is kept for POPGRES_SESSION_LOG_MONTHS.

Examples:
  popgres message history alice@example.com
  popgres message history alice@example.com --day 2026-11-23
  popgres message history alice@example.com --unique-id 1763900000000.17
`,
    )
    .action((address: string, options: HistoryOptions) =>
      withDatabase(context, async ({ db }) => {
        const question = questionOf(options)
        const limit = question === 'latest' ? LATEST_LIMIT : LIST_LIMIT
        const history = await readHistory(db, address, question, limit)
        process.stdout.write(options.json ? formatJson(history) : formatHistory(history))
        if (history.hasMore)
          process.stderr.write(`these are the last ${limit}: there are more before, see --day\n`)
      }),
    )
}

function questionOf({ uniqueId, day }: HistoryOptions): HistoryQuestion {
  if (uniqueId !== undefined && day !== undefined)
    throw refused('say which message or which day: --unique-id or --day, not both')
  if (uniqueId === undefined && day === undefined) return 'latest'
  if (uniqueId !== undefined) return { id: uniqueId }
  const from = day ?? new Date()
  return { from, until: new Date(from.getTime() + DAY_MS) }
}

const COLUMNS: readonly Column<PastSession>[] = [
  { title: 'ENDED', cell: ({ endedAt }) => formatMoment(endedAt) },
  { title: 'CLIENT', cell: ({ client }) => client ?? '-' },
  { title: 'TLS', cell: ({ tls }) => tls ?? '-' },
  { title: 'CREDENTIAL', cell: ({ credential }) => credential ?? '-' },
  { title: 'END', cell: ({ reason }) => reason ?? '-' },
]
const SESSION: Column<PastSession> = { title: 'SESSION', cell: ({ sessionId }) => sessionId }
const UIDS: readonly Column<PastSession>[] = [
  { title: 'FETCHED', cell: (session) => formatUids(session.fetched, session.fetchedUids) },
  { title: 'DELETED', cell: (session) => formatUids(session.deleted, session.deletedUids) },
]

function formatHistory({ address, message, sessions }: History): string {
  if (message === undefined)
    return sessions.length === 0
      ? `no session of ${address} that has fetched or deleted anything is noted\n`
      : formatTable([...COLUMNS, ...UIDS, SESSION], sessions)
  const { uid, uniqueId, place, receivedAt, deletedAt } = message
  const where = {
    maildrop: 'in the maildrop',
    trash: `in the trash since ${formatMoment(deletedAt ?? undefined)}`,
    gone: 'gone from maildrop and trash',
  }[place]
  const received = receivedAt === null ? '' : `received ${formatMoment(receivedAt)}, `
  const deed = { title: 'DID', cell: (session: PastSession) => deedOf(session, uid) }
  const table =
    sessions.length === 0
      ? 'nobody has fetched or deleted it, as far back as the log goes\n'
      : formatTable([deed, ...COLUMNS, SESSION], sessions)
  return `message ${uid} (${uniqueId}) of ${address}: ${received}${where}\n${table}`
}

function formatUids(count: number, ranges: readonly UidRange[]): string {
  if (count === 0) return '-'
  if (ranges.length === 0) return `${count}, not noted which`
  const shown = ranges.slice(0, RANGES_SHOWN).map(([first, last]) => {
    return first === last ? `${first}` : `${first}-${last}`
  })
  return `${shown.join(' ')}${ranges.length > RANGES_SHOWN ? ' …' : ''}`
}

function parseDay(text: string): Date {
  const day = new Date(`${/^\d{4}-\d\d-\d\d$/.test(text) ? text : ''}T00:00Z`)
  if (Number.isNaN(day.getTime()))
    throw new InvalidArgumentError('It is a day, written 2026-11-23.')
  return day
}
