/** `popgres alias …`: other names of users. The operations are in admin/operations/aliases.ts. */
import type { Command } from 'commander'
import {
  type Alias,
  addAlias,
  listAliases,
  removeAlias,
} from '../../../admin/operations/aliases.ts'
import { type CommandContext, withDatabase } from '../../command-context.ts'
import { type Column, formatCount, formatJson, formatTable, formatYesNo } from '../../output.ts'

const COLUMNS: readonly Column<Alias>[] = [
  { title: 'ALIAS', cell: (alias) => alias.address },
  { title: 'HIDDEN', cell: (alias) => formatYesNo(alias.isHidden) },
  { title: 'USERS', cell: (alias) => alias.targets.join(' ') },
]

export function defineAliasCommands(program: Command, context: CommandContext): void {
  const alias = program.command('alias').description('give users more addresses')

  alias
    .command('add')
    .description('let mail for an address go to users, of whatever domain')
    .argument('<alias>', 'an address, or @example.com for every address there is not')
    .argument('<user...>', 'addresses of users, added to those that it has')
    .addHelpText(
      'after',
      `
Of an address it is asked: is there a user of that name, an alias, a user or alias without what
follows the separator (see "popgres policy set --help"), a catch-all. The first that there is gets
the mail. An alias names users of this server, 100 at most, and no other alias: mail is not sent on.

Examples:
  popgres alias add sales@example.com alice@example.com bob@example.net
  popgres alias add @example.com alice@example.com
`,
    )
    .action((address: string, users: string[]) =>
      withDatabase(context, async ({ db }) => {
        const added = await addAlias(db, address, users)
        process.stdout.write(`added ${added}: ${users.join(', ')}\n`)
      }),
    )

  alias
    .command('list')
    .description('list the aliases of a domain, or one')
    .argument('<domain-or-alias>')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nHidden: there is a user of that name, who comes before.\n')
    .action((subject: string, options: { json?: boolean }) =>
      withDatabase(context, async ({ db }) => {
        const found = await listAliases(db, subject)
        process.stdout.write(options.json ? formatJson(found) : formatTable(COLUMNS, found))
      }),
    )

  alias
    .command('remove')
    .description('remove an alias, or users from it')
    .argument('<alias>', 'an address, or @example.com')
    .argument('[user...]', 'left out: the whole alias')
    .action((address: string, users: string[]) =>
      withDatabase(context, async ({ db }) => {
        const gone = await removeAlias(db, address, users)
        process.stdout.write(`removed ${formatCount(gone, 'user')} from ${address}\n`)
      }),
    )
}
