/** `popgres certificate …` and `popgres host …`: TLS certificates, and whose a host name is. */
import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import {
  addCertificate,
  type Certificate,
  listCertificates,
  removeCertificate,
} from '../../../admin/operations/trust/certificates.ts'
import {
  addHost,
  type DomainHost,
  listHosts,
  removeHost,
} from '../../../admin/operations/trust/hosts.ts'
import { describeReadError } from '../../../admin/read-error.ts'
import { isRefusal, refused } from '../../../admin/refusal.ts'
import { isFailure } from '../../../base/failure.ts'
import { Secret } from '../../../base/secret.ts'
import { type CommandContext, withDatabase } from '../../command-context.ts'
import { type Column, formatJson, formatMoment, formatTable } from '../../output.ts'

const CERTIFICATE_COLUMNS: readonly Column<Certificate>[] = [
  { title: 'HOST', cell: (certificate) => certificate.hostName },
  { title: 'EXPIRES', cell: formatExpiry },
  { title: 'ADDED', cell: (certificate) => formatMoment(certificate.addedAt) },
]

const HOST_COLUMNS: readonly Column<DomainHost>[] = [
  { title: 'HOST', cell: (host) => host.hostName },
  { title: 'DOMAIN', cell: (host) => host.domainName },
]

function formatExpiry({ expiresAt, isExpired }: Certificate): string {
  return `${formatMoment(expiresAt)}${isExpired ? ' (expired)' : ''}`
}

export function defineCertificateCommands(program: Command, context: CommandContext): void {
  const certificate = program
    .command('certificate')
    .description('manage TLS certificates that all nodes share')
  defineHostCommands(program, context)

  certificate
    .command('add')
    .description('add a certificate for a host name, or replace it')
    .argument('<host>', 'for example pop.example.com, or *.example.com')
    .requiredOption('--cert <file>', 'PEM: the certificate, then those that issued it')
    .requiredOption('--key <file>', 'PEM: its private key, not encrypted')
    .addHelpText(
      'after',
      `
The private key is stored encrypted under POPGRES_SECRET_KEY, which all nodes need. Running nodes
use the certificate within seconds; open sessions go on. A node's own POPGRES_TLS_DIRECTORY comes
first; for other names there is its POPGRES_TLS_CERT.

Example, after a renewal:
  popgres certificate add pop.example.com --cert fullchain.pem --key privkey.pem
`,
    )
    .action((host: string, options: { cert: string; key: string }) =>
      withDatabase(context, async ({ db, keyring }) => {
        const pair = {
          chain: readPem(options.cert).toString('utf8'),
          key: new Secret(readPem(options.key)),
        }
        const added = await addCertificate(db, keyring, host, pair).catch((error: unknown) => {
          // Which of the two is the wrong one, nobody but the operator knows.
          const isOfFiles = isRefusal(error) && isFailure(error.cause, 'TLS_CERTIFICATE')
          const files = `${options.cert} with ${options.key}`
          throw isOfFiles ? refused(`${files}: ${error.message}`, error) : error
        })
        const verb = added.isNew ? 'added' : 'replaced'
        const { hostName, expiresAt } = added.certificate
        process.stdout.write(`${verb} ${hostName}, expires ${formatMoment(expiresAt)}\n`)
      }),
    )

  certificate
    .command('list')
    .description('list the certificates, with when they expire')
    .option('--json', 'print JSON')
    .action((options: { json?: boolean }) =>
      withDatabase(context, async ({ db }) => {
        const found = await listCertificates(db)
        process.stdout.write(
          options.json ? formatJson(found) : formatTable(CERTIFICATE_COLUMNS, found),
        )
      }),
    )

  certificate
    .command('remove')
    .description('remove a certificate; clients of that name get the wildcard or standard one')
    .argument('<host>')
    .action((host: string) =>
      withDatabase(context, async ({ db }) => {
        process.stdout.write(`removed ${await removeCertificate(db, host)}\n`)
      }),
    )
}

function defineHostCommands(program: Command, context: CommandContext): void {
  const host = program
    .command('host')
    .description('manage host names on which a user name alone is enough')

  host
    .command('add')
    .description('bind a host name to a domain')
    .argument('<domain>')
    .argument('<host>', 'as clients have it, for example pop.example.com')
    .addHelpText(
      'after',
      `
Who connects to that name over TLS may log in with "alice" for alice@<domain>.

Example:
  popgres host add customer.example pop.customer.example
`,
    )
    .action((domainName: string, hostName: string) =>
      withDatabase(context, async ({ db }) => {
        const added = await addHost(db, domainName, hostName)
        process.stdout.write(`added ${added.hostName} to ${added.domainName}\n`)
      }),
    )

  host
    .command('list')
    .description('list the host names of all domains')
    .option('--json', 'print JSON')
    .action((options: { json?: boolean }) =>
      withDatabase(context, async ({ db }) => {
        const found = await listHosts(db)
        process.stdout.write(options.json ? formatJson(found) : formatTable(HOST_COLUMNS, found))
      }),
    )

  host
    .command('remove')
    .description('take a host name from a domain')
    .argument('<domain>')
    .argument('<host>')
    .action((domainName: string, hostName: string) =>
      withDatabase(context, async ({ db }) => {
        const removed = await removeHost(db, domainName, hostName)
        process.stdout.write(`removed ${removed.hostName} from ${removed.domainName}\n`)
      }),
    )
}

function readPem(file: string): Buffer {
  try {
    return readFileSync(file)
  } catch (error) {
    const reason = describeReadError(error)
    throw reason === undefined ? error : refused(`${file}: ${reason}`, error)
  }
}
