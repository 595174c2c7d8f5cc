/**
 * `popgres import popgres`: undoes an export, here or elsewhere. What the files say is read in
 * export/exported-directory.ts; the run is that of all old servers.
 */
import type { Command } from 'commander'
import type { CommandContext } from '../command-context.ts'
import { readExports } from './export/exported-directory.ts'
import { addRunOptions, MOVE_IN_HELP, type MoveInFlags, runMoveIn } from './move-in-command.ts'

export function definePopgresImportCommand(parent: Command, context: CommandContext): void {
  const command = parent
    .command('popgres')
    .description('bring in what "popgres export" wrote: users, mail, aliases, policies')
    .argument('<directory...>', 'what --to named, one for each export')
  addRunOptions(command)
    .addHelpText('after', MOVE_IN_HELP)
    .addHelpText(
      'after',
      `
In whichever format it was exported. A domain that is added has its policy, quota and switches from
the start; one that is there already keeps its own, and the report says where they differ. Suspended
users stay suspended. Domains whose aliases name each other's users are best named together.

Examples:
  popgres import popgres /srv/export --add-domains --dry-run
  popgres import popgres /srv/example.com /srv/example.org --add-domains
`,
    )
    .action((directories: string[], flags: MoveInFlags) =>
      runMoveIn(context, flags, () => readExports(directories)),
    )
}
