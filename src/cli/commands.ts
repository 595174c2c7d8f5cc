/**
 * The command line: nouns before verbs, each help text enough to work from alone. A command parses
 * its words, calls one operation and prints; what it does is in admin/operations/.
 * Exit status: 0 done, 1 failed, 2 wrong usage. An error is one line that says what to do.
 */
import { Command, CommanderError } from 'commander'
import { Failure } from '../base/failure.ts'
import { defineCredentialCommands } from './admin/credential-commands.ts'
import { defineAliasCommands } from './admin/domains/alias-commands.ts'
import { defineDomainCommands } from './admin/domains/domain-commands.ts'
import { defineHoldCommands } from './admin/hold-commands.ts'
import { defineMaintenanceCommands } from './admin/maintenance-commands.ts'
import { defineMessageCommands } from './admin/messages/message-commands.ts'
import { defineRestoreCommand } from './admin/messages/restore-command.ts'
import { defineErase } from './admin/messages/undo-commands.ts'
import { definePolicyCommands } from './admin/policy-commands.ts'
import { defineSessionCommands } from './admin/session-commands.ts'
import { defineThrottleCommands } from './admin/throttle-commands.ts'
import { defineCertificateCommands } from './admin/trust/certificate-commands.ts'
import { defineOauthCommands } from './admin/trust/oauth-commands.ts'
import { defineSecretCommands } from './admin/trust/secret-commands.ts'
import { defineUserCommands } from './admin/user-commands.ts'
import { type CommandContext, readVersion } from './command-context.ts'
import { harmlessLine } from './output.ts'
import { defineHealthCommand } from './serve/health-command.ts'
import { defineExportCommand } from './transfer/export/export-command.ts'
import { defineImportCommand } from './transfer/import-command.ts'

/**
 * @param args without node and the script
 * @param readEnv `env` as it is later: .env may have changed
 * @returns the exit status
 */
export async function runCommand(
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  readEnv = () => env,
): Promise<number> {
  const context: CommandContext = { env, readEnv, status: 0 }
  try {
    await defineCommands(context).parseAsync([...args], { from: 'user' })
    return context.status
  } catch (error) {
    // Commander has printed its line already; help and version are asked for, not wrong.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
    process.stderr.write(`popgres: ${describeError(error)}\n`)
    if (!(error instanceof Failure) && env.POPGRES_LOG_LEVEL === 'debug')
      process.stderr.write(`${(error as Error).stack}\n`)
    return 1
  }
}

const EXAMPLES = `
Exit status: 0 done; 1 refused or failed (a wrong address or setting, no such user, no database);
2 the command line is wrong (an unknown command or option, a missing or malformed argument).
The database is DATABASE_URL, or the embedded PostgreSQL of a server that runs here.

Examples:
  popgres serve
  popgres domain add example.com
  popgres user add alice@example.com --generate
  popgres user list example.com --json
  popgres import alice@example.com ~/old-mail.mbox
  popgres user add --help
`

export function defineCommands(context: CommandContext): Command {
  const program = new Command('popgres')
    .description('A multi-tenant POP3 server whose mail lives in PostgreSQL.')
    .version(readVersion(), '--version', 'print the version')
    .helpOption('-h, --help', 'print help')
    .addHelpText('after', EXAMPLES)
    .showSuggestionAfterError(true)
    .enablePositionalOptions() // so that import can tell its own options from a server's
    .exitOverride()
  defineServeCommand(program, context)
  defineMaintenanceCommands(program, context)
  defineDomainCommands(program, context)
  defineUserCommands(program, context)
  defineAliasCommands(program, context)
  defineCredentialCommands(program, context)
  definePolicyCommands(program, context)
  defineThrottleCommands(program, context)
  defineSessionCommands(program, context)
  defineMessageCommands(program, context)
  defineHoldCommands(program, context)
  defineErase(program, context)
  defineImportCommand(program, context)
  defineExportCommand(program, context)
  defineRestoreCommand(program, context)
  defineHealthCommand(program, context)
  defineCertificateCommands(program, context)
  defineOauthCommands(program, context)
  defineSecretCommands(program, context)
  completeUsage(program, [])
  return program
}

/**
 * Gives a command, and those below it, `help` and the form of its errors: one line that ends with
 * whose help to see. Commander's own help command passes over names that it does not know.
 */
function completeUsage(command: Command, above: readonly string[]): void {
  const words = [...above, command.name()]
  command.configureOutput({
    outputError: (text, write) =>
      write(`popgres: ${usageLine(text)}; see: ${words.join(' ')} --help\n`),
  })
  if (command.commands.length === 0) return
  command
    .command('help')
    .description('print the help of a command')
    .argument('[command...]')
    .action((names: string[]) => showHelp(command, names))
  for (const child of command.commands) completeUsage(child, words)
}

function showHelp(command: Command, names: readonly string[]): void {
  const [name, ...below] = names
  if (name === undefined) command.help()
  const child = command.commands.find((each) => each.name() === name)
  if (child === undefined) command.error(`unknown command '${name}'`)
  showHelp(child, below)
}

function defineServeCommand(program: Command, context: CommandContext): void {
  program
    .command('serve')
    .description('start this node: the supervisor and its workers')
    .addHelpText(
      'after',
      `
Without DATABASE_URL an embedded PostgreSQL is started and migrated. With it, run
"popgres migrate" first. Ctrl-C or SIGTERM ends open sessions in order, then the node; SIGHUP
reads the settings anew and replaces the workers one by one, while new clients are served.
See "popgres settings" for what can be set.
`,
    )
    .action(async () => {
      // Loaded here: administration needs none of the server, and starts faster without it.
      const { serve } = await import('./serve.ts')
      context.status = await serve(context.env, context.readEnv ?? (() => context.env))
    })
}

/** Commander's errors begin with "error: " and put a suggestion on a second line. */
function usageLine(text: string): string {
  return harmlessLine(
    text
      .trim()
      .replace(/^error: /, '')
      .replace(/\s*\n\s*/g, ' ')
      .replace(/\.$/, ''),
  )
}

/** One line: what went wrong, and what to do. */
function describeError(error: unknown): string {
  if (!(error instanceof Error)) return harmlessLine(String(error))
  return harmlessLine(`${error.message}${error instanceof Failure ? adviceOn(error) : ''}`)
}

function adviceOn(failure: Failure): string {
  switch (failure.code) {
    case 'STORAGE_UNAVAILABLE':
      return ': is PostgreSQL running, and is DATABASE_URL right?'
    case 'STORAGE_LOGIN_REFUSED':
      return ': check user, password and database name in DATABASE_URL'
    case 'STORAGE_CONFLICT':
      return ': nothing was changed, try again'
    case 'STORAGE_IN_DOUBT':
      return ': look whether it was done before you try again'
    default:
      return ''
  }
}
