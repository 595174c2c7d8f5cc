/**
 * Every setting, once: name, kind, default, unit and meaning. `popgres settings` prints this table,
 * the start refuses what does not fit it, docs and tests read it. Values come from the environment
 * (and .env, loaded by main.ts); nothing else in the source reads process.env.
 */
import { readFileSync } from 'node:fs'
import { availableParallelism, hostname } from 'node:os'
import { z } from 'zod'
import { parseDatabaseUrl } from './database-url.ts'
import { Failure } from './failure.ts'
import { Keyring } from './keyring.ts'
import { listenAddresses, networks } from './network.ts'
import { Secret } from './secret.ts'

/** One row of the table. `schema` parses the text of the environment variable. */
interface Setting<T> {
  schema: z.ZodType<T, string>
  default: string | (() => string)
  unit: string
  meaning: string
  /** Never printed; may also come from a file named by `<NAME>_FILE`. */
  isSecret?: boolean
}

const setting = <T>(row: Setting<T>): Setting<T> => row

const wholeNumber = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d+$/, 'must be a whole number')
    .transform(Number)
    .pipe(z.number().min(min, `must be at least ${min}`).max(max, `must be at most ${max}`))

const databaseUrl = z.string().transform((text, context) => {
  if (text === '') return undefined
  const parsed = parseDatabaseUrl(text)
  if (!('wrong' in parsed)) return new Secret(text)
  context.addIssue(parsed.wrong)
  return z.NEVER
})

const secretKeys = z.string().transform((text, context): Keyring | undefined => {
  if (text === '') return undefined
  const keyring = parseKeyring(text)
  if (keyring !== undefined) return keyring
  context.addIssue('must be 64 hexadecimal digits (32 octets): openssl rand -hex 32')
  return z.NEVER
})

/** `areChosen`: the operator has named them. */
const saslMechanisms = z.string().transform((text, context) => {
  if (text === 'auto') return { names: SASL_NAMES, areChosen: false }
  const names = text
    .toUpperCase()
    .split(/[\s,]+/)
    .filter((name) => name !== '')
  if (names.every((name) => SASL_NAMES.includes(name))) return { names, areChosen: true }
  context.addIssue(`must be auto, or of ${SASL_NAMES.join(', ')}`)
  return z.NEVER
})

/** Undefined: the operator has not said. */
const drainSeconds = z.union([z.literal('auto').transform(() => undefined), wholeNumber(0, 86_400)])

/** @returns undefined if `text` is anything but keys of 64 hexadecimal digits, separated */
export function parseKeyring(text: string): Keyring | undefined {
  const keys = text.split(/[\s,]+/).filter((key) => key !== '')
  if (keys.length === 0 || !keys.every((key) => /^[0-9a-fA-F]{64}$/.test(key))) return undefined
  return new Keyring(keys.map((key) => new Secret(Buffer.from(key, 'hex'))))
}

/** As the protocol lists them (SASL_MECHANISMS of protocol/pop3/actions.ts; a test compares). */
const SASL_NAMES = [
  'SCRAM-SHA-256-PLUS',
  'SCRAM-SHA-256',
  'EXTERNAL',
  'OAUTHBEARER',
  'XOAUTH2',
  'PLAIN',
  'LOGIN',
]

const filePath = z.string().transform((text) => (text === '' ? undefined : text))

const onOrOff = z.enum(['on', 'off']).transform((text) => text === 'on')

const HOST_NAME = /^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/

const hostName = z.string().regex(HOST_NAME, 'must be a host name')

const hostNameOrEmpty = z
  .string()
  .refine((text) => text === '' || HOST_NAME.test(text), 'must be a host name')
  .transform((text) => text.toLowerCase())

const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const

