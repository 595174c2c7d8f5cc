/**
 * `popgres import`: old mail out of files into one maildrop. The formats are in formats/, the
 * delivery and its ledger in admin/transfer/import-messages.ts.
 */
import { type Command, Option } from 'commander'
import { importMessages } from '../admin/transfer/import-messages.ts'
import { type CommandContext, withDatabase } from './command-context.ts'
import { measureSources, readSources, type SourceFormat } from './formats/sources.ts'
import { formatCount, formatJson, harmlessLine } from './output.ts'
import { startProgress } from './progress.ts'

export function defineImportCommand(program: Command, context: CommandContext): void {
  program
    .command('import')
    .description('bring messages from .eml files, mbox files or Maildirs into a maildrop')
    .argument('<address>', 'whose maildrop')
    .argument('<file...>', '.eml or mbox files, Maildir directories (new and cur)')
    .addOption(
      new Option('--format <format>', 'what the files are')
        .choices(['auto', 'eml', 'mbox', 'maildir'])
        .default('auto'),
    )
    .option('--json', 'print the report as JSON')
    .addHelpText(
      'after',
      `
Can be stopped and started again: what is in already is not brought in twice, and what was deleted
since stays deleted. What was skipped is told with the reason, one line each, on standard error
(with --json in the report). Status 1 if something was skipped for another reason than that it is
in already. A file that neither begins like a message nor is named .eml is skipped; --format eml
takes it as it is.

Examples:
  popgres import alice@example.com ~/old-mail.mbox
  popgres import alice@example.com ~/Maildir saved/*.eml
`,
    )
    .action((address: string, files: string[], options: { format: SourceFormat; json?: boolean }) =>
      withDatabase(context, async ({ db, settings }) => {
        const progress = startProgress(await measureSources(files), 'octets')
        try {
          const report = await importMessages(db, {
            address,
            items: readSources(files, options.format),
            messageMaxOctets: settings.POPGRES_MESSAGE_MAX_OCTETS,
            onProgress: ({ octets }) => progress.update(octets),
          })
          progress.stop()
          const { imported, alreadyImported, skipped } = report
          // JSON has them itself.
          for (const { source, reason } of options.json ? [] : skipped)
            process.stderr.write(`${harmlessLine(source)}: ${harmlessLine(reason)}\n`)
          const summary =
            `imported ${formatCount(imported, 'message')}, ` +
            `${alreadyImported} were in already, ${skipped.length} skipped\n`
          process.stdout.write(options.json ? formatJson(report) : summary)
          if (skipped.length > 0) context.status = 1
        } finally {
          progress.stop()
        }
      }),
    )
}
