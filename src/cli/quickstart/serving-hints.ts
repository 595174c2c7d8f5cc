/**
 * What a human wants to know once the node serves: where it listens, and lines to paste into
 * another terminal. They use nothing but a shell, curl and this clone.
 */
import type { ServingAddresses } from '../../cluster/worker-messages.ts'
import type { Demo } from '../quickstart.ts'

interface Circumstances {
  /** Of a first start, with its passwords; later they are not known any more. */
  demo: Demo | undefined
  /** The database is the one that DATABASE_URL names. */
  isForeign: boolean
  /** Whoever comes to POP3S is dropped until there is one. */
  lacksCertificate: boolean
}

export function describeServing(addresses: ServingAddresses, circumstances: Circumstances): string {
  const { demo, isForeign, lacksCertificate } = circumstances
  const lines = [
    'Popgres is serving.',
    `  POP3   ${addresses.pop3.join(', ') || '(off)'}`,
    `  POP3S  ${addresses.pop3s.join(', ') || '(off)'}${lacksCertificate ? NO_CERTIFICATE : ''}`,
    `  LMTP   ${addresses.lmtp.join(', ') || '(off)'}`,
    `  HTTP   ${addresses.http?.join(', ') || '(off)'}  /livez /readyz /metrics`,
    '',
  ]
  if (demo !== undefined) lines.push(...describeDemo(addresses, demo))
  const condition = isForeign ? FOREIGN : ''
  lines.push(`Manage it from another terminal, in this directory${condition}:`)
  if (demo !== undefined) lines.push('  npx popgres domain remove example.test --yes   # the demo')
  return [...lines, ...ADMIN_LINES, '', 'Ctrl-C stops everything; the mail stays.', ''].join('\n')
}

const NO_CERTIFICATE =
  ' (no certificate yet: POPGRES_TLS_CERT and POPGRES_TLS_KEY, or popgres certificate add)'

const FOREIGN =
  ' and with DATABASE_URL set as it is here,\nor that of the owner if this role may only serve'

const ADMIN_LINES = [
  '  npx popgres domain add example.com',
  '  npx popgres user add alice@example.com --generate',
  '  npx popgres --help',
]

function describeDemo(addresses: ServingAddresses, demo: Demo): string[] {
  const lines = [
    'This is the first start, so there is a demo user:',
    `  address   ${demo.address}`,
    `  password  ${demo.password.reveal()}  (its APOP secret is the same)`,
    '',
  ]
  const pop3 = firstTcp(addresses.pop3)
  if (pop3 !== undefined) {
    const curl = `  curl -u ${demo.address}:${demo.password.reveal()} pop3://${pop3}`
    lines.push('List the mail, read a message:', `${curl}/`, `${curl}/1`, '')
  }
  const pop3s = firstTcp(addresses.pop3s)
  if (pop3s !== undefined) {
    // -k: the certificate of a first start is signed by nobody else.
    const curl = `  curl -k -u ${demo.address}:${demo.password.reveal()} pop3s://${pop3s}/1`
    lines.push('The same, encrypted:', curl, '')
  }
  const lmtp = firstTcp(addresses.lmtp)
  if (lmtp !== undefined) lines.push('Deliver a message:', ...deliveryLines(lmtp, demo), '')
  return lines
}

/** curl as a plain TCP client: its smtp:// speaks no LMTP. The pause keeps its input open. */
function deliveryLines(lmtp: string, demo: Demo): string[] {
  const commands = [
    'LHLO localhost',
    'MAIL FROM:<me@example.test>',
    `RCPT TO:<${demo.address}>`,
    'DATA',
    'Subject: Hello',
    '',
    'Hello, Popgres!',
    '.',
    'QUIT',
  ]
  const text = commands.join('\\r\\n')
  return [`  (printf '${text}\\r\\n'; sleep 1) | curl -s telnet://${lmtp}`]
}

/** An address that a client on this machine can connect to. */
function firstTcp(addresses: readonly string[]): string | undefined {
  return addresses
    .find((address) => !address.startsWith('unix:'))
    ?.replace(/^0\.0\.0\.0:/, '127.0.0.1:')
    .replace(/^\[::\]:/, '[::1]:')
}
