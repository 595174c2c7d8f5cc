/**
 * `popgres user …`: who can receive and log in. The operations are in admin/operations/users.ts.
 * What sets a password is in user-password-commands.ts.
 */
import { Argument, type Command } from 'commander'
import { formatOctets } from '../../admin/octets.ts'
import { listOldHashes, type OldHash } from '../../admin/operations/old-hashes.ts'
import {
  allowMainPassword,
  changeQuota,
  listUsers,
  removeUser,
  resumeUser,
  showUser,
  suspendUser,
  type User,
} from '../../admin/operations/users.ts'
import { type CommandContext, withDatabase } from '../command-context.ts'
import {
  type Column,
  formatCount,
  formatFields,
  formatJson,
  formatMoment,
  formatTable,
  formatYesNo,
} from '../output.ts'
import { confirmLoss } from '../prompt.ts'
import {
  formatQuota,
  formatTrash,
  type MessagesArgument,
  parseMessagesArgument,
  parseQuotaArgument,
  type QuotaArgument,
} from './quota-argument.ts'
import { defineUserImportCommand } from './user-import-command.ts'
import { definePasswordCommands } from './user-password-commands.ts'

const formatMainPassword = (user: User): string =>
  user.isMainPasswordAllowed ? 'allowed' : 'not over POP3'

const COLUMNS: readonly Column<User>[] = [
  { title: 'ADDRESS', cell: (user) => user.address },
  { title: 'MESSAGES', cell: (user) => user.messageCount, isRight: true },
  { title: 'SIZE', cell: (user) => formatOctets(user.octets), isRight: true },
  { title: 'QUOTA', cell: formatQuota, isRight: true },
  { title: 'APOP', cell: (user) => formatYesNo(user.hasApop) },
  { title: 'SUSPENDED', cell: (user) => formatYesNo(user.isSuspended) },
  { title: 'ONLINE', cell: (user) => formatYesNo(user.hasSession) },
  { title: 'PASSWORD', cell: (user) => formatYesNo(user.passwordScheme !== null) },
]

const OLD_HASHES: readonly Column<OldHash>[] = [
  { title: 'ADDRESS', cell: (row) => row.address },
  { title: 'SCHEME', cell: (row) => row.scheme },
]

interface ListOptions {
  oldHashes?: boolean
  json?: boolean
}

export function defineUserCommands(program: Command, context: CommandContext): void {
  const user = program.command('user').description('manage users')
  definePasswordCommands(user, context)
  defineReading(user, context)
  defineChanging(user, context)
  defineRemoving(user, context)
  defineUserImportCommand(user, context)
}

function defineReading(user: Command, context: CommandContext): void {
  user
    .command('list')
    .description('list the users of a domain')
    .argument('[domain]', 'may be left out with --old-hashes: all domains')
    .option('--old-hashes', "list who has a password hash that is not today's argon2id, and which")
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `
A hash that a migration brought becomes argon2id at the first login that succeeds.

Examples:
  popgres user list example.com --json
  popgres user list --old-hashes
`,
    )
    .action(function (this: Command, domainName: string | undefined, options: ListOptions) {
      if (domainName === undefined && options.oldHashes !== true)
        this.error("error: missing required argument 'domain'")
      return withDatabase(context, async ({ db }) => {
        if (domainName === undefined || options.oldHashes === true) {
          const found = await listOldHashes(db, domainName)
          process.stdout.write(options.json ? formatJson(found) : formatTable(OLD_HASHES, found))
          return
        }
        const users = await listUsers(db, domainName)
        process.stdout.write(options.json ? formatJson(users) : formatTable(COLUMNS, users))
      })
    })

  user
    .command('show')
    .description('show one user')
    .argument('<address>')
    .option('--json', 'print JSON')
    .action((address: string, options: { json?: boolean }) =>
      withDatabase(context, async ({ db }) => {
        const found = await showUser(db, address)
        const fields = {
          address: found.address,
          password: found.passwordScheme ?? 'none (cannot log in by password)',
          'main password': formatMainPassword(found),
          'other credentials': found.credentialCount,
          apop: formatYesNo(found.hasApop),
          scram: formatYesNo(found.hasScram),
          suspended:
            formatYesNo(found.isSuspended) + (found.isDomainSuspended ? ', domain is' : ''),
          quota: formatQuota(found),
          messages: found.messageCount,
          size: `${formatOctets(found.octets)} (${found.octets} octets)`,
          'in trash': formatTrash(found),
          online: formatYesNo(found.hasSession),
          added: formatMoment(found.createdAt),
        }
        process.stdout.write(options.json ? formatJson(found) : formatFields(fields))
      }),
    )
}

