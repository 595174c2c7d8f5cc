/**
 * `popgres import dovecot`, `courier`, `postfixadmin` and `csv`: where each old server has its
 * accounts, and what is usual for its mail.
 */
import { readFileSync } from 'node:fs'
import { type Command, Option } from 'commander'
import { describeReadError } from '../../admin/read-error.ts'
import { refused } from '../../admin/refusal.ts'
import type { OldAliases } from '../../admin/transfer/move-aliases.ts'
import { Secret } from '../../base/secret.ts'
import { type OtherDatabase, openOtherDatabase } from '../../storage/postgres/other-database.ts'
import type { CommandContext } from '../command-context.ts'
import { UIDL_SOURCES, type UidlSource } from '../formats/maildrop.ts'
import { DEFAULT_UIDL_FORMAT, parseUidlFormat } from '../formats/uidl-format.ts'
import { readAliasFiles, readAliasTables } from './accounts/alias-table.ts'
import type { OldAccountItem } from './accounts/old-account.ts'
import { readPasswdFile } from './accounts/passwd-file.ts'
import { readUserFile, readUserRows } from './accounts/user-table.ts'
import { readUserdb } from './accounts/userdb.ts'
import {
  addMoveInOptions,
  MOVE_IN_HELP,
  type MoveInFlags,
  type OldServer,
  runMoveIn,
} from './move-in-command.ts'
import { toOldUsers } from './old-users.ts'

interface ServerFlags extends MoveInFlags {
  users?: string
  database?: string
  query?: string
  mail?: string
  root?: string
  uidl: UidlSource
  uidlFormat: string
  followLinks?: boolean
  emptyIfMissing?: boolean
  accountsOnly?: boolean
  aliases?: string
  domainAliases?: string
}

const USERS_OF_POSTFIXADMIN =
  'select username, password, maildir, quota, domain, active from mailbox order by username'

export function defineServerCommands(parent: Command, context: CommandContext): void {
  defineDovecot(parent, context)
  defineCourier(parent, context)
  definePostfixAdmin(parent, context)
  defineCsv(parent, context)
}

function defineDovecot(parent: Command, context: CommandContext): void {
  const command = parent
    .command('dovecot')
    .description('move the users of a Dovecot in, with their Maildirs')
    .option('--users <file>', 'its passwd-file, user:hash:uid:gid::home::fields')
    .addOption(databaseOption())
    .option('--query <sql>', 'with columns user, password (the hash), perhaps home, quota, mail')
  addMailOptions(command, 'dovecot', 'maildir:~/Maildir')
    .addHelpText('after', MOVE_IN_HELP)
    .addHelpText(
      'after',
      `
Examples:
  popgres import dovecot --users /etc/dovecot/users --mail '/var/vmail/%d/%n' --dry-run
  popgres import dovecot --database db.url --query 'select user, password, home from users'
`,
    )
    .action((flags: ServerFlags) =>
      runServer(context, flags, {
        ofFile: readPasswdFile,
        ofRows: (rows) => readUserRows(rows, { isPasswordHash: true }),
      }),
    )
}

function defineCourier(parent: Command, context: CommandContext): void {
  const command = parent
    .command('courier')
    .description('move the users of a Courier in, with their Maildirs')
    .requiredOption('--users <userdb>', 'its accounts: the text that makeuserdb reads')
  addMailOptions(command, 'courier', 'maildir:~/Maildir')
    .addHelpText('after', MOVE_IN_HELP)
    .addHelpText('after', '\nExample:\n  popgres import courier --users /etc/courier/userdb\n')
    .action((flags: ServerFlags) => runServer(context, flags, { ofFile: readUserdb }))
}

function definePostfixAdmin(parent: Command, context: CommandContext): void {
  const command = parent
    .command('postfixadmin')
    .description("move in who stands in PostfixAdmin's tables: users, aliases, domain aliases")
    .option('--users <file>', 'the table as CSV, or as "mysql --batch" prints it')
    .addOption(databaseOption())
    .addOption(
      new Option('--query <sql>', 'how to find users').default(USERS_OF_POSTFIXADMIN).hideHelp(),
    )
  addAliasOptions(addMailOptions(command, 'auto'))
    .addHelpText('after', MOVE_IN_HELP)
    .addHelpText(
      'after',
      `
Examples:
  for table in mailbox alias alias_domain; do
    mysql --batch postfix -e "select * from $table" > $table.tsv; done
  popgres import postfixadmin --users mailbox.tsv --mail '/var/vmail/%{maildir}' --add-domains \\
    --aliases alias.tsv --domain-aliases alias_domain.tsv
  popgres import postfixadmin --database db.url --mail '/var/vmail/%{maildir}'
`,
    )
    .action((flags: ServerFlags) =>
      runServer(context, flags, {
        ofFile: (file) => readUserFile(file, { isPasswordHash: true }),
        ofRows: (rows) => readUserRows(rows, { isPasswordHash: true }),
        ofTables: readAliasTables,
      }),
    )
}

