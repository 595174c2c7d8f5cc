/**
 * `popgres session …`: who has a maildrop open. The operations are in admin/operations/sessions.ts.
 */
import type { Command } from 'commander'
import { kickSession, type LiveSession, listSessions } from '../../admin/operations/sessions.ts'
import { type CommandContext, withDatabase } from '../command-context.ts'
import { type Column, formatJson, formatMoment, formatTable } from '../output.ts'

const COLUMNS: readonly Column<LiveSession>[] = [
  { title: 'ADDRESS', cell: (session) => session.address },
  { title: 'CLIENT', cell: (session) => session.client },
  { title: 'SINCE', cell: (session) => formatMoment(session.since) },
  { title: 'SESSION', cell: (session) => session.sessionId.slice(0, 8) },
  { title: 'NODE', cell: (session) => session.node ?? '(gone)' },
]

export function defineSessionCommands(program: Command, context: CommandContext): void {
  const session = program.command('session').description('see and end live POP3 sessions')

  session
    .command('list')
    .description('list live sessions')
    .option('--domain <name>', 'only of this domain')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
SESSION is how the id begins that the log has; --json has all of it.

Examples:
  popgres session list
  popgres session list --domain example.com --json
`,
    )
    .action((options: { domain?: string; json?: boolean }) =>
      withDatabase(context, async ({ db }) => {
        const sessions = await listSessions(db, options.domain)
        process.stdout.write(options.json ? formatJson(sessions) : formatTable(COLUMNS, sessions))
      }),
    )

  session
    .command('kick')
    .description('end the session of a user; what it marked as deleted stays')
    .argument('<address>')
    .addHelpText(
      'after',
      `
The maildrop is free at once; the client is told within a few seconds and may log in again:
suspend the user to keep it out.

Example:
  popgres session kick alice@example.com
`,
    )
    .action((address: string) =>
      withDatabase(context, async ({ db }) => {
        const wasThere = await kickSession(db, address)
        process.stdout.write(
          wasThere ? `ended the session of ${address}\n` : `${address} has no session\n`,
        )
      }),
    )
}
