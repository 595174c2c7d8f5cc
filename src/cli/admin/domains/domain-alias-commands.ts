/** `popgres domain alias …`: domains that stand for others. */
import type { Command } from 'commander'
import {
  addDomainAlias,
  type DomainAlias,
  listDomainAliases,
  removeDomainAlias,
} from '../../../admin/operations/aliases.ts'
import { type CommandContext, withDatabase } from '../../command-context.ts'
import { type Column, formatJson, formatTable } from '../../output.ts'

const COLUMNS: readonly Column<DomainAlias>[] = [
  { title: 'DOMAIN', cell: (alias) => alias.domain },
  { title: 'STANDS FOR', cell: (alias) => alias.standsFor },
]

export function defineDomainAliasCommands(domain: Command, context: CommandContext): void {
  const alias = domain.command('alias').description('let a whole domain stand for another')

  alias
    .command('add')
    .description('each address of a domain is then the one of that name in another')
    .argument('<name>', 'added if there is no such domain')
    .argument('<domain>', 'for which it stands')
    .addHelpText(
      'after',
      `
Users that the first domain has keep their mail; logins are by the second one's names.

Example:
  popgres domain alias add example.net example.com
`,
    )
    .action((name: string, other: string) =>
      withDatabase(context, async ({ db }) => {
        const added = await addDomainAlias(db, name, other)
        process.stdout.write(`${added.domain} stands for ${added.standsFor}\n`)
      }),
    )

  alias
    .command('list')
    .description('list the domains that stand for others')
    .option('--json', 'print JSON')
    .action((options: { json?: boolean }) =>
      withDatabase(context, async ({ db }) => {
        const found = await listDomainAliases(db)
        process.stdout.write(options.json ? formatJson(found) : formatTable(COLUMNS, found))
      }),
    )

  alias
    .command('remove')
    .description('let a domain stand for itself again')
    .argument('<name>')
    .action((name: string) =>
      withDatabase(context, async ({ db }) => {
        const { domain: kept, standsFor } = await removeDomainAlias(db, name)
        process.stdout.write(
          `${kept} stands for ${standsFor} no longer; "popgres domain remove ${kept}" removes it\n`,
        )
      }),
    )
}
