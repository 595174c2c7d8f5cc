/**
 * `popgres import imap` and `dbmail`: mail that is asked for instead of read from files. An IMAP
 * server tells nobody's password, so accounts come from a table; each user logs in with the
 * password that stands there, or one master does for all.
 */
import { type Command, Option } from 'commander'
import { refused } from '../../admin/refusal.ts'
import type { OldMaildrop, OldUser } from '../../admin/transfer/move-in.ts'
import type { CommandContext } from '../command-context.ts'
import { DEFAULT_UIDL_FORMAT, parseUidlFormat } from '../formats/uidl-format.ts'
import type { OldAccountItem } from './accounts/old-account.ts'
import { readUserFile } from './accounts/user-table.ts'
import { readDbmail } from './dbmail-source.ts'
import type { ImapServer, ImapUidl } from './imap-source.ts'
import {
  addMoveInOptions,
  MOVE_IN_HELP,
  type MoveInFlags,
  type OldServer,
  runMoveIn,
} from './move-in-command.ts'
import { addressOf } from './old-users.ts'
import { databaseOption, openDatabaseOf, readSecretFile } from './server-commands.ts'

interface ImapFlags extends MoveInFlags {
  server: string
  security: ImapServer['security']
  users: string
  loginAs: string
  passwordFile?: string
  uidl: ImapUidl
  uidlFormat: string
}

export function defineRemoteCommands(parent: Command, context: CommandContext): void {
  defineImap(parent, context)
  defineDbmail(parent, context)
}

function defineImap(parent: Command, context: CommandContext): void {
  const command = parent
    .command('imap')
    .description('move users in with the INBOX that a remote IMAP server has')
    .requiredOption('--server <host:port>', 'port 993 if left out')
    .addOption(
      new Option('--security <how>', 'none sends passwords in the clear')
        .choices(['tls', 'starttls', 'none'])
        .default('tls'),
    )
    .requiredOption('--users <file.csv>', 'columns address, password or hash, quota')
    .option('--login-as <name>', 'the name to log in with there: %u %n %d', '%u')
    .option('--password-file <file>', 'one password for all, of a master user')
    .addOption(
      new Option('--uidl <source>', 'what POP3 there made its unique-ids of')
        .choices(['uid', 'x-uidl', 'none'])
        .default('uid'),
    )
    .option('--uidl-format <format>', "as Dovecot's pop3_uidl_format: %u %v", DEFAULT_UIDL_FORMAT)
  addMoveInOptions(command)
    .addHelpText('after', MOVE_IN_HELP)
    .addHelpText(
      'after',
      `
Examples:
  popgres import imap --server imap.old.example --users users.csv --dry-run
  popgres import imap --server imap.old.example --users users.csv --login-as '%u*master' \\
    --password-file master
`,
    )
    .action((flags: ImapFlags) => runMoveIn(context, flags, () => openImap(flags)))
}

async function openImap(flags: ImapFlags): Promise<OldServer> {
  const [, host = '', port = '993'] = /^([^:]+|\[[^\]]+\])(?::(\d+))?$/.exec(flags.server) ?? []
  if (host === '') throw refused(`${flags.server} is no server: write host:port`)
  const server: ImapServer = {
    host: host.replace(/^\[|\]$/g, ''),
    port: Number(port),
    security: flags.security,
    uidl: flags.uidl,
    format: parseUidlFormat(flags.uidlFormat),
  }
  const master = flags.passwordFile === undefined ? undefined : readSecretFile(flags.passwordFile)
  // Loaded here: no other command needs the client.
  const { openInbox } = await import('./imap-source.ts')
  const users: OldUser[] = []
  for await (const account of readUserFile(flags.users, { isPasswordHash: false }))
    users.push(
      toImapUser(account, flags, master, (user, password) => openInbox(server, user, password)),
    )
  return { users }
}

function toImapUser(
  account: OldAccountItem,
  { domain, loginAs }: ImapFlags,
  master: string | undefined,
  open: (user: string, password: string) => OldMaildrop,
): OldUser {
  if ('refusal' in account) return account
  const { source, name, hash, password, quota, isSuspended } = account
  const address = addressOf(name, domain)
  const secret = master ?? password
  if (secret === '')
    return { source, address, refusal: 'has no password to log in with: see --password-file' }
  const at = address.lastIndexOf('@')
  const parts: Record<string, string> = {
    '%u': name,
    '%n': address.slice(0, at),
    '%d': address.slice(at + 1),
  }
  const login = loginAs.replace(/%[und]/g, (variable) => parts[variable] ?? variable)
  const maildrop = open(login, secret)
  // Both may stand there: one to log in with, the other to be kept.
  const kept = hash === '' ? { password } : { hash }
  return { source, address, ...kept, quota, isSuspended, maildrop }
}

interface DbmailFlags extends MoveInFlags {
  database: string
  accountsOnly?: boolean
}

function defineDbmail(parent: Command, context: CommandContext): void {
  const command = parent
    .command('dbmail')
    .description("move the users of a DBMail in, out of its PostgreSQL's tables")
    .addOption(databaseOption().makeOptionMandatory())
    .option('--accounts-only', 'no mail')
  addMoveInOptions(command)
    .addHelpText('after', MOVE_IN_HELP)
    .addHelpText('after', '\nExample:\n  popgres import dbmail --database db.url --dry-run\n')
    .action((flags: DbmailFlags) =>
      runMoveIn(context, flags, async () => {
        const database = await openDatabaseOf(flags.database)
        const options = { domain: flags.domain, hasMail: flags.accountsOnly !== true }
        const users = await readDbmail(database, options).catch(async (error) => {
          await database.close()
          throw error
        })
        return { users, close: () => database.close() }
      }),
    )
}
