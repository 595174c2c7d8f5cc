/**
 * `popgres domain migrate`: users move in from an old POP3 server, each at the first login. The
 * operations are in admin/transfer/moving.ts.
 */
import { type Command, InvalidArgumentError, Option } from 'commander'
import {
  beginMigration,
  endMigration,
  expectUsers,
  listWaiting,
  type Migration,
  type OldServerTraits,
  showMigration,
} from '../../admin/transfer/moving.ts'
import { type CommandContext, withDatabase } from '../command-context.ts'
import { formatCount, formatFields, formatJson, formatMoment, formatYesNo } from '../output.ts'
import {
  addOldServerOptions,
  type OldServerFlags,
  readTextFile,
  toOldServerRequest,
} from './pop3-import-command.ts'

interface Options extends OldServerFlags {
  from?: string
  userFormat: 'full' | 'local'
  users: boolean
  connections: number
  expect?: string
  waiting?: boolean
  done?: boolean
  yes?: boolean
  json?: boolean
}

const ON_MIGRATING = `
While a domain migrates, users who have no password here are shown to its old server when they log
in with their password. If that lets them in, they are made here if missing, their mail is copied
with its unique-ids and dates, the password is kept as argon2id, and from then on they are served
from here. Nothing is deleted on the old server. Without options: how far it has come.
docs/moving-in-live.md says in which order to do what.

Examples:
  popgres domain migrate example.com --from pop3s://old.example.com
  popgres domain migrate example.com --from pop3://10.0.0.5 --stls --ca-file old-ca.pem \\
    --user-format local
  popgres domain migrate example.com
  popgres domain migrate example.com --expect addresses.txt
  popgres domain migrate example.com --waiting
  popgres domain migrate example.com --done
`

export function defineDomainMigrateCommand(domain: Command, context: CommandContext): void {
  const command = domain
    .command('migrate')
    .description('let users move in from an old POP3 server, each at the first login')
    .argument('<name>')
    .option('--from <url>', 'pop3s://host[:port] or pop3://host[:port]: begin, or change')
  addOldServerOptions(command)
    .addOption(
      new Option('--user-format <format>', 'what it calls a user: the full address, or without @…')
        .choices(['full', 'local'])
        .default('full'),
    )
    .option('--no-users', 'only users who are here already move; nobody is made')
    .option('--connections <count>', 'to it, of all nodes together', parseCount, 20)
    .addOption(
      new Option(
        '--expect <file>',
        'addresses, one a line: make them, so that mail for them is taken',
      ).conflicts('from'),
    )
    .addOption(new Option('--waiting', 'list who has not moved yet').conflicts('from'))
    .addOption(new Option('--done', 'end it').conflicts(['from', 'waiting', 'expect']))
    .option('--yes', 'with --done: although some have not moved')
    .option('--json', 'print JSON')
    .addHelpText('after', ON_MIGRATING)
    .action((name: string, options: Options) => run(context, name, options))
}

function run(context: CommandContext, name: string, options: Options): Promise<void> {
  const { from, json } = options
  const print = (value: unknown, text: string): void => {
    process.stdout.write(json ? formatJson(value) : text)
  }
  return withDatabase(context, async ({ db }) => {
    if (options.done) {
      const ended = await endMigration(db, name, options.yes === true)
      print(ended, `${ended.domain} migrates no more: ${formatMoves(ended)}\n`)
    } else if (options.waiting) {
      const waiting = await listWaiting(db, name)
      print(waiting, waiting.map((address) => `${address}\n`).join(''))
    } else if (options.expect !== undefined) {
      const made = await expectUsers(db, name, (await readTextFile(options.expect)).split('\n'))
      print({ made }, `made ${formatCount(made, 'user')} without a password\n`)
    } else if (from === undefined) {
      const found = await showMigration(db, name)
      print(found, formatMigration(found))
    } else {
      const { userFormat, users: makesUsers, connections: connectionsMax } = options
      const server = await toOldServerRequest(from, options)
      const request = { ...server, userFormat, makesUsers, connectionsMax }
      const begun = await beginMigration(db, name, request)
      print(begun, formatMigration(begun))
      for (const line of warningsOf(begun.traits)) process.stderr.write(`${line}\n`)
    }
  })
}

export function formatMoves({ moved, waiting }: Migration): string {
  return `${formatCount(moved, 'user')} moved, ${waiting} known here who have not yet`
}

function formatMigration(migration: Migration): string {
  return formatFields({
    domain: migration.domain,
    'migrates from': migration.from,
    security: migration.security,
    'user names': migration.userFormat,
    'makes users': formatYesNo(migration.makesUsers),
    connections: `${migration.connectionsMax} at most, of all nodes`,
    since: formatMoment(migration.since),
    users: formatMoves(migration),
  })
}

function warningsOf({ hasUniqueIds, isPipelining }: OldServerTraits): string[] {
  const warnings: string[] = []
  if (hasUniqueIds === false)
    warnings.push('note: that server has no UIDL: clients will fetch what they keep there again')
  if (!isPipelining)
    warnings.push('note: that server has no PIPELINING: each message costs a round trip')
  return warnings
}

function parseCount(text: string): number {
  const count = Number(text)
  if (Number.isInteger(count) && count >= 1 && count <= 1000) return count
  throw new InvalidArgumentError('1 to 1000')
}
