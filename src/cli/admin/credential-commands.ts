/**
 * `popgres credential …`: app passwords and client certificates of a user. The operations are in
 * admin/operations/credentials.ts.
 */
import { readFileSync } from 'node:fs'
import { type Command, InvalidArgumentError } from 'commander'
import {
  bindCertificate,
  type Credential,
  createAppPassword,
  listCredentials,
  removeCredential,
} from '../../admin/operations/credentials.ts'
import { describeReadError } from '../../admin/read-error.ts'
import { refused } from '../../admin/refusal.ts'
import { type CommandContext, withDatabase } from '../command-context.ts'
import { type Column, formatFields, formatJson, formatMoment, formatTable } from '../output.ts'

interface AddOptions {
  name: string
  expires?: Date
  network?: string[]
  certificate?: string
}

const COLUMNS: readonly Column<Credential>[] = [
  { title: 'NAME', cell: (credential) => credential.name },
  { title: 'KIND', cell: (credential) => credential.kind },
  { title: 'EXPIRES', cell: formatExpiry },
  { title: 'NETWORKS', cell: (credential) => credential.networks?.join(' ') ?? 'all' },
  { title: 'ADDED', cell: (credential) => formatMoment(credential.createdAt) },
  { title: 'LAST USED', cell: (credential) => formatMoment(credential.lastUsedAt ?? undefined) },
]

const NO_MORE_SCRAM = `\
note: this is the first app password, and SCRAM does not work with those: clients set to SCRAM are
no longer offered it (POPGRES_SASL_MECHANISMS names the mechanisms to offer all the same)
`

export function defineCredentialCommands(program: Command, context: CommandContext): void {
  const credential = program
    .command('credential')
    .description('manage app passwords and client certificates')
  defineAdding(credential, context)

  credential
    .command('list')
    .description('list the credentials of a user')
    .argument('<address>')
    .option('--json', 'print JSON, with the ids that the log has')
    .action((address: string, options: { json?: boolean }) =>
      withDatabase(context, async ({ db }) => {
        const found = await listCredentials(db, address)
        process.stdout.write(options.json ? formatJson(found) : formatTable(COLUMNS, found))
      }),
    )

  credential
    .command('revoke')
    .description('take a credential away, and end the session that it opened')
    .argument('<address>')
    .argument('<name>')
    .addHelpText(
      'after',
      `
It tells when the credential was last used; later uses within the same hour are not written down.

Example:
  popgres credential revoke alice@example.com phone
`,
    )
    .action((address: string, name: string) =>
      withDatabase(context, async ({ db }) => {
        const { lastUsedAt } = await removeCredential(db, address, name)
        const use =
          lastUsedAt === undefined ? 'never used' : `last used ${formatMoment(lastUsedAt)}`
        process.stdout.write(`revoked ${name} of ${address}, ${use}\n`)
      }),
    )
}

function defineAdding(credential: Command, context: CommandContext): void {
  credential
    .command('add')
    .description('add an app password, or bind a client certificate')
    .argument('<address>')
    .requiredOption('--name <name>', 'what it is for, such as phone')
    .option('--expires <when>', 'a day (2027-01-31, UTC, not included) or 90d', parseExpiry)
    .option('--network <cidr>', 'from where it works; may be given several times', collect)
    .option('--certificate <file>', 'PEM or DER: instead of an app password, for SASL EXTERNAL')
    .addHelpText(
      'after',
      `
An app password is made up and printed once. It is typed where the client asks for a password;
blanks, hyphens and case do not count. "popgres user main-password" can make it the only way in.

Examples:
  popgres credential add alice@example.com --name phone
  popgres credential add alice@example.com --name office --network 192.0.2.0/24 --expires 90d
  popgres credential add alice@example.com --name laptop --certificate laptop.pem
`,
    )
    .action((address: string, options: AddOptions) =>
      withDatabase(context, async ({ db, settings }) => {
        const { name, expires: expiresAt, network: networks, certificate } = options
        const limits = { expiresAt, networks }
        if (certificate !== undefined) {
          await bindCertificate(db, address, name, readCertificate(certificate), limits)
          process.stdout.write(`added ${name} to ${address}\n`)
          return
        }
        const created = await createAppPassword(db, address, name, limits)
        const password = created.secret.reveal().toString('utf8')
        process.stdout.write(
          `added ${name} to ${address}\n${formatFields({ 'app password': password })}`,
        )
        if (created.isFirstWithoutScram && !settings.POPGRES_SASL_MECHANISMS.areChosen)
          process.stderr.write(NO_MORE_SCRAM)
      }),
    )
}

function formatExpiry({ expiresAt, isExpired }: Credential): string {
  if (expiresAt === null) return 'never'
  return `${formatMoment(expiresAt)}${isExpired ? ' (expired)' : ''}`
}

const DAY_MS = 86_400_000

function parseExpiry(text: string): Date {
  const days = /^([1-9]\d{0,4})d$/.exec(text)?.[1]
  if (days !== undefined) return new Date(Date.now() + Number(days) * DAY_MS)
  const moment = new Date(`${text}T00:00:00Z`)
  // A 31st of February would become a day of March.
  if (!/^\d{4}-\d\d-\d\d$/.test(text) || !isSameDay(moment, text))
    throw new InvalidArgumentError('Write a day like 2027-01-31, or a number of days like 90d.')
  return moment
}

const isSameDay = (moment: Date, text: string): boolean =>
  !Number.isNaN(moment.getTime()) && moment.toISOString().startsWith(text)

const collect = (network: string, before: string[] = []): string[] => [...before, network]

function readCertificate(file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (error) {
    const reason = describeReadError(error)
    throw reason === undefined ? error : refused(`${file}: ${reason}`, error)
  }
}
