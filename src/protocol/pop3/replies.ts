/**
 * Every word the POP3 server says, apart from multi-line replies (listing.ts, capabilities.ts).
 * The wording is that of the examples in RFC 1939 §5 and §10. Response codes are those of RFC 2449
 * §8 and RFC 3206: [IN-USE], [AUTH], [SYS/TEMP], [SYS/PERM]. Nothing that a peer typed is ever
 * repeated.
 *
 * All replies are ASCII text with their CRLF, and at most 512 octets (RFC 1939 §3).
 */
import type { LoginRefusal, Pop3Parameters } from './actions.ts'

/** A command that may not be obeyed. `isBadCommand` ones are counted, and end the connection. */
export interface Refusal {
  readonly reply: string
  readonly isBadCommand: boolean
}

export const OK = '+OK\r\n'
export const TOP_FOLLOWS: Buffer = Buffer.from('+OK top of message follows\r\n', 'latin1')
export const UNIQUE_IDS_FOLLOW = '+OK unique-id listing follows\r\n'
export const CAPABILITIES_FOLLOW = '+OK capability list follows\r\n'
/** RFC 1939 §7 lets USER answer alike for known and unknown names. */
export const SEND_PASSWORD = '+OK send PASS\r\n'

export const UNKNOWN_COMMAND = bad('unknown command')
export const LINE_TOO_LONG = bad('command line too long')
export const CONTROL_CHARACTERS = bad('control characters are not allowed')
export const NOT_LOGGED_IN = bad('log in first')
export const ALREADY_LOGGED_IN = bad('already logged in')
export const USER_FIRST = bad('send USER first')
export const TOO_MANY_BAD_COMMANDS = '-ERR too many bad commands, closing the connection\r\n'

export const PLAINTEXT_REFUSED = refusal(
  'passwords are not accepted unencrypted, set your mail program to use TLS',
)
export const APOP_UNAVAILABLE = refusal('APOP is not available here')

/** RFC 2449 §8, RFC 3206 §4, §5. [AUTH] is said alike for an unknown user and a wrong password. */
export const LOGIN_REFUSALS: Readonly<Record<LoginRefusal, string>> = {
  'bad-credentials': '-ERR [AUTH] wrong user name or password\r\n',
  suspended: '-ERR [SYS/PERM] this account is suspended\r\n',
  'in-use': '-ERR [IN-USE] maildrop is locked by another session\r\n',
  temporary: '-ERR [SYS/TEMP] login is not possible now, try again later\r\n',
}
export const TOO_MANY_LOGINS = '-ERR [AUTH] too many failed logins, closing the connection\r\n'

export const MAILDROP_UNAVAILABLE = refusal(
  '[SYS/TEMP] maildrop cannot be read now, try again later',
)
export const MESSAGE_UNAVAILABLE = {
  gone: '-ERR message is gone\r\n',
  temporary: '-ERR [SYS/TEMP] message cannot be read now, try again later\r\n',
  damaged: '-ERR [SYS/PERM] message is damaged\r\n',
} as const
/** RFC 1939 §6: -ERR if not all could be deleted; ours deletes all or none. */
export const COMMIT_FAILED = {
  'nothing-deleted': '-ERR [SYS/TEMP] nothing was deleted, try again later\r\n',
  'lease-lost': '-ERR [SYS/TEMP] this session had been ended, nothing was deleted\r\n',
} as const
export const SHUTTING_DOWN = '-ERR [SYS/TEMP] server is shutting down, try again later\r\n'
export const SESSION_ENDED = '-ERR [SYS/TEMP] this session was ended by the server\r\n'

/** RFC 1939 §4; with the timestamp only where APOP works, since clients insist on it then (§7). */
export function greeting(parameters: Pop3Parameters): string {
  const { apopTimestamp } = parameters
  if (apopTimestamp === undefined) return '+OK POP3 server ready\r\n'
  return `+OK POP3 server ready ${apopTimestamp}\r\n`
}

/** @param displayName whose maildrop it is, as stored with the account */
export function maildropOpened(displayName: string, count: number, octets: number): string {
  const owner = isPrintableAscii(displayName) ? `${displayName}'s maildrop` : 'maildrop'
  return `+OK ${owner} has ${maildropSize(count, octets)}\r\n`
}

export function maildropHas(count: number, octets: number): string {
  return `+OK maildrop has ${maildropSize(count, octets)}\r\n`
}

export function scanListingFollows(count: number, octets: number): string {
  return `+OK ${maildropSize(count, octets)}\r\n`
}

export function octetsFollow(octets: number): Buffer {
  return Buffer.from(`+OK ${octets} octets\r\n`, 'latin1')
}

export function messageDeleted(number: number): string {
  return `+OK message ${number} deleted\r\n`
}

/** @param total how far the numbers go, deleted messages included */
export function noSuchMessage(total: number): Refusal {
  return refusal(`no such message, only ${messages(total)} in maildrop`)
}

export function alreadyDeleted(number: number): Refusal {
  return refusal(`message ${number} already deleted`)
}

export function signOff(hostname: string): string {
  return `+OK ${hostname} POP3 server signing off\r\n`
}

/** @param countLeft messages of this session's listing that stay */
export function signOffAfterUpdate(hostname: string, countLeft: number): string {
  const left = countLeft === 0 ? 'maildrop empty' : `${messages(countLeft)} left`
  return `+OK ${hostname} POP3 server signing off (${left})\r\n`
}

/** @param usage the command with its arguments, e.g. `TOP message lines` */
export function wrongArguments(usage: string): Refusal {
  return bad(`expected: ${usage}`)
}

function bad(text: string): Refusal {
  return { reply: `-ERR ${text}\r\n`, isBadCommand: true }
}

function refusal(text: string): Refusal {
  return { reply: `-ERR ${text}\r\n`, isBadCommand: false }
}

function maildropSize(count: number, octets: number): string {
  return `${messages(count)} (${octets} octets)`
}

function messages(count: number): string {
  return count === 1 ? '1 message' : `${count} messages`
}

function isPrintableAscii(text: string): boolean {
  return /^[\x20-\x7e]+$/.test(text)
}
