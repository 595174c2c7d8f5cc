/**
 * Reads `.dialog` files: conversations written as RFC 1939 writes them, with the maildrop they
 * need. README.md beside this file describes the format. Pure: text in, values out.
 */
import { SASL_MECHANISMS, type SaslMechanismName } from '../../src/protocol/pop3/actions.ts'

type Step =
  | { kind: 'client'; octets: Buffer }
  | { kind: 'line'; text: string }
  | { kind: 'pattern'; pattern: RegExp }
  | { kind: 'octets'; octets: Buffer }
  /** Lines up to and including the final dot. */
  | { kind: 'rest' }
  | { kind: 'closed' }
  | { kind: 'event'; name: EventName; argument: string }
  /** Message numbers of the beginning that must be in the maildrop now. */
  | { kind: 'left'; numbers: number[] }

const EVENTS = ['drain', 'idle', 'lease-lost', 'deliver', 'remove', 'tls'] as const
export type EventName = (typeof EVENTS)[number]

interface FixtureMessage {
  content: Buffer
  uniqueId: string | undefined
}

interface FixturePolicy {
  loginDelaySeconds: number
  expireDays: number | undefined
}

/** `what` failed; `detail` says how, where there are several ways. */
interface Fault {
  what: 'login' | 'list' | 'unique-ids' | 'retrieve' | 'commit'
  detail: string
}

export interface Fixtures {
  user: string
  password: string
  isSuspended: boolean
  /** Whether another session has the maildrop. */
  isInUse: boolean
  isPlaintextAllowed: boolean
  isApopOffered: boolean
  isTlsOffered: boolean
  /** What the owner allows; some of it works only under TLS. */
  saslMechanisms: SaslMechanismName[]
  /** Accepted for the user by OAUTHBEARER and XOAUTH2. */
  bearerToken: string | undefined
  /** Whether the client shows a certificate of the user's under TLS. */
  hasCertificate: boolean
  isUtf8Asked: boolean
  /** What is announced before the login; `own` after it, where users differ. */
  policy: FixturePolicy
  ownPolicy: FixturePolicy | undefined
  /** Set only where the greeting must have exactly this timestamp. */
  timestamp: string | undefined
  messages: FixtureMessage[]
  faults: Fault[]
}

/** What a peer must be able to arrange before it can run a dialog. */
export type Ability =
  | 'fixed-timestamp'
  | 'plaintext-refused'
  | 'apop-withheld'
  | 'certificate'
  | 'fixed-scram'
  | 'bearer'
  | 'policy'
  | 'utf8-asked'
  | 'suspension'
  | 'in-use'
  | 'unique-ids'
  | 'faults'
  | EventName

export interface Dialog {
  /** File and title, for the test's name. */
  name: string
  fixtures: Fixtures
  steps: Step[]
  abilities: Set<Ability>
  /** Whether all commands may be sent at once. */
  isPipelinable: boolean
}

/** @throws {Error} naming file and line, if a line is none of the format */
export function parseDialogs(fileName: string, text: string): Dialog[] {
  const dialogs: Dialog[] = []
  let dialog: Dialog | undefined
  for (const [index, written] of text.split('\n').entries()) {
    const line = encodeBase64(written)
    if (line === '' || line.startsWith('##')) continue
    if (line.startsWith('# ')) {
      dialog = emptyDialog(`${fileName}: ${line.slice(2)}`)
      dialogs.push(dialog)
      continue
    }
    try {
      if (dialog === undefined) throw new Error('a dialog begins with its title')
      if (line.startsWith('@ ')) parseFixture(dialog, line.slice(2))
      else dialog.steps.push(parseStep(dialog, line))
    } catch (error) {
      throw new Error(`${fileName}:${index + 1}: ${String(error)}: ${line}`)
    }
  }
  return dialogs
}

