/**
 * `popgres policy …`: LOGIN-DELAY, EXPIRE, what a second login meets, and how a domain takes mail.
 * The operations are in admin/operations/policies.ts.
 */
import { type Command, InvalidArgumentError, Option } from 'commander'
import {
  changePolicy,
  type Due,
  foreseePolicy,
  type Policy,
  type PolicyChange,
  type PolicyEffect,
  showPolicy,
} from '../../admin/operations/policies.ts'
import { type CommandContext, withDatabase } from '../command-context.ts'
import { formatCount, formatFields, formatJson } from '../output.ts'
import { confirmLoss } from '../prompt.ts'

interface SetOptions {
  loginDelay?: number | 'inherit'
  expireDays?: number | 'never' | 'inherit'
  secondLogin?: NonNullable<PolicyChange['secondLogin']>
  trashDays?: number
  aliases?: 'on' | 'off'
  catchAll?: 'on' | 'off'
  separator?: string
  overQuota?: NonNullable<PolicyChange['overQuota']>
  yes?: boolean
}

export function definePolicyCommands(program: Command, context: CommandContext): void {
  const policy = program
    .command('policy')
    .description('see and set what clients may do, and how a domain takes mail')

  policy
    .command('show')
    .description('show the policy of a domain, or what applies to a user')
    .argument('<domain-or-address>')
    .option('--json', 'print JSON')
    .action((subject: string, options: { json?: boolean }) =>
      withDatabase(context, async ({ db }) => {
        const found = await showPolicy(db, subject)
        process.stdout.write(
          options.json ? formatJson(found) : formatFields(toFields(subject, found)),
        )
      }),
    )

  policy
    .command('set')
    .description('set the policy of a domain, or where a user differs from it')
    .argument('<domain-or-address>')
    .option('--login-delay <seconds>', 'least time between two logins of a user', parseDelay)
    .option('--expire-days <days>', 'when messages go to the trash, or never', parseDays)
    .option('--trash-days <days>', 'how long deleted messages can be restored', parseTrashDays)
    .addOption(
      new Option('--second-login <what>', 'while the maildrop is open elsewhere').choices([
        'refuse',
        'wait',
        'take-over',
      ]),
    )
    .addOption(new Option('--aliases <on-or-off>', 'whether aliases count').choices(['on', 'off']))
    .addOption(
      new Option('--catch-all <on-or-off>', 'whether the catch-all counts').choices(['on', 'off']),
    )
    .option('--separator <sign>', 'alice+tag is then alice: one of + - = _ # ~ %, or none')
    .addOption(
      new Option('--over-quota <what>', 'mail that there is no room for').choices([
        'defer',
        'refuse',
      ]),
    )
    .option('--yes', 'do not ask before messages expire or leave the trash')
    .addHelpText(
      'after',
      `
A login that comes too soon is told [LOGIN-DELAY]. A second login is told [IN-USE] at once
(refuse), after 10 seconds (wait), or gets the maildrop of a session that was idle for a minute
(take-over): it waits up to 15 seconds until that session has ended, and is told [IN-USE] if it has
not, or was not idle. For a user, "inherit" means as the domain has it.

Messages that are older than --expire-days by their day of receipt go to the trash within 90
minutes, and what has been in the trash for --trash-days is destroyed within 15, while a node runs
and nobody has the maildrop open. What that is about now is told first, and must be agreed to.

Aliases, catch-all and separator are switched for a whole domain; see also "popgres alias --help".
Mail that there is no room for is tried again by the sender's server (defer: 452) or comes back to
the sender at once (refuse: 552).

Examples:
  popgres policy set example.com --expire-days 30 --second-login take-over
  popgres policy set alice@example.com --expire-days never --login-delay inherit
  popgres policy set example.com --separator + --over-quota refuse
`,
    )
    .action((subject: string, options: SetOptions) =>
      withDatabase(context, async ({ db }) => {
        const change = toChange(options)
        const effect = await foreseePolicy(db, subject, change)
        const said = formatEffect(subject, effect)
        const isDestroying = (effect.expiry?.due ?? 0) + (effect.trash?.due ?? 0) > 0
        if (isDestroying) await confirmLoss(subject, said.join(' '), options.yes === true)
        await changePolicy(db, subject, change)
        process.stdout.write(formatFields(toFields(subject, await showPolicy(db, subject))))
        process.stderr.write(said.map((line) => `${line}\n`).join(''))
      }),
    )
}