export const SETTINGS = {
  DATABASE_URL: setting({
    schema: databaseUrl,
    default: '',
    unit: 'postgres:// URL',
    meaning:
      'the PostgreSQL (15 to 18) that holds the mail; of several hosts (…@a:5432,b:5432/…) the ' +
      'one that can be written to is used; empty: an embedded one is started',
    isSecret: true,
  }),
  POPGRES_DATA_DIR: setting({
    schema: z.string().min(1, 'must name a directory'),
    default: './data',
    unit: 'directory',
    meaning: 'where the embedded PostgreSQL keeps its files and this node its generated keys',
  }),
  POPGRES_POP3_LISTEN: setting({
    schema: listenAddresses,
    default: '127.0.0.1:1110',
    unit: 'host:port or unix:/path, …',
    meaning: 'addresses for POP3; empty: off',
  }),
  POPGRES_POP3S_LISTEN: setting({
    schema: listenAddresses,
    default: '127.0.0.1:1995',
    unit: 'host:port or unix:/path, …',
    meaning: 'addresses for POP3 over TLS (RFC 8314); empty: off',
  }),
  POPGRES_PROXY_NETWORKS: setting({
    schema: networks,
    default: '',
    unit: 'CIDR, …',
    meaning: 'load balancers: whoever connects to POP3 from there must begin with a PROXY header',
  }),
  POPGRES_TLS_CERT: setting({
    schema: filePath,
    default: '',
    unit: 'PEM file',
    meaning: 'the certificate and its chain, for clients that name no other host; empty: no TLS',
  }),
  POPGRES_TLS_KEY: setting({
    schema: filePath,
    default: '',
    unit: 'PEM file',
    meaning: 'the private key of POPGRES_TLS_CERT',
  }),
  POPGRES_TLS_DIRECTORY: setting({
    schema: filePath,
    default: '',
    unit: 'directory',
    meaning: 'certificates by host name: <host>/fullchain.pem and <host>/privkey.pem',
  }),
  POPGRES_TLS_CLIENT_CERTIFICATES: setting({
    schema: onOrOff,
    default: 'off',
    unit: 'on | off',
    meaning: 'on: clients are asked for a certificate, for SASL EXTERNAL',
  }),
  POPGRES_SASL_MECHANISMS: setting({
    schema: saslMechanisms,
    default: 'auto',
    unit: 'auto | names, …',
    meaning:
      'which are offered where they can work; auto: all, but SCRAM only while every password has ' +
      'SCRAM keys (POPGRES_SECRET_KEY is needed for them)',
  }),
  POPGRES_UTF8_MESSAGES: setting({
    schema: z.enum(['send', 'refuse']),
    default: 'send',
    unit: 'send | refuse',
    meaning: 'messages with header fields beyond ASCII, to a client that did not say UTF8',
  }),
  POPGRES_LOGIN_TIMEOUT: setting({
    schema: wholeNumber(10, 600),
    default: '120',
    unit: 'seconds',
    meaning: 'from the connection to the login, TLS handshake included',
  }),
  POPGRES_CONNECTIONS_MAX: setting({
    schema: wholeNumber(1, 1_000_000),
    default: '20000',
    unit: 'connections a worker',
    meaning: 'POP3 connections in all, of each worker',
  }),
  POPGRES_CONNECTIONS_PER_NETWORK: setting({
    schema: wholeNumber(1, 1_000_000),
    default: '200',
    unit: 'connections a worker',
    meaning: 'POP3 connections from one IPv4 address or IPv6 /64, of each worker',
  }),
  POPGRES_SESSIONS_PER_DOMAIN: setting({
    schema: wholeNumber(1, 1_000_000),
    default: '5000',
    unit: 'sessions a worker',
    meaning: 'sessions of users of one domain, of each worker',
  }),
  POPGRES_LMTP_LISTEN: setting({
    schema: listenAddresses,
    default: '127.0.0.1:2424',
    unit: 'host:port or unix:/path, …',
    meaning: 'addresses for mail delivery by LMTP; empty: off',
  }),
  POPGRES_LMTP_TRUSTED_NETWORKS: setting({
    schema: networks,
    default: '127.0.0.0/8, ::1/128',
    unit: 'CIDR, …',
    meaning: 'who may deliver by LMTP over TCP; a Unix socket is guarded by its directory',
  }),
  POPGRES_HTTP_LISTEN: setting({
    schema: listenAddresses,
    default: '127.0.0.1:8080',
    unit: 'host:port or unix:/path, …',
    meaning:
      'addresses for /livez, /readyz and /metrics over HTTP, open to who reaches them; empty: off',
  }),
  POPGRES_HOSTNAME: setting({
    schema: hostName,
    default: () => hostname(),
    unit: 'host name',
    meaning: 'the name this node greets with and writes into Received: and APOP timestamps',
  }),
  POPGRES_WORKERS: setting({
    schema: wholeNumber(1, 256),
    default: () => String(Math.ceil(availableParallelism() / 2)),
    unit: 'processes',
    meaning: 'worker processes of this node; default: one for two cores',
  }),
  POPGRES_DATABASE_CONNECTIONS: setting({
    schema: wholeNumber(2, 100),
    default: '6',
    unit: 'connections a worker',
    meaning: 'pooled PostgreSQL connections of each worker, besides its two pipelined ones',
  }),
  POPGRES_SECRET_KEY: setting({
    schema: secretKeys,
    default: '',
    unit: '64 hex digits, …',
    meaning:
      'seals APOP secrets, SCRAM keys and TLS keys; of several the first seals, all open; ' +
      'empty: none of these (the embedded mode makes and keeps a key)',
    isSecret: true,
  }),
  POPGRES_PLAINTEXT_AUTH: setting({
    schema: z.enum(['never', 'loopback', 'always']),
    default: 'loopback',
    unit: 'never | loopback | always',
    meaning: 'from where passwords may be sent as they are without TLS',
  }),
  POPGRES_DEFAULT_DOMAIN: setting({
    schema: hostNameOrEmpty,
    default: '',
    unit: 'domain',
    meaning: 'the domain of a user name given without one; empty: such names are unknown',
  }),
  POPGRES_AUTOLOGOUT: setting({
    schema: wholeNumber(600, 86_400),
    default: '600',
    unit: 'seconds',
    meaning: 'silence after which a POP3 connection is closed; RFC 1939 §3 wants 600 or more',
  }),
  POPGRES_SESSION_LOG_MONTHS: setting({
    schema: wholeNumber(1, 1_200),
    default: '12',
    unit: 'months',
    meaning:
      'how long session_log keeps who fetched and deleted which messages from where; whole ' +
      'months, the running one besides',
  }),
  POPGRES_DRAIN: setting({
    schema: drainSeconds,
    default: 'auto',
    unit: 'seconds | auto',
    meaning:
      'how long open sessions may go on by themselves when their worker is replaced (SIGHUP) or ' +
      'the node stopped (SIGTERM), before they are told; auto: 60 when replaced, 0 when stopped',
  }),
  POPGRES_DRAIN_DELAY: setting({
    schema: wholeNumber(0, 3_600),
    default: '0',
    unit: 'seconds',
    meaning:
      'after SIGTERM the node says for so long that it is not ready before it accepts no more, ' +
      'so that load balancers leave',
  }),
  POPGRES_MESSAGE_MAX_OCTETS: setting({
    schema: wholeNumber(1_024, 1_073_741_824),
    default: '52428800',
    unit: 'octets',
    meaning: 'the largest message that is accepted',
  }),
  POPGRES_LOG_LEVEL: setting({
    schema: z.enum(LOG_LEVELS, `must be one of ${LOG_LEVELS.join(', ')}`),
    default: 'info',
    unit: 'level',
    meaning: `how much is logged: ${LOG_LEVELS.join(', ')}`,
  }),
} as const