/** `{base64 "octets"}` stands for its encoding. */
function encodeBase64(line: string): string {
  return line.replace(/\{base64 ((?:"(?:[^"\\]|\\.)*"(?:\*\d+)? ?)+)\}/g, (_, quoted: string) =>
    parseOctets(quoted).toString('base64'),
  )
}

/** One or more quoted strings with \r \n \t \0 \xHH, each perhaps repeated: `"a"*300 "\r\n"`. */
export function parseOctets(text: string): Buffer {
  const pieces = [...text.matchAll(/"((?:[^"\\]|\\.)*)"(?:\*(\d+))?\s*/g)]
  if (pieces.map((piece) => piece[0]).join('') !== text) throw new Error('quoted octets expected')
  const octets = pieces.map(([, quoted = '', times = '1']) => unquote(quoted).repeat(Number(times)))
  return Buffer.from(octets.join(''), 'latin1')
}

function unquote(quoted: string): string {
  const names: Record<string, string> = { r: '\r', n: '\n', t: '\t', 0: '\0' }
  return quoted.replace(/\\(x[0-9a-f]{2}|.)/g, (_, code: string) =>
    code.length === 3 ? String.fromCharCode(parseInt(code.slice(1), 16)) : (names[code] ?? code),
  )
}

function emptyDialog(name: string): Dialog {
  return {
    name,
    fixtures: defaultFixtures(),
    steps: [],
    abilities: new Set(),
    isPipelinable: true,
  }
}

export function defaultFixtures(): Fixtures {
  return {
    user: 'mrose',
    password: 'tanstaaf',
    isSuspended: false,
    isInUse: false,
    isPlaintextAllowed: true,
    isApopOffered: true,
    isTlsOffered: false,
    saslMechanisms: [],
    bearerToken: undefined,
    hasCertificate: false,
    isUtf8Asked: false,
    policy: { loginDelaySeconds: 0, expireDays: undefined },
    ownPolicy: undefined,
    timestamp: undefined,
    messages: [],
    faults: [],
  }
}

function parseStep(dialog: Dialog, line: string): Step {
  const space = line.indexOf(' ')
  const tag = space === -1 ? line : line.slice(0, space)
  const rest = space === -1 ? '' : line.slice(space + 1)
  switch (tag) {
    case 'C:':
      return { kind: 'client', octets: Buffer.from(`${rest}\r\n`, 'utf8') }
    case 'C=':
      return { kind: 'client', octets: parseOctets(rest) }
    case 'S:':
      return { kind: 'line', text: rest }
    case 'S~':
      return { kind: 'pattern', pattern: new RegExp(`^(?:${rest})$`) }
    case 'S=':
      return { kind: 'octets', octets: parseOctets(rest) }
    case 'S...':
      return { kind: 'rest' }
    case 'S!':
      return { kind: 'closed' }
    case 'M:':
      return { kind: 'left', numbers: rest === 'none' ? [] : rest.split(' ').map(Number) }
    case 'E:':
      return parseEvent(dialog, rest)
    default:
      throw new Error('unknown line')
  }
}

function parseEvent(dialog: Dialog, text: string): Step {
  const [name = '', ...words] = text.split(' ')
  const known = EVENTS.find((event) => event === name)
  if (known === undefined) throw new Error('unknown event')
  dialog.isPipelinable = false
  dialog.abilities.add(known)
  return { kind: 'event', name: known, argument: words.join(' ') }
}