function toChange(options: SetOptions): PolicyChange {
  const { loginDelay, expireDays, secondLogin, aliases, catchAll } = options
  const { trashDays, separator, overQuota } = options
  return {
    ...(loginDelay !== undefined && { loginDelaySeconds: loginDelay }),
    ...(expireDays !== undefined && { expireDays }),
    ...(secondLogin !== undefined && { secondLogin }),
    ...(trashDays !== undefined && { trashDays }),
    ...(aliases !== undefined && { areAliasesAllowed: aliases === 'on' }),
    ...(catchAll !== undefined && { isCatchAllAllowed: catchAll === 'on' }),
    ...(separator !== undefined && {
      separator: separator === 'none' ? undefined : separator,
    }),
    ...(overQuota !== undefined && { overQuota }),
  }
}

/** Whole sentences; none about what is not set, and none where there is no mail. */
function formatEffect(subject: string, { expiry, trash, trashDays }: PolicyEffect): string[] {
  const said: string[] = []
  if (expiry !== undefined && expiry.total > 0)
    said.push(
      `${formatDue(expiry)} of ${subject} ${isAre(expiry)} older than ` +
        formatCount(expiry.days, 'day') +
        (expiry.due === 0
          ? '.'
          : ': moved to the trash within 90 minutes, and out of it for good ' +
            `${formatCount(trashDays, 'day')} later.`),
    )
  if (trash !== undefined && trash.total > 0)
    said.push(
      `${formatDue(trash)} in the trash of ${subject} ${isAre(trash)} there for ` +
        `${formatCount(trash.days, 'day')} or longer` +
        (trash.due === 0 ? '.' : ': gone for good within 15 minutes.'),
    )
  return said
}

/** `65 of 67 messages`. */
const formatDue = ({ due, isMore, total }: Due): string =>
  `${due === 0 ? 'None' : `${due}${isMore ? ' or more' : ''}`} of ${formatCount(total, 'message')}`

const isAre = ({ due }: Due): string => (due <= 1 ? 'is' : 'are')

function toFields(subject: string, policy: Policy): Record<string, string> {
  const { loginDelaySeconds, expireDays, inherited } = policy
  const from = (isDomains: boolean): string => (isDomains ? ' (from the domain)' : '')
  const always = from(subject.includes('@'))
  const expiry = expireDays === null ? 'never' : formatCount(expireDays, 'day')
  return {
    'login delay':
      formatCount(loginDelaySeconds, 'second') + from(inherited.includes('loginDelaySeconds')),
    'expire after': expiry + from(inherited.includes('expireDays')),
    'second login': policy.secondLogin + always,
    'trash kept': formatCount(policy.trashDays, 'day') + always,
    aliases: formatSwitch(policy.areAliasesAllowed) + always,
    'catch-all': formatSwitch(policy.isCatchAllAllowed) + always,
    separator: (policy.separator ?? 'none') + always,
    'over quota': policy.overQuota + always,
  }
}

const formatSwitch = (isOn: boolean): string => (isOn ? 'on' : 'off')

function parseDelay(text: string): number | 'inherit' {
  return text === 'inherit' ? text : parseWhole(text, 'seconds')
}

function parseDays(text: string): number | 'never' | 'inherit' {
  return text === 'inherit' || text === 'never' ? text : parseWhole(text, 'days')
}

const parseTrashDays = (text: string): number => parseWhole(text, 'days')

function parseWhole(text: string, unit: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError(`It is a number of ${unit}.`)
  return Number(text)
}