function defineChanging(user: Command, context: CommandContext): void {
  user
    .command('suspend')
    .description('stop the logins of a user and end its session; mail is still accepted')
    .argument('<address>')
    .action((address: string) =>
      withDatabase(context, async ({ db }) => {
        await suspendUser(db, address)
        process.stdout.write(`suspended ${address}; "popgres user resume ${address}" undoes it\n`)
      }),
    )

  user
    .command('resume')
    .description('allow the logins of a suspended user again')
    .argument('<address>')
    .action((address: string) =>
      withDatabase(context, async ({ db }) => {
        await resumeUser(db, address)
        process.stdout.write(`resumed ${address}\n`)
      }),
    )

  user
    .command('main-password')
    .description('say whether the password of a user works over POP3; ends its session')
    .argument('<address>')
    .addArgument(new Argument('<on-or-off>').choices(['on', 'off']))
    .addHelpText(
      'after',
      `
Off: only app passwords, certificates (see "popgres credential --help"), APOP and OAuth log in.

Examples:
  popgres user main-password alice@example.com off
  popgres user main-password alice@example.com on
`,
    )
    .action((address: string, choice: 'on' | 'off') =>
      withDatabase(context, async ({ db }) => {
        await allowMainPassword(db, address, choice === 'on')
        process.stdout.write(`main password of ${address}: ${choice}\n`)
      }),
    )

  user
    .command('quota')
    .description('set or lift the limit of a maildrop')
    .argument('<address>')
    .argument('<size>', '500M, 1.5G, octets, or none', parseQuotaArgument)
    .option(
      '--messages <count>',
      'most messages, or none; left out: as it is',
      parseMessagesArgument,
    )
    .addHelpText(
      'after',
      `
Over its quota a maildrop takes no new mail; what is in it stays. What is in the trash does not
count. A whole domain has one too: see "popgres domain quota --help".

Examples:
  popgres user quota alice@example.com 2G
  popgres user quota alice@example.com 2G --messages 10000
  popgres user quota alice@example.com none
`,
    )
    .action((address: string, size: QuotaArgument, options: { messages?: MessagesArgument }) =>
      withDatabase(context, async ({ db }) => {
        await changeQuota(db, address, { ...size, ...options.messages })
        const shown = formatQuota(await showUser(db, address))
        process.stdout.write(`quota of ${address}: ${shown === 'none' ? 'no limit' : shown}\n`)
      }),
    )
}

function defineRemoving(user: Command, context: CommandContext): void {
  user
    .command('remove')
    .description('remove a user with all messages, for good')
    .argument('<address>')
    .option('--yes', 'do not ask')
    .addHelpText(
      'after',
      `
Says first what it will remove, and wants the address typed on a terminal. There is no way back.

Examples:
  popgres user remove alice@example.com
  popgres user remove alice@example.com --yes
`,
    )
    .action((address: string, options: { yes?: boolean }) =>
      withDatabase(context, async ({ db }) => {
        const found = await showUser(db, address)
        const messages = formatCount(found.messageCount, 'message')
        const size = formatCount(found.octets, 'octet')
        const loss = `This removes ${found.address} with ${messages} (${size}).`
        await confirmLoss(found.address, loss, options.yes === true)
        await removeUser(db, found.address)
        process.stdout.write(`removed ${found.address}: ${messages} (${size})\n`)
      }),
    )
}
