/**
 * `popgres restore`: what a backup holds goes back into the living database. The operation is in
 * admin/transfer/restore.ts.
 */
import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { describeReadError } from '../../../admin/read-error.ts'
import { refused } from '../../../admin/refusal.ts'
import { type RestoredUser, type RestoreReport, restore } from '../../../admin/transfer/restore.ts'
import { parseDatabaseUrl } from '../../../base/database-url.ts'
import { Failure } from '../../../base/failure.ts'
import { Secret } from '../../../base/secret.ts'
import { type Database, openDatabase } from '../../../storage/postgres/database.ts'
import { type CommandContext, withDatabase } from '../../command-context.ts'
import { type Column, formatCount, formatJson, formatTable } from '../../output.ts'
import { type Progress, startProgress } from '../../progress.ts'
import { parseSession } from './undo-commands.ts'

interface RestoreOptions {
  fromFile: string
  session?: string
  dryRun?: boolean
  json?: boolean
}

const CONNECTIONS_MAX = 2

const COLUMNS: readonly Column<RestoredUser>[] = [
  { title: 'USER', cell: ({ address }) => address },
  { title: 'RESTORED', cell: ({ restored }) => restored, isRight: true },
  { title: 'THERE ALREADY', cell: ({ alreadyThere }) => alreadyThere, isRight: true },
  { title: 'NOTE', cell: noteOn },
]

export function defineRestoreCommand(program: Command, context: CommandContext): void {
  program
    .command('restore')
    .description('hand back a domain, a user or what a session deleted, from a backup')
    .argument('<address|domain>', 'whose messages')
    .requiredOption('--from-file <file>', 'a file with the postgres:// URL of the restored backup')
    .option('--session <id>', 'only what this session deleted (8 digits of it do)', parseSession)
    .option('--dry-run', 'write nothing, say what would be restored')
    .option('--json', 'print the report as JSON')
    .addHelpText(
      'after',
      `
The backup is a second database: pg_restore it, or start the copy of pg_basebackup, beside the
living one. Messages that lay in the maildrop then and are gone now come back, under the unique-ids
that clients know; what is there stays as it is, so it can be run again at any time. Where another
message has the unique-id by now (backup and living database went different ways), it comes back
under a new one, and the note says so. A user or a domain that was removed comes back with
passwords. With --session it is what that session deleted, as long as the backup has it in its
trash. A maildrop that is open in a session is passed over (status 1): run it again.

Examples:
  popgres restore alice@example.com --from-file backup-url --dry-run
  popgres restore example.com --from-file backup-url
  popgres restore alice@example.com --session 0c6f… --from-file backup-url
`,
    )
    .action((whose: string, options: RestoreOptions) =>
      withDatabase(context, async ({ db }) => {
        const url = readUrl(options.fromFile)
        const applicationName = 'popgres restore'
        const backup = openDatabase({ url, applicationName, connectionsMax: CONNECTIONS_MAX })
        let progress: Progress | undefined
        try {
          await reach(backup, options.fromFile)
          const report = await restore(db, backup, {
            whose,
            sessionId: options.session,
            isDryRun: options.dryRun === true,
            onProgress: ({ done, total }) => {
              progress ??= startProgress(total, 'users')
              progress.update(done)
            },
          })
          progress?.stop()
          process.stdout.write(options.json ? formatJson(report) : formatReport(report, options))
          if (report.users.some(({ isInUse }) => isInUse)) context.status = 1
        } finally {
          progress?.stop()
          await backup.close()
        }
      }),
    )
}

/** The URL has a password, which is nothing for a command line. */
function readUrl(file: string): Secret {
  let text: string
  try {
    text = readFileSync(file, 'utf8').trim()
  } catch (error) {
    throw refused(`${file} cannot be read: ${describeReadError(error) ?? 'it failed'}`, error)
  }
  const parsed = parseDatabaseUrl(text)
  if ('wrong' in parsed) throw refused(`what ${file} holds ${parsed.wrong}`)
  return new Secret(text)
}

/** Asked for itself, so that nobody is sent to DATABASE_URL, which is another's. */
async function reach(backup: Database, file: string): Promise<void> {
  try {
    await backup.ping()
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    const what = error.message.replaceAll('DATABASE_URL', `the URL in ${file}`)
    const advice =
      error.code === 'STORAGE_LOGIN_REFUSED'
        ? 'check user, password and database name'
        : 'does the backup run, and is its address right?'
    throw refused(`the backup of ${file}: ${what}: ${advice}`, error)
  }
}

function noteOn({ isInUse, isUserRestored, renumbered }: RestoredUser): string {
  const notes = []
  if (isInUse) notes.push('open in a session: run it again')
  if (isUserRestored) notes.push('was missing')
  if (renumbered > 0) notes.push(`${renumbered} under new unique-ids: others have theirs by now`)
  return notes.join('; ')
}

function formatReport({ users }: RestoreReport, { dryRun }: RestoreOptions): string {
  const restored = users.reduce((sum, user) => sum + user.restored, 0)
  const verb = dryRun ? 'would restore' : 'restored'
  const table = users.length === 0 ? '' : formatTable(COLUMNS, users)
  return `${table}${verb} ${formatCount(restored, 'message')}\n`
}
