/**
 * `popgres policy …`: LOGIN-DELAY, EXPIRE, and what a second login meets. The operations are in
 * admin/operations/policies.ts.
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
}

export function definePolicyCommands(program: Command, context: CommandContext): void {
  const policy = program
    .command('policy')
    .description('see and set what the clients of a domain or a user may do')

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
    .addOption(
      new Option('--second-login <what>', 'while the maildrop is open elsewhere').choices([
        'refuse',
        'wait',
        'take-over',
      ]),
    )
    .addHelpText(
      'after',
      `
A login that comes too soon is told [LOGIN-DELAY]. A second login is told [IN-USE] at once
(refuse), after 10 seconds (wait), or gets the maildrop of a session that was idle for a minute
(take-over): it waits up to 15 seconds until that session has ended, and is told [IN-USE] if it has
not, or was not idle. For a user, "inherit" means as the domain has it.

Examples:
  popgres policy set example.com --expire-days 30 --second-login take-over
  popgres policy set alice@example.com --expire-days never --login-delay inherit
`,
    )
    .action((subject: string, options: SetOptions) =>
      withDatabase(context, async ({ db }) => {
        const { loginDelay, expireDays, secondLogin } = options
        await changePolicy(db, subject, {
          ...(loginDelay !== undefined && { loginDelaySeconds: loginDelay }),
          ...(expireDays !== undefined && { expireDays }),
          ...(secondLogin !== undefined && { secondLogin }),
        })
        process.stdout.write(formatFields(toFields(await showPolicy(db, subject))))
      }),
    )
}

function toFields(policy: Policy): Record<string, string> {
  const { loginDelaySeconds, expireDays, secondLogin, inherited } = policy
  const origin = (name: (typeof inherited)[number]): string =>
    inherited.includes(name) ? ' (from the domain)' : ''
  const expiry = expireDays === null ? 'never' : formatCount(expireDays, 'day')
  return {
    'login delay': formatCount(loginDelaySeconds, 'second') + origin('loginDelaySeconds'),
    'expire after': expiry + origin('expireDays'),
    'second login': secondLogin,
  }
}

function parseDelay(text: string): number | 'inherit' {
  return text === 'inherit' ? text : parseWhole(text, 'seconds')
}

function parseDays(text: string): number | 'never' | 'inherit' {
  return text === 'inherit' || text === 'never' ? text : parseWhole(text, 'days')
}

function parseWhole(text: string, unit: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError(`It is a number of ${unit}.`)
  return Number(text)
}