function parseFixture(dialog: Dialog, text: string): void {
  const { fixtures, abilities } = dialog
  const [what, ...words] = text.split(' ')
  const rest = words.join(' ')
  switch (what) {
    case 'maildrop':
      parseMessages(fixtures.messages, rest)
      break
    case 'unique-id': {
      const message = fixtures.messages[Number(words[0]) - 1]
      if (message === undefined || words[1] === undefined) throw new Error('no such message')
      message.uniqueId = words[1]
      abilities.add('unique-ids')
      break
    }
    case 'password':
      fixtures.password = parseOctets(rest).toString('utf8')
      break
    case 'timestamp':
      fixtures.timestamp = rest
      abilities.add('fixed-timestamp')
      break
    case 'fault':
      fixtures.faults.push({ what: words[0] as Fault['what'], detail: words.slice(1).join(' ') })
      abilities.add('faults')
      break
    case 'sasl':
      fixtures.saslMechanisms = SASL_MECHANISMS.filter((name) => words.includes(name))
      if (fixtures.saslMechanisms.length !== words.length) throw new Error('unknown mechanism')
      if (rest.includes('SCRAM')) abilities.add('fixed-scram')
      break
    case 'user':
      fixtures.user = rest
      break
    case 'bearer':
      fixtures.bearerToken = parseOctets(rest).toString('latin1')
      abilities.add('bearer')
      break
    case 'policy':
      fixtures.policy = parsePolicy(rest)
      abilities.add('policy')
      break
    case 'own-policy':
      fixtures.ownPolicy = parsePolicy(rest)
      abilities.add('policy')
      break
    default:
      parseSwitch(dialog, text)
  }
}

/** `login-delay=60 expire=30` or `login-delay=0 expire=never` */
function parsePolicy(text: string): FixturePolicy {
  const match = /^login-delay=(\d+) expire=(\d+|never)$/.exec(text)
  if (match === null) throw new Error('`login-delay=N expire=N` expected')
  const expireDays = match[2] === 'never' ? undefined : Number(match[2])
  return { loginDelaySeconds: Number(match[1]), expireDays }
}

function parseSwitch({ fixtures, abilities }: Dialog, text: string): void {
  switch (text) {
    case 'suspended':
      fixtures.isSuspended = true
      abilities.add('suspension')
      break
    case 'in-use':
      fixtures.isInUse = true
      abilities.add('in-use')
      break
    case 'plaintext refused':
      fixtures.isPlaintextAllowed = false
      abilities.add('plaintext-refused')
      break
    case 'apop withheld':
      fixtures.isApopOffered = false
      abilities.add('apop-withheld')
      break
    case 'tls':
      fixtures.isTlsOffered = true
      abilities.add('tls')
      break
    case 'certificate':
      fixtures.hasCertificate = true
      abilities.add('certificate')
      break
    case 'utf8 asked':
      fixtures.isUtf8Asked = true
      abilities.add('utf8-asked')
      break
    default:
      throw new Error('unknown fixture')
  }
}

/**
 * `1 octets=11 ".hello\r\nx\r\n"`, or without text `1 octets=120`, or many: `1..500 octets=120`.
 */
function parseMessages(messages: FixtureMessage[], text: string): void {
  const match = /^(\d+)(?:\.\.(\d+))? octets=(\d+)(?: (".*))?$/.exec(text)
  if (match === null) throw new Error('`maildrop NUMBER octets=N` expected')
  const [, first, last = first, octets, quoted] = match
  for (let number = Number(first); number <= Number(last); number += 1) {
    if (messages.length !== number - 1) throw new Error('messages come in order')
    const content = quoted === undefined ? filler(Number(octets)) : parseOctets(quoted)
    if (content.length !== Number(octets)) throw new Error(`has ${content.length} octets`)
    messages.push({ content, uniqueId: undefined })
  }
}

const FILLER_HEADER = 'Subject: test\r\n\r\n'

/** A message of exactly `octets`, with lines of ordinary length and a final CRLF. */
function filler(octets: number): Buffer {
  const text = 'A line of a message that is here for its size alone.\r\n'
  const open = `${FILLER_HEADER}${text.repeat(Math.ceil(octets / text.length))}`.slice(
    0,
    octets - 2,
  )
  return Buffer.from(`${open.replace(/[\r\n]*$/, (end) => '-'.repeat(end.length))}\r\n`, 'latin1')
}
