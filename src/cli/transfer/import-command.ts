/**
 * `popgres import`: old mail out of files into one maildrop, and whole servers (server-commands.ts
 * and its neighbours). The formats are in formats/, the delivery and its ledger in
 * admin/transfer/import-messages.ts.
 */
import { type Command, Option } from 'commander'
import { importMessages } from '../../admin/transfer/import-messages.ts'
import { type CommandContext, withDatabase } from '../command-context.ts'
import { MailPath } from '../formats/mail-path.ts'
import { readMaildrops, type UidlSource } from '../formats/maildrop.ts'
import { measureSources, type SourceFormat } from '../formats/sources.ts'
import { parseUidlFormat } from '../formats/uidl-format.ts'
import { formatCount, formatJson, harmlessLine } from '../output.ts'
import { startProgress } from '../progress.ts'
import { definePop3ImportCommand } from './pop3-import-command.ts'
import { definePopgresImportCommand } from './popgres-import-command.ts'
import { defineRemoteCommands } from './remote-commands.ts'
import { addUidlOptions, defineServerCommands } from './server-commands.ts'

interface ImportFlags {
  format: SourceFormat
  uidl: UidlSource
  uidlFormat: string
  followLinks?: boolean
  newIds?: boolean
  dryRun?: boolean
  json?: boolean
}

export function defineImportCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('import')
    .enablePositionalOptions() // what stands behind a server's name is its own
    .description('bring messages from files into a maildrop, or move a whole server in')
    .argument('<address>', 'whose maildrop')
    .argument('<file...>', '.eml or mbox files, Maildir directories (new and cur)')
    .addOption(
      new Option('--format <format>', 'what the files are')
        .choices(['auto', 'eml', 'mbox', 'maildir'])
        .default('auto'),
    )
    .option('--follow-links', 'a file or Maildir that is named may be a link')
    .option('--new-ids', 'a message whose unique-id cannot be kept comes in with a new one')
    .option('--dry-run', 'read everything, write nothing, print the same report')
    .option('--json', 'print the report as JSON')
  addUidlOptions(command, 'auto')
    .addHelpText(
      'after',
      `
Can be stopped and started again: what is in already is not brought in twice, and what was deleted
since stays deleted. What was skipped is told with the reason, one line each, on standard error
(with --json in the report). Status 1 if something was skipped for another reason than that it is
in already. A file that neither begins like a message nor is named .eml is skipped; --format eml
takes it as it is.

Unique-ids are kept where Dovecot or Courier has left its list in a Maildir; --uidl x-uidl takes
them from the messages' headers. One that cannot be kept refuses its message, or see --new-ids.

Examples:
  popgres import alice@example.com ~/old-mail.mbox
  popgres import alice@example.com ~/Maildir saved/*.eml
`,
    )
    .action((address: string, files: string[], options: ImportFlags) =>
      withDatabase(context, async ({ db, settings }) => {
        const paths = MailPath.given(files, options.followLinks)
        const progress = startProgress(await measureSources(paths), 'octets')
        try {
          const report = await importMessages(db, {
            address,
            items: readMaildrops(paths, {
              uidl: options.uidl,
              format: parseUidlFormat(options.uidlFormat),
              files: options.format,
            }),
            isDryRun: options.dryRun === true,
            replacesUniqueIds: options.newIds === true,
            messageMaxOctets: settings.POPGRES_MESSAGE_MAX_OCTETS,
            onProgress: ({ octets }) => progress.update(octets),
          })
          progress.stop()
          const { imported, alreadyImported, skipped } = report
          // JSON has them itself.
          for (const { source, reason } of options.json ? [] : skipped)
            process.stderr.write(`${harmlessLine(source)}: ${harmlessLine(reason)}\n`)
          const verb = options.dryRun ? 'would import' : 'imported'
          const summary =
            `${verb} ${formatCount(imported, 'message')}, ` +
            `${alreadyImported} were in already, ${skipped.length} skipped\n`
          process.stdout.write(options.json ? formatJson(report) : summary)
          if (skipped.length > 0) context.status = 1
        } finally {
          progress.stop()
        }
      }),
    )
  defineServerCommands(command, context)
  defineRemoteCommands(command, context)
  definePop3ImportCommand(command, context)
  definePopgresImportCommand(command, context)
}