function defineCsv(parent: Command, context: CommandContext): void {
  const command = parent
    .command('csv')
    .description('move in who stands in a CSV file, with Maildirs or mbox files')
    .requiredOption('--users <file.csv>', 'columns address, hash or password, quota, home, mail')
  addAliasOptions(addMailOptions(command, 'auto'))
    .addHelpText('after', MOVE_IN_HELP)
    .addHelpText(
      'after',
      `
Example:
  popgres import csv --users users.csv --mail 'mbox:/var/mail/%n' --uidl x-uidl
`,
    )
    .action((flags: ServerFlags) =>
      runServer(context, flags, {
        ofFile: (file) => readUserFile(file, { isPasswordHash: false }),
      }),
    )
}

export function databaseOption(): Option {
  return new Option('--database <file>', "a file with the URL of the old server's PostgreSQL")
}

function addMailOptions(command: Command, uidl: UidlSource, mail?: string): Command {
  command.option('--mail <location>', 'where a mailbox is: ~ is the home, %u %n %d the name', mail)
  addUidlOptions(command, uidl)
  return addMoveInOptions(
    command
      .option('--root <directory>', "where the old server's / is mounted or copied to")
      .option('--follow-links', 'a Maildir or mbox may be a link: only if no user can make one')
      .option('--empty-if-missing', 'who has neither mail nor a directory for it has none yet')
      .option('--accounts-only', 'no mail'),
  )
}

function addAliasOptions(command: Command): Command {
  return command
    .option('--aliases <file>', 'columns address, goto: users of this server, commas between')
    .option('--domain-aliases <file>', 'columns alias_domain, target_domain')
}

export function addUidlOptions(command: Command, uidl: UidlSource): Command {
  return command
    .addOption(
      new Option('--uidl <source>', 'whose unique-ids count')
        .choices([...UIDL_SOURCES])
        .default(uidl),
    )
    .option('--uidl-format <format>', "Dovecot's pop3_uidl_format", DEFAULT_UIDL_FORMAT)
}

interface AccountReaders {
  ofFile: (path: string) => AsyncIterable<OldAccountItem>
  ofRows?: (rows: ReturnType<OtherDatabase['rows']>) => AsyncIterable<OldAccountItem>
  ofTables?: (database: OtherDatabase) => Promise<OldAliases>
}

function runServer(context: CommandContext, flags: ServerFlags, readers: AccountReaders) {
  return runMoveIn(context, flags, async (): Promise<OldServer> => {
    const places = {
      accountsOnly: flags.accountsOnly === true,
      mail: flags.mail,
      root: flags.root,
      followsLinks: flags.followLinks === true,
      emptyIfMissing: flags.emptyIfMissing === true,
      uidl: flags.uidl,
      format: parseUidlFormat(flags.uidlFormat),
      domain: flags.domain,
    }
    const file = (['users', 'aliases', 'domainAliases'] as const).find((name) => flags[name])
    if (file !== undefined && flags.database !== undefined)
      throw refused('a file and --database are both given: keep one')
    if (flags.users !== undefined)
      return {
        users: await toOldUsers(readers.ofFile(flags.users), places),
        aliases: await readAliasFiles(flags),
      }
    if (flags.database === undefined || readers.ofRows === undefined)
      throw refused('where are the accounts? name them with --users or --database')
    if (flags.query === undefined) throw refused('--database needs the --query that finds users')
    const database = await openDatabaseOf(flags.database)
    try {
      const users = await toOldUsers(readers.ofRows(database.rows(flags.query)), places)
      const aliases = await (readers.ofTables?.(database) ?? readAliasFiles(flags))
      return { users, aliases }
    } finally {
      await database.close()
    }
  })
}

/** @param file holds the URL, so that its password is in no process list */
export function openDatabaseOf(file: string): Promise<OtherDatabase> {
  return openOtherDatabase(new Secret(readSecretFile(file)))
}

/** @throws {Failure} OPERATION_REFUSED if it cannot be read */
export function readSecretFile(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim()
  } catch (error) {
    const reason = describeReadError(error)
    throw reason === undefined ? error : refused(`cannot read ${file}: ${reason}`, error)
  }
}