export type SettingName = keyof typeof SETTINGS

export const SECRET_NAMES = (Object.keys(SETTINGS) as SettingName[]).filter(
  (name) => (SETTINGS[name] as Setting<unknown>).isSecret === true,
)

export type Settings = {
  readonly [Name in SettingName]: z.output<(typeof SETTINGS)[Name]['schema']>
}

/** Text of one setting: the variable, its _FILE for a secret, or the default. */
function textOf(name: SettingName, env: NodeJS.ProcessEnv): string {
  const row: Setting<unknown> = SETTINGS[name]
  const file = row.isSecret ? env[`${name}_FILE`] : undefined
  if (file !== undefined && env[name] !== undefined)
    throw new Failure('SETTINGS_INVALID', `${name} and ${name}_FILE are both set: keep one`)
  if (file !== undefined) return readSecret(name, file)
  return env[name] ?? (typeof row.default === 'function' ? row.default() : row.default)
}

/** Empty is none: a secret that was not written yet would make a node of another kind. */
function readSecret(name: SettingName, file: string): string {
  let text: string
  try {
    text = readFileSync(file, 'utf8').trim()
  } catch (error) {
    throw new Failure('SETTINGS_INVALID', `${name}_FILE: cannot read ${file}`, error)
  }
  if (text === '') throw new Failure('SETTINGS_INVALID', `${name}_FILE: ${file} is empty`)
  return text
}

function isKnownName(name: string): boolean {
  const base = name.replace(/_FILE$/, '')
  if (!Object.hasOwn(SETTINGS, base)) return false
  const row: Setting<unknown> = SETTINGS[base as SettingName]
  return name === base || row.isSecret === true
}

/**
 * The text of every setting, secrets too: to find out what has changed, never to be shown.
 * @throws {Failure} SETTINGS_INVALID
 */
export function settingTexts(env: NodeJS.ProcessEnv): Record<SettingName, string> {
  const names = Object.keys(SETTINGS) as SettingName[]
  return Object.fromEntries(names.map((name) => [name, textOf(name, env)])) as Record<
    SettingName,
    string
  >
}

/** As `settingTexts`, without the secrets. */
export function openTexts(env: NodeJS.ProcessEnv): Record<string, string> {
  const texts: Partial<Record<SettingName, string>> = settingTexts(env)
  for (const name of SECRET_NAMES) delete texts[name]
  return texts
}

/**
 * @throws {Failure} SETTINGS_INVALID, whose message is one line that names the first wrong or
 *   unknown variable and says what it must be; a secret's value is never in it
 */
export function parseSettings(env: NodeJS.ProcessEnv): Settings {
  for (const name of Object.keys(env)) {
    if (name.startsWith('POPGRES_') && !isKnownName(name))
      throw new Failure('SETTINGS_INVALID', `${name} is not a setting: see "popgres settings"`)
  }
  const parsed: Record<string, unknown> = {}
  for (const name of Object.keys(SETTINGS) as SettingName[]) {
    const row: Setting<unknown> = SETTINGS[name]
    const text = textOf(name, env)
    const result = row.schema.safeParse(text)
    if (!result.success) {
      const shown = row.isSecret ? '' : ` is "${text}" but`
      const why = result.error.issues[0]?.message ?? 'is wrong'
      const mustBe = why.startsWith('must') ? why : `must be ${row.unit}`
      throw new Failure('SETTINGS_INVALID', `${name}${shown} ${mustBe}`)
    }
    parsed[name] = result.data
  }
  const settings = parsed as Settings
  if ((settings.POPGRES_TLS_CERT === undefined) !== (settings.POPGRES_TLS_KEY === undefined))
    throw new Failure('SETTINGS_INVALID', 'POPGRES_TLS_CERT and POPGRES_TLS_KEY belong together')
  return settings
}
