/**
 * `popgres oauth …`: who vouches for a domain's users by tokens (OAUTHBEARER, XOAUTH2). The
 * operations are in admin/operations/trust/oauth-providers.ts.
 */
import { type Command, Option } from 'commander'
import {
  type OauthProvider,
  removeOauthProvider,
  setOauthProvider,
  showOauthProvider,
} from '../../../admin/operations/trust/oauth-providers.ts'
import { assert } from '../../../base/assert.ts'
import { type CommandContext, withDatabase } from '../../command-context.ts'
import { formatFields, formatJson } from '../../output.ts'
import { readSecretLines } from '../../prompt.ts'

interface SetOptions {
  issuer: string
  jwksUri?: string
  introspectionUri?: string
  clientId?: string
  clientSecretStdin?: boolean
  audience?: string
  claim?: string
  scope?: string
}

const ON_SETTING = `
Tokens that are JWTs are verified with the provider's published keys: --jwks-uri, or without it
what ISSUER/.well-known/openid-configuration says. Other tokens are shown to the provider, which
says what they are worth: --introspection-uri, with the client id and secret of this server.

A token must hold the user's address, with this domain, in a claim of its own. Without --audience
any token of the issuer is taken, also one that was made for another service: name the audience
wherever the provider has one for mail, and always if it serves others than you.

Examples:
  popgres oauth set example.com --issuer https://id.example.com --audience mail
  popgres oauth set example.com --issuer https://id.example.com \\
    --introspection-uri https://id.example.com/introspect --client-id popgres \\
    --client-secret-stdin --claim username < secret-file
`

const ON_NO_AUDIENCE = `note: without --audience any token of this issuer is taken, also one that
was made for another service
`

export function defineOauthCommands(program: Command, context: CommandContext): void {
  const oauth = program
    .command('oauth')
    .description("manage domains' OAuth 2.0 providers (OAUTHBEARER, XOAUTH2)")

  oauth
    .command('set')
    .description('let a provider vouch for the users of a domain; replaces the one before')
    .argument('<domain>')
    .requiredOption('--issuer <url>', 'what tokens say about who issued them, to the letter')
    .addOption(new Option('--jwks-uri <url>', "the provider's keys").conflicts('introspectionUri'))
    .option('--introspection-uri <url>', 'where the provider is asked about tokens')
    .option('--client-id <id>', 'of this server at the provider, for introspection')
    .option('--client-secret-stdin', 'read its secret from standard input')
    .option('--audience <name>', 'what tokens must be meant for')
    .option('--claim <name>', "the claim that holds the user's address (default: email)")
    .option('--scope <scope>', 'what tokens must allow')
    .addHelpText('after', ON_SETTING)
    .action(function (this: Command, domain: string, options: SetOptions) {
      const { issuer, jwksUri, audience, claim: addressClaim, scope } = options
      const given = toIntrospection(this, options)
      return withDatabase(context, async ({ db, keyring }) => {
        const introspection = given && (await withSecret(given))
        const provider = { issuer, jwksUri, introspection, audience, addressClaim, scope }
        const found = await setOauthProvider(db, domain, provider, keyring)
        process.stdout.write(`set the OAuth provider of ${found.domain}\n${formatProvider(found)}`)
        if (audience === undefined) process.stderr.write(ON_NO_AUDIENCE)
      })
    })

  oauth
    .command('show')
    .description('show the provider of a domain')
    .argument('<domain>')
    .option('--json', 'print JSON')
    .action((domain: string, options: { json?: boolean }) =>
      withDatabase(context, async ({ db }) => {
        const found = await showOauthProvider(db, domain)
        process.stdout.write(options.json ? formatJson(found) : formatProvider(found))
      }),
    )

  oauth
    .command('remove')
    .description('take no more tokens for a domain; sessions that are open go on')
    .argument('<domain>')
    .action((domain: string) =>
      withDatabase(context, async ({ db }) => {
        await removeOauthProvider(db, domain)
        process.stdout.write(`removed the OAuth provider of ${domain}\n`)
      }),
    )
}

interface IntrospectionClient {
  uri: string
  clientId: string
}

function toIntrospection(command: Command, options: SetOptions): IntrospectionClient | undefined {
  const { introspectionUri: uri, clientId, clientSecretStdin } = options
  if (uri === undefined && clientId === undefined && !clientSecretStdin) return undefined
  if (uri === undefined || clientId === undefined || !clientSecretStdin)
    command.error('--introspection-uri, --client-id and --client-secret-stdin go together')
  return { uri, clientId }
}

async function withSecret(client: IntrospectionClient) {
  const [clientSecret] = await readSecretLines(1)
  assert(clientSecret !== undefined, 'what is read has a line')
  return { ...client, clientSecret }
}

function formatProvider(provider: OauthProvider): string {
  return formatFields({
    domain: provider.domain,
    issuer: provider.issuer,
    audience: provider.audience ?? '(any)',
    ...(provider.jwksUri && { 'key set': provider.jwksUri }),
    ...(provider.introspectionUri && { introspection: provider.introspectionUri }),
    ...(provider.clientId && { 'client id': provider.clientId }),
    'address claim': provider.addressClaim,
    scope: provider.scope ?? '(none asked for)',
  })
}
