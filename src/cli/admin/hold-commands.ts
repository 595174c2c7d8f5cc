/**
 * `popgres hold …`: legal holds on users and domains. The operations are in
 * admin/operations/holds.ts.
 */
import type { Command } from 'commander'
import { type Hold, listHolds, releaseHold, setHold } from '../../admin/operations/holds.ts'
import { type CommandContext, withDatabase } from '../command-context.ts'
import { type Column, formatJson, formatMoment, formatTable } from '../output.ts'

const COLUMNS: readonly Column<Hold>[] = [
  { title: 'HELD', cell: (hold) => hold.subject },
  { title: 'SINCE', cell: (hold) => formatMoment(hold.since) },
  { title: 'REASON', cell: (hold) => hold.reason },
]

export function defineHoldCommands(program: Command, context: CommandContext): void {
  const hold = program
    .command('hold')
    .description('keep everything of a user or a domain from being destroyed')

  hold
    .command('set')
    .description('put a user, or a domain with everybody in it, under a legal hold')
    .argument('<domain-or-address>')
    .requiredOption('--reason <text>', 'what it is for; up to 500 characters')
    .addHelpText(
      'after',
      `
While a hold is on, clients read and delete as ever and notice nothing, but what they delete stays
in the trash beyond its days, and messages do not expire. Removing the user or the domain,
deleting messages and erasing are refused, by this command and by the database itself.
Users that are added to a held domain are held too.

Examples:
  popgres hold set alice@example.com --reason "case 2026-17"
  popgres hold set example.com --reason "letter of 2026-11-02"
`,
    )
    .action((subject: string, options: { reason: string }) =>
      withDatabase(context, async ({ db }) => {
        const held = await setHold(db, subject, options.reason)
        process.stdout.write(`${held} is under a legal hold\n`)
      }),
    )

  hold
    .command('list')
    .description('list the legal holds that are on')
    .option('--domain <name>', 'only of this domain and its users')
    .option('--json', 'print JSON')
    .action((options: { domain?: string; json?: boolean }) =>
      withDatabase(context, async ({ db }) => {
        const holds = await listHolds(db, options.domain)
        process.stdout.write(options.json ? formatJson(holds) : formatTable(COLUMNS, holds))
      }),
    )

  hold
    .command('release')
    .description('end a legal hold: what was kept by it alone is purged from then on')
    .argument('<domain-or-address>')
    .addHelpText(
      'after',
      `
A hold on a domain and one on a user in it are two: each is released by its own name.

Example:
  popgres hold release alice@example.com
`,
    )
    .action((subject: string) =>
      withDatabase(context, async ({ db }) => {
        const released = await releaseHold(db, subject)
        process.stdout.write(`the legal hold on ${released} is over\n`)
      }),
    )
}
