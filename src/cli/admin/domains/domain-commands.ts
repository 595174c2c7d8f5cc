/** `popgres domain …`: tenants. The operations are in admin/operations/domains.ts. */
import type { Command } from 'commander'
import { formatOctets } from '../../../admin/octets.ts'
import {
  addDomain,
  changeDomainQuota,
  type Domain,
  listDomains,
  removeDomain,
  resumeDomain,
  showDomain,
  suspendDomain,
} from '../../../admin/operations/domains.ts'
import { findMigration } from '../../../admin/transfer/moving.ts'
import { type CommandContext, withDatabase } from '../../command-context.ts'
import {
  type Column,
  formatCount,
  formatFields,
  formatJson,
  formatMoment,
  formatTable,
  formatYesNo,
} from '../../output.ts'
import { confirmLoss } from '../../prompt.ts'
import { defineDomainMigrateCommand, formatMoves } from '../../transfer/domain-migrate-command.ts'
import {
  formatQuota,
  formatTrash,
  type MessagesArgument,
  parseMessagesArgument,
  parseQuotaArgument,
  type QuotaArgument,
} from '../quota-argument.ts'
import { defineDomainAliasCommands } from './domain-alias-commands.ts'

const COLUMNS: readonly Column<Domain>[] = [
  { title: 'DOMAIN', cell: (domain) => domain.name },
  { title: 'USERS', cell: (domain) => domain.userCount, isRight: true },
  { title: 'MESSAGES', cell: (domain) => domain.messageCount, isRight: true },
  { title: 'SIZE', cell: (domain) => formatOctets(domain.octets), isRight: true },
  { title: 'QUOTA', cell: formatQuota, isRight: true },
  { title: 'SUSPENDED', cell: (domain) => formatYesNo(domain.isSuspended) },
]

export function defineDomainCommands(program: Command, context: CommandContext): void {
  const domain = program.command('domain').description('manage domains (tenants)')
  defineReading(domain, context)
  defineQuotaCommand(domain, context)
  defineDomainAliasCommands(domain, context)
  defineDomainMigrateCommand(domain, context)

  domain
    .command('add')
    .description('add a domain')
    .argument('<name>', 'for example example.com')
    .addHelpText('after', '\nExample:\n  popgres domain add example.com\n')
    .action((name: string) =>
      withDatabase(context, async ({ db }) => {
        process.stdout.write(`added ${await addDomain(db, name)}\n`)
      }),
    )

  domain
    .command('suspend')
    .description('stop all logins to a domain and end its sessions; mail is still accepted')
    .argument('<name>')
    .action((name: string) =>
      withDatabase(context, async ({ db }) => {
        await suspendDomain(db, name)
        process.stdout.write(`suspended ${name}; "popgres domain resume ${name}" undoes it\n`)
      }),
    )

  domain
    .command('resume')
    .description('allow logins to a suspended domain again')
    .argument('<name>')
    .action((name: string) =>
      withDatabase(context, async ({ db }) => {
        await resumeDomain(db, name)
        process.stdout.write(`resumed ${name}\n`)
      }),
    )

  domain
    .command('remove')
    .description('remove a domain with its users and messages, for good')
    .argument('<name>')
    .option('--yes', 'do not ask')
    .addHelpText(
      'after',
      `
Says first what it will remove, and wants the name typed on a terminal. There is no way back.

Examples:
  popgres domain remove example.com
  popgres domain remove example.com --yes
`,
    )
    .action((name: string, options: { yes?: boolean }) =>
      withDatabase(context, async ({ db }) => {
        const found = await showDomain(db, name)
        const loss = `This removes ${found.name} with ${formatLoss(found)}.`
        await confirmLoss(found.name, loss, options.yes === true)
        await removeDomain(db, found.name)
        process.stdout.write(`removed ${found.name}: ${formatLoss(found)}\n`)
      }),
    )
}

function defineReading(domain: Command, context: CommandContext): void {
  domain
    .command('list')
    .description('list all domains, with what each holds')
    .option('--json', 'print JSON')
    .action((options: { json?: boolean }) =>
      withDatabase(context, async ({ db }) => {
        const domains = await listDomains(db)
        process.stdout.write(options.json ? formatJson(domains) : formatTable(COLUMNS, domains))
      }),
    )

  domain
    .command('show')
    .description('show one domain')
    .argument('<name>')
    .option('--json', 'print JSON')
    .action((name: string, options: { json?: boolean }) =>
      withDatabase(context, async ({ db }) => {
        const found = await showDomain(db, name)
        const migration = await findMigration(db, name)
        const fields = {
          domain: found.name,
          suspended: formatYesNo(found.isSuspended),
          users: found.userCount,
          messages: found.messageCount,
          size: `${formatOctets(found.octets)} (${found.octets} octets)`,
          'in trash': formatTrash(found),
          quota: formatQuota(found),
          ...(found.aliasOf !== null && { 'stands for': found.aliasOf }),
          'trash kept': formatCount(found.trashDays, 'day'),
          added: formatMoment(found.createdAt),
          ...(migration && { migrates: `from ${migration.from}: ${formatMoves(migration)}` }),
        }
        const shown = migration ? { ...found, migration } : found
        process.stdout.write(options.json ? formatJson(shown) : formatFields(fields))
      }),
    )
}

function defineQuotaCommand(domain: Command, context: CommandContext): void {
  domain
    .command('quota')
    .description('set or lift the limit of all maildrops of a domain together')
    .argument('<name>')
    .argument('<size>', '500M, 1.5G, octets, or none', parseQuotaArgument)
    .option(
      '--messages <count>',
      'most messages, or none; left out: as it is',
      parseMessagesArgument,
    )
    .addHelpText(
      'after',
      `
Over its quota a domain takes no new mail; what its users hold stays. What is in the trash does not
count. What the sender is told: see --over-quota of "popgres policy set --help". To be set when all
nodes are of this version; deliveries of all domains wait for a moment while it is counted.

Examples:
  popgres domain quota example.com 100G
  popgres domain quota example.com none --messages 1000000
`,
    )
    .action((name: string, size: QuotaArgument, options: { messages?: MessagesArgument }) =>
      withDatabase(context, async ({ db }) => {
        await changeDomainQuota(db, name, { ...size, ...options.messages })
        const shown = formatQuota(await showDomain(db, name))
        process.stdout.write(`quota of ${name}: ${shown === 'none' ? 'no limit' : shown}\n`)
      }),
    )
}

function formatLoss(domain: Domain): string {
  const users = formatCount(domain.userCount, 'user')
  const messages = formatCount(domain.messageCount, 'message')
  return `${users} and ${messages} (${formatCount(domain.octets, 'octet')})`
}
