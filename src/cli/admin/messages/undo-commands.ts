/**
 * `popgres message restore`, `message erase` and `popgres erase`: back from the trash, or gone for
 * good. The operations are in admin/operations/undo.ts.
 */
import { type Command, InvalidArgumentError } from 'commander'
import {
  eraseMessages,
  eraseUser,
  restoreDeleted,
  type UndoReport,
} from '../../../admin/operations/undo.ts'
import { showUser } from '../../../admin/operations/users.ts'
import { refused } from '../../../admin/refusal.ts'
import { type CommandContext, withDatabase } from '../../command-context.ts'
import { type Column, formatCount, formatJson, formatMoment, formatTable } from '../../output.ts'
import { confirmLoss } from '../../prompt.ts'

interface RestoreOptions {
  session?: string
  since?: Date
  until?: Date
  dryRun?: boolean
  kick?: boolean
  json?: boolean
}

const COLUMNS: readonly Column<UndoReport['messages'][number]>[] = [
  { title: 'UID', cell: ({ uid }) => uid, isRight: true },
  { title: 'UNIQUE-ID', cell: ({ uniqueId }) => uniqueId },
  { title: 'RECEIVED', cell: ({ receivedAt }) => formatMoment(receivedAt) },
  { title: 'DELETED', cell: ({ deletedAt }) => formatMoment(deletedAt) },
  { title: 'BY SESSION', cell: ({ sessionId }) => sessionId },
]

export function defineMessageRestore(message: Command, context: CommandContext): void {
  message
    .command('restore')
    .description('put back what was deleted, from the trash')
    .argument('<address>')
    .option('--session <id>', 'what this session deleted (8 digits of it do)', parseSession)
    .option('--since <when>', 'what was deleted from this moment on (UTC)', parseMoment)
    .option('--until <when>', 'what was deleted before this moment (UTC)', parseMoment)
    .option('--dry-run', 'write nothing, list what would come back')
    .option('--kick', 'end the session of the user first, if there is one')
    .option('--json', 'print the report as JSON')
    .addHelpText(
      'after',
      `
Messages come back under the same unique-ids and in the same order: a client that has fetched them
does not fetch them again. They are in the trash for the domain's trash days; "popgres message
history" names the session, older mail is in a backup ("popgres restore"). Refused while the user
has a session, whose list may not change. Quotas are not asked.

Examples:
  popgres message restore alice@example.com --session 0c6f… --dry-run
  popgres message restore alice@example.com --since 2026-11-23T14:00 --until 2026-11-23T15:00
`,
    )
    .action((address: string, options: RestoreOptions) =>
      withDatabase(context, async ({ db }) => {
        const { session: sessionId, since, until } = options
        if (sessionId === undefined && since === undefined && until === undefined)
          throw refused('say what is to come back: --session, or --since and --until')
        const how = { isDryRun: options.dryRun === true, isKick: options.kick === true }
        const report = await restoreDeleted(db, address, { sessionId, since, until }, how)
        process.stdout.write(options.json ? formatJson(report) : formatReport(report))
      }),
    )
}

function formatReport({ address, isDryRun, restored, messages }: UndoReport): string {
  const said = formatCount(restored, 'message')
  if (isDryRun) return `${formatTable(COLUMNS, messages)}would restore ${said} of ${address}\n`
  const left = messages.length - restored
  const rest =
    left > 0 ? `${formatCount(left, 'message')} of the same unique-id there already\n` : ''
  return `restored ${said} of ${address}\n${rest}`
}

export function defineMessageErase(message: Command, context: CommandContext): void {
  message
    .command('erase')
    .description('forget messages: out of maildrop, trash and bodies at once')
    .argument('<address>')
    .argument('<uid...>', 'UIDs or unique-ids')
    .option('--yes', 'do not ask')
    .option('--kick', 'end the session of the user first, if there is one')
    .addHelpText(
      'after',
      `
Nothing brings them back but a backup. Other users who have received the same message keep it.
Refused while the user has a session or is under a legal hold. Status 1 if one was nowhere. If a
number is the UID of one message and the unique-id of another, write uid:3 or id:3.

Example:
  popgres message erase alice@example.com 17 18
`,
    )
    .action((address: string, ids: string[], options: { yes?: boolean; kick?: boolean }) =>
      withDatabase(context, async ({ db }) => {
        const loss = `This erases ${formatCount(ids.length, 'message')} of ${address} for good.`
        await confirmLoss(address, loss, options.yes === true)
        const { erased, missing } = await eraseMessages(db, address, ids, options.kick === true)
        process.stdout.write(`erased ${formatCount(erased, 'message')} of ${address}\n`)
        if (missing.length === 0) return
        process.stderr.write(`not there: ${missing.join(' ')}\n`)
        context.status = 1
      }),
    )
}

export function defineErase(program: Command, context: CommandContext): void {
  program
    .command('erase')
    .description('forget a user: mail, trash, bodies, credentials and session log at once')
    .argument('<address>')
    .option('--yes', 'do not ask')
    .addHelpText(
      'after',
      `
As "popgres user remove", and the octets of the mail go in the same moment instead of within a day.
Other users of the domain keep messages that they have received too. Backups and the logs of nodes
are not touched: see docs/security.md. Refused while the user is under a legal hold.

Example:
  popgres erase alice@example.com
`,
    )
    .action((address: string, options: { yes?: boolean }) =>
      withDatabase(context, async ({ db }) => {
        const found = await showUser(db, address)
        const { messageCount, trashCount } = found
        const mail = `${formatCount(messageCount, 'message')} and ${trashCount} in the trash`
        const loss = `This erases ${found.address} with ${mail} and every trace, for good.`
        await confirmLoss(found.address, loss, options.yes === true)
        await eraseUser(db, found.address)
        process.stdout.write(`erased ${found.address} with ${mail}\n`)
      }),
    )
}

/** All of the id, or how it begins. */
export function parseSession(id: string): string {
  const whole = id + '00000000-0000-0000-0000-000000000000'.slice(id.length)
  if (id.length >= 8 && /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i.test(whole))
    return id.toLowerCase()
  throw new InvalidArgumentError(
    'A session is named by its id, the first 8 digits at least: see "popgres message history".',
  )
}

/** `2026-11-23`, `2026-11-23T14:00`, `2026-11-23 14:00:00Z` as messages are listed. */
function parseMoment(text: string): Date {
  const parts = /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)Z?)?$/.exec(text)
  const moment = new Date(`${parts?.[1]}T${parts?.[2] ?? '00:00'}Z`)
  if (Number.isNaN(moment.getTime()))
    throw new InvalidArgumentError('It is written 2026-11-23 or 2026-11-23T14:00, in UTC.')
  return moment
}
