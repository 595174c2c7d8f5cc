/**
 * `popgres import pop3`: one maildrop from another POP3 server, by its password; and how the
 * command line names such a server. The operation is in admin/transfer/moving.ts.
 */
import { readFile } from 'node:fs/promises'
import { type Command, Option } from 'commander'
import { describeReadError } from '../../admin/read-error.ts'
import { refused } from '../../admin/refusal.ts'
import { importRemote, type OldServerRequest } from '../../admin/transfer/moving.ts'
import { Secret } from '../../base/secret.ts'
import type { CopyReport } from '../../mail/moving/maildrop-copy.ts'
import { type CommandContext, withDatabase } from '../command-context.ts'
import { formatCount, formatJson, harmlessLine } from '../output.ts'
import { type Progress, startProgress } from '../progress.ts'
import { readSecretLines } from '../prompt.ts'

export interface OldServerFlags {
  stls?: boolean
  plain?: boolean
  caFile?: string
}

interface Flags extends OldServerFlags {
  remoteUser?: string
  passwordFile?: string
  passwordStdin?: boolean
  dryRun?: boolean
  json?: boolean
}

export function addOldServerOptions(command: Command): Command {
  return command
    .addOption(new Option('--stls', 'pop3://: TLS by STLS, before the password').conflicts('plain'))
    .option('--plain', 'pop3://: passwords may go in the clear')
    .option('--ca-file <file>', 'PEM: who signs the certificate of that server')
}

/** @param importing the command `import` */
export function definePop3ImportCommand(importing: Command, context: CommandContext): void {
  const command = importing
    .command('pop3')
    .description('bring one maildrop from another POP3 server, with its unique-ids')
    .argument('<address>', 'whose maildrop')
    .argument('<url>', 'pop3s://host[:port] or pop3://host[:port]')
  addOldServerOptions(command)
    .option('--remote-user <name>', 'who it is on that server; default: the address')
    .option('--password-file <file>', 'whose first line is the password there')
    .option('--password-stdin', 'read the password there from standard input')
    .option('--dry-run', 'only list, and say what would come')
    .option('--json', 'print the report as JSON')
    .addHelpText(
      'after',
      `
Nothing is deleted there. Can be stopped and started again: what is in already, or was deleted here
since, does not come again. Status 1 if a message was skipped. For a whole domain whose passwords
only its users know see "popgres domain migrate --help".

Examples:
  popgres import pop3 alice@example.com pop3s://old.example.com --password-file secret-file
  popgres import pop3 alice@example.com pop3://10.0.0.5 --stls --ca-file ca.pem \\
    --remote-user alice --password-stdin < secret-file
`,
    )
    .action((address: string, url: string, flags: Flags) => run(context, address, url, flags))
}

function run(context: CommandContext, address: string, from: string, flags: Flags): Promise<void> {
  return withDatabase(context, async ({ db, settings }) => {
    const server = await toOldServerRequest(from, flags)
    const password = await readPassword(flags)
    let progress: Progress | undefined
    try {
      const report = await importRemote(db, {
        ...server,
        address,
        remoteUser: flags.remoteUser ?? address,
        password,
        messageMaxOctets: settings.POPGRES_MESSAGE_MAX_OCTETS,
        isDryRun: flags.dryRun === true,
        onProgress: (done, total) => {
          progress ??= startProgress(total.octets, 'octets')
          progress.update(done.octets)
        },
      })
      progress?.stop()
      print(report, flags)
      if (report.skipped.length > 0) context.status = 1
    } finally {
      progress?.stop()
    }
  })
}

function print(report: CopyReport, flags: Flags): void {
  const { imported, alreadyImported, skipped } = report
  // JSON has them itself.
  for (const { source, reason } of flags.json ? [] : skipped)
    process.stderr.write(`${harmlessLine(source)}: ${harmlessLine(reason)}\n`)
  const summary =
    `${flags.dryRun ? 'would import' : 'imported'} ${formatCount(imported, 'message')}, ` +
    `${alreadyImported} were in already, ${skipped.length} skipped\n`
  process.stdout.write(flags.json ? formatJson(report) : summary)
}

async function readPassword({ passwordFile, passwordStdin }: Flags): Promise<Secret> {
  if (passwordFile === undefined) {
    if (passwordStdin !== true)
      throw refused('the password there is wanted: give --password-file or --password-stdin')
    const [password] = await readSecretLines(1)
    return password as Secret
  }
  const text = await readTextFile(passwordFile)
  const [line = ''] = text.split(/\r?\n/)
  if (line === '') throw refused(`${passwordFile} is empty: its first line is the password`)
  return new Secret(line)
}

/** @throws {Failure} OPERATION_REFUSED if the file cannot be read */
export async function toOldServerRequest(
  from: string,
  { stls, plain, caFile }: OldServerFlags,
): Promise<OldServerRequest> {
  const authority = caFile === undefined ? undefined : await readPem(caFile)
  return { from, isStls: stls === true, isPlain: plain === true, authority }
}

async function readPem(file: string): Promise<string> {
  const text = await readTextFile(file)
  if (!text.includes('-----BEGIN CERTIFICATE-----'))
    throw refused(`${file} holds no certificate: PEM is wanted`)
  return text
}

/** @throws {Failure} OPERATION_REFUSED if it cannot be read */
export async function readTextFile(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8')
  } catch (error) {
    throw refused(`${file} cannot be read: ${describeReadError(error) ?? 'it is no file'}`, error)
  }
}
