/**
 * `popgres policy …`: LOGIN-DELAY, EXPIRE, what a second login meets, and how a domain takes mail.
 * The operations are in admin/operations/policies.ts.
 */
import { type Command, InvalidArgumentError, Option } from 'commander'
import {
  changePolicy,
  type Policy,
  type PolicyChange,
  showPolicy,
} from '../../admin/operations/policies.ts'
import { type CommandContext, withDatabase } from '../command-context.ts'
import { formatCount, formatFields, formatJson } from '../output.ts'

interface SetOptions {
  loginDelay?: number | 'inherit'
  expireDays?: number | 'never' | 'inherit'
  secondLogin?: NonNullable<PolicyChange['secondLogin']>
  trashDays?: number
  aliases?: 'on' | 'off'
  catchAll?: 'on' | 'off'
  separator?: string
  overQuota?: NonNullable<PolicyChange['overQuota']>
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
        process.stdout.write(options.json ? formatJson(found) : formatFields(toFields(found)))
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
    .addHelpText(
      'after',
      `
A login that comes too soon is told [LOGIN-DELAY]. A second login is told [IN-USE] at once
(refuse), after 10 seconds (wait), or gets the maildrop of a session that was idle for a minute
(take-over): it waits up to 15 seconds until that session has ended, and is told [IN-USE] if it has
not, or was not idle. For a user, "inherit" means as the domain has it.

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
        const { loginDelay, expireDays, secondLogin, aliases, catchAll } = options
        const { trashDays, separator, overQuota } = options
        await changePolicy(db, subject, {
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
        })
        process.stdout.write(formatFields(toFields(await showPolicy(db, subject))))
      }),
    )
}

function toFields(policy: Policy): Record<string, string> {
  const { loginDelaySeconds, expireDays, secondLogin, trashDays, inherited } = policy
  const origin = (name: (typeof inherited)[number]): string =>
    inherited.includes(name) ? ' (from the domain)' : ''
  const expiry = expireDays === null ? 'never' : formatCount(expireDays, 'day')
  return {
    'login delay': formatCount(loginDelaySeconds, 'second') + origin('loginDelaySeconds'),
    'expire after': expiry + origin('expireDays'),
    'second login': secondLogin,
    'trash kept': formatCount(trashDays, 'day'),
    aliases: formatSwitch(policy.areAliasesAllowed),
    'catch-all': formatSwitch(policy.isCatchAllAllowed),
    separator: policy.separator ?? 'none',
    'over quota': policy.overQuota,
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
