/**
 * `popgres user add` and `popgres user passwd`: the two that set a password. It comes from standard
 * input, from the terminal without echo, or is made up and printed once; never from an argument.
 */
import { type Command, Option } from 'commander'
import { parseAddress } from '../../admin/address.ts'
import { addUser, changeCredentials } from '../../admin/operations/users.ts'
import { generatePassword, isShort, SHORT_BELOW } from '../../admin/password.ts'
import type { Secret } from '../../base/secret.ts'
import { existsApopUser } from '../../storage/accounts.ts'
import { type CommandContext, withDatabase } from '../command-context.ts'
import { formatFields } from '../output.ts'
import { promptPassword, readSecretLines } from '../prompt.ts'
import { parseQuotaArgument, type QuotaArgument } from './quota-argument.ts'

interface PasswordOptions {
  passwordStdin?: boolean
  generate?: boolean
  keepPassword?: boolean
  apop?: boolean
  quota?: QuotaArgument
}

/** What was read or made up; what was made up must be printed, once. */
interface Credentials {
  password: Secret | undefined
  apopSecret: Secret | undefined
  generated: Record<string, string>
}

const ON_PASSWORDS = `
The password is asked for on a terminal, read from the first line of standard input with
--password-stdin, or made up and printed once with --generate.

APOP needs its secret in the clear, so it has a secret of its own, which is stored encrypted under
POPGRES_SECRET_KEY. With --apop it is the second line of standard input with --password-stdin, or
else it is made up and printed once.

Once one user has an APOP secret, the greeting offers APOP to all, and some clients (curl, MailKit)
then try nothing else: they cannot log in users who have only a password.
`

/** CLIENT: MailKit, and curl where no SASL is offered, take APOP wherever a greeting offers it. */
const ON_APOP_OF_OTHERS = `note: others log in by APOP, so the greeting offers it to everybody, and
some clients (curl) then try nothing else. This user needs an APOP secret for those:
popgres user passwd --help
`

const ON_SHORT = `note: the password has fewer than ${SHORT_BELOW} characters and is soon guessed\n`

export function definePasswordCommands(user: Command, context: CommandContext): void {
  user
    .command('add')
    .description('add a user')
    .argument('<address>', 'for example alice@example.com; the domain must be there')
    .addOption(passwordStdin())
    .addOption(generate())
    .option('--apop', 'let the user log in by APOP, with a secret of its own')
    .option(
      '--quota <size>',
      'limit of the maildrop: 500M, 1.5G, octets, or none',
      parseQuotaArgument,
    )
    .addHelpText(
      'after',
      `${ON_PASSWORDS}
Examples:
  popgres user add alice@example.com
  popgres user add alice@example.com --generate --quota 1G
  popgres user add alice@example.com --password-stdin < password-file
  popgres user add bob@example.com --password-stdin --apop < password-and-secret-file
`,
    )
    .action((address: string, options: PasswordOptions) =>
      withDatabase(context, async ({ db, keyring }) => {
        parseAddress(address) // before anything is asked
        const { password, apopSecret, generated } = await readCredentials(options)
        if (password === undefined) return
        const quotaOctets = options.quota?.octets
        const added = await addUser(db, address, { password, apopSecret, quotaOctets, keyring })
        process.stdout.write(`added ${added}\n${formatGenerated(generated)}`)
        if (isShort(password)) process.stderr.write(ON_SHORT)
        if (apopSecret === undefined && (await existsApopUser(db)))
          process.stderr.write(ON_APOP_OF_OTHERS)
      }),
    )

  const passwd = user.command('passwd')
  refuseBoth(passwd, '--apop', '--no-apop')
  passwd
    .description('change the password of a user; ends its session')
    .argument('<address>')
    .addOption(passwordStdin().conflicts('keepPassword'))
    .addOption(generate().conflicts('keepPassword'))
    .option('--keep-password', 'change only what --apop or --no-apop says')
    .option('--apop', 'set a new APOP secret (without it APOP stays as it is)')
    .option('--no-apop', 'take APOP away')
    .addHelpText(
      'after',
      `${ON_PASSWORDS}
Examples:
  popgres user passwd alice@example.com
  popgres user passwd alice@example.com --generate
  popgres user passwd alice@example.com --keep-password --apop
  popgres user passwd alice@example.com --keep-password --no-apop
`,
    )
    .action(function (this: Command, address: string, options: PasswordOptions) {
      // commander makes `--no-apop` alone default to true: only a given one counts.
      const isGiven = this.getOptionValueSource('apop') === 'cli'
      const wantsApop = isGiven ? options.apop : undefined
      if (options.keepPassword === true && wantsApop === undefined)
        this.error('--keep-password needs --apop or --no-apop')
      return changePassword(context, address, options, wantsApop)
    })
}

/** For commander the two are one option, of which the last one given counts. */
function refuseBoth(command: Command, ...pair: [string, string]): void {
  const given = new Set<string>()
  for (const flag of pair)
    command.on(`option:${flag.slice(2)}`, () => {
      given.add(flag)
      if (given.size > 1) command.error(`option '${pair[0]}' cannot be used with '${pair[1]}'`)
    })
}

async function changePassword(
  context: CommandContext,
  address: string,
  options: PasswordOptions,
  wantsApop: boolean | undefined,
): Promise<void> {
  await withDatabase(context, async ({ db, keyring }) => {
    parseAddress(address)
    const given = { ...options, apop: wantsApop === true }
    const { password, apopSecret, generated } = await readCredentials(given)
    const apop = wantsApop === false ? 'remove' : apopSecret
    await changeCredentials(db, address, { password, apop, keyring })
    const what = password === undefined ? 'APOP' : 'password'
    process.stdout.write(`changed ${what} of ${address}\n${formatGenerated(generated)}`)
    if (password !== undefined && isShort(password)) process.stderr.write(ON_SHORT)
  })
}

function passwordStdin(): Option {
  return new Option('--password-stdin', 'read the password from standard input')
}

function generate(): Option {
  return new Option('--generate', 'make up a password and print it').conflicts('passwordStdin')
}

async function readCredentials(options: PasswordOptions): Promise<Credentials> {
  const generated: Record<string, string> = {}
  const makeUp = (name: string): Secret => {
    const secret = generatePassword()
    generated[name] = secret.reveal().toString('utf8')
    return secret
  }
  const wantsApop = options.apop === true
  if (options.passwordStdin === true) {
    const [password, apopSecret] = await readSecretLines(wantsApop ? 2 : 1)
    return {
      password,
      apopSecret: wantsApop ? (apopSecret ?? makeUp('APOP secret')) : undefined,
      generated,
    }
  }
  const password = options.keepPassword
    ? undefined
    : options.generate
      ? makeUp('password')
      : await promptPassword('Password')
  return { password, apopSecret: wantsApop ? makeUp('APOP secret') : undefined, generated }
}

function formatGenerated(generated: Record<string, string>): string {
  return Object.keys(generated).length === 0 ? '' : formatFields(generated)
}
