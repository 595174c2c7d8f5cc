/**
 * `popgres throttle …`: who is delayed or refused after failed logins. The operations are in
 * admin/operations/throttles.ts.
 */
import type { Command } from 'commander'
import {
  clearThrottle,
  listThrottles,
  type ThrottleEntry,
} from '../../admin/operations/throttles.ts'
import { type CommandContext, withDatabase } from '../command-context.ts'
import { type Column, formatCount, formatJson, formatMoment, formatTable } from '../output.ts'

const COLUMNS: readonly Column<ThrottleEntry>[] = [
  { title: 'KIND', cell: (entry) => entry.kind },
  { title: 'SUBJECT', cell: (entry) => entry.subject },
  { title: 'FROM', cell: (entry) => entry.network ?? '-' },
  { title: 'FAILURES', cell: (entry) => entry.failures.toFixed(1), isRight: true },
  { title: 'EFFECT', cell: (entry) => entry.effect },
  { title: 'LAST', cell: (entry) => formatMoment(entry.lastFailureAt) },
]

export function defineThrottleCommands(program: Command, context: CommandContext): void {
  const throttle = program.command('throttle').description('see and forget failed logins')

  throttle
    .command('list')
    .description('list what failed logins have added up to, the most first')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
KIND says what failed: a network (an IPv4 address or an IPv6 /64), a user (as it was named,
whether it exists or not), a domain, or a known user (from a network that it lately logged in
from: nothing else counts there). Failures fade; the same wrong password again counts once.
`,
    )
    .action((options: { json?: boolean }) =>
      withDatabase(context, async ({ db }) => {
        const entries = await listThrottles(db)
        process.stdout.write(options.json ? formatJson(entries) : formatTable(COLUMNS, entries))
      }),
    )

  throttle
    .command('clear')
    .description('forget the failed logins of an address, a domain or a network')
    .argument('[subject]', 'as "popgres throttle list" shows it')
    .option('--all', 'forget all of them')
    .addHelpText(
      'after',
      `
Examples:
  popgres throttle clear alice@example.com
  popgres throttle clear 192.0.2.1
  popgres throttle clear 2001:db8:0:1::/64
  popgres throttle clear --all
`,
    )
    .action((subject: string | undefined, options: { all?: boolean }, command: Command) => {
      if ((subject === undefined) !== (options.all === true))
        command.error('name one subject, or give --all')
      return withDatabase(context, async ({ db }) => {
        const cleared = await clearThrottle(db, subject)
        process.stdout.write(`forgot ${formatCount(cleared, 'row')} of failed logins\n`)
      })
    })
}
