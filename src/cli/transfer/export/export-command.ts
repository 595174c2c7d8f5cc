/**
 * `popgres export`: a user's or a domain's mail into files, with the users themselves. What is read
 * and how is in admin/transfer/export.ts, what the files look like in the writers beside this one.
 */
import { join } from 'node:path'
import { type Command, Option } from 'commander'
import { describeReadError } from '../../../admin/read-error.ts'
import { refused } from '../../../admin/refusal.ts'
import {
  type ExportReport,
  exportMail,
  type MaildropWriter,
  measureExport,
  type OpenMaildrop,
} from '../../../admin/transfer/export.ts'
import { type CommandContext, withDatabase } from '../../command-context.ts'
import { formatCount, formatJson, harmlessLine } from '../../output.ts'
import { startProgress } from '../../progress.ts'
import { openEmlWriter } from './eml-writer.ts'
import { fileNameOf, openDirectory, writeJson } from './export-directory.ts'
import { openMaildirWriter } from './maildir-writer.ts'
import { openMboxWriter } from './mbox-writer.ts'

const WRITERS = { maildir: openMaildirWriter, mbox: openMboxWriter, eml: openEmlWriter }

interface ExportFlags {
  format: keyof typeof WRITERS
  to?: string
  dryRun?: boolean
  json?: boolean
}

export function defineExportCommand(program: Command, context: CommandContext): void {
  program
    .command('export')
    .description('write the mail of a user or a domain into files')
    .argument('<address|domain>', 'whose mail')
    .addOption(
      new Option('--format <format>', 'what to write')
        .choices(Object.keys(WRITERS))
        .default('maildir'),
    )
    .option('--to <directory>', 'an empty directory, or one to be made')
    .option('--dry-run', 'read everything, write nothing, print the same report')
    .option('--json', 'print the report as JSON')
    .addHelpText(
      'after',
      `
Makes one directory a user, named like the local part, and beside them users.json (password hashes:
keep it safe), of a domain domain.json (policy, quota, aliases) and, at the end, export.json with
the report: without it the export was cut. Each maildrop is written as it is when its turn comes;
its user may log in and get mail meanwhile. A message that cannot be read whole is left out and
named, and the status is 1. "popgres import popgres DIRECTORY" brings all of it in elsewhere.

  maildir  with a dovecot-uidlist, from which Dovecot shows the same unique-ids
  mbox     one file, unique-ids in X-UIDL fields that are put on top
  eml      one file a message, unique-ids in the names

Examples:
  popgres export example.com --dry-run
  popgres export example.com --to /srv/export
  popgres export alice@example.com --format mbox --to alice
`,
    )
    .action((whose: string, flags: ExportFlags) =>
      withDatabase(context, async ({ db }) => {
        const directory = flags.dryRun ? undefined : flags.to
        if (directory === undefined && !flags.dryRun)
          throw refused('say where to: --to DIRECTORY, or --dry-run')
        const progress = startProgress(await measureExport(db, whose), 'messages')
        try {
          if (directory !== undefined) await openDirectory(directory)
          const request = {
            whose,
            openMaildrop: opener(flags.format, directory),
            onProgress: progress.update,
          }
          const report = await exportMail(db, request)
          if (directory !== undefined) await closeDirectory(directory, flags.format, whose, report)
          progress.stop()
          print(report, flags)
          if (report.missing.length > 0) context.status = 1
        } catch (error) {
          throw explain(error)
        } finally {
          progress.stop()
        }
      }),
    )
}

/** @param directory undefined: everything is read, and kept nowhere */
function opener(format: ExportFlags['format'], directory: string | undefined): OpenMaildrop {
  if (directory === undefined) return async () => READ_ONLY
  return (user, snapshot) => WRITERS[format](join(directory, fileNameOf(user.localPart)), snapshot)
}

const READ_ONLY: MaildropWriter = {
  async write(message) {
    for await (const _ of message.pieces());
  },
  async finish() {},
}

async function closeDirectory(
  directory: string,
  format: string,
  whose: string,
  { users, domain, ...report }: ExportReport,
): Promise<void> {
  const named = users.map((user) => ({ ...user, directory: fileNameOf(user.localPart) }))
  await writeJson(join(directory, 'users.json'), named)
  if (domain !== null) await writeJson(join(directory, 'domain.json'), domain)
  const closing = { whose, format, users: users.length, ...report }
  await writeJson(join(directory, 'export.json'), closing)
}

function print({ users, domain: _, ...report }: ExportReport, { dryRun, json }: ExportFlags): void {
  if (json) {
    process.stdout.write(formatJson({ users: users.length, ...report }))
    return
  }
  for (const { address, uid, reason } of report.missing) {
    const what = uid === null ? address : `${address}, message ${uid}`
    process.stderr.write(`${harmlessLine(what)}: ${harmlessLine(reason)}\n`)
  }
  const verb = dryRun ? 'would export' : 'exported'
  process.stdout.write(
    `${verb} ${formatCount(report.messages, 'message')} (${report.octets} octets) of ` +
      `${formatCount(users.length, 'user')}, ${report.missing.length} missing\n`,
  )
}

/** What the file system refuses is no failure of ours. */
function explain(error: unknown): unknown {
  const { code, path } = error as NodeJS.ErrnoException
  const reason = code === 'ENOSPC' ? 'the disk is full' : describeReadError(error)
  return reason === undefined
    ? error
    : refused(`cannot write ${path ?? 'the export'}: ${reason}`, error)
}
