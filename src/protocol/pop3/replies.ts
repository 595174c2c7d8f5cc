/**
 * The replies to what may not be: each an extended response code, where RFC 2449 §8, RFC 3206 or
 * RFC 6856 has one, and a text that every language words for itself (words/).
 */
import type { LoginRefusal, Pop3Outcome } from './actions.ts'
import type { Words } from './words/words.ts'

type ResponseCode = 'IN-USE' | 'LOGIN-DELAY' | 'AUTH' | 'SYS/TEMP' | 'SYS/PERM' | 'UTF8'

/** -ERR, still without a language. `isBadCommand` ones are counted, and end the connection. */
export interface Refusal {
  readonly code: ResponseCode | undefined
  readonly text: (words: Words) => string
  readonly isBadCommand: boolean
}

export const UNKNOWN_COMMAND = bad((words) => words.unknownCommand)
export const LINE_TOO_LONG = bad((words) => words.lineTooLong)
export const CONTROL_CHARACTERS = bad((words) => words.controlCharacters)
export const NOT_LOGGED_IN = bad((words) => words.notLoggedIn)
export const ALREADY_LOGGED_IN = bad((words) => words.alreadyLoggedIn)
export const USER_FIRST = bad((words) => words.userFirst)
export const RESPONSE_NOT_BASE64 = bad((words) => words.responseNotBase64)
export const RESPONSE_MALFORMED = bad((words) => words.responseMalformed)
export const TOO_MANY_BAD_COMMANDS = refusal((words) => words.tooManyBadCommands)
export const TOO_MANY_COMMANDS = refusal((words) => words.tooManyCommands)

export const UNKNOWN_LANGUAGE = refusal((words) => words.unknownLanguage)
export const TLS_UNAVAILABLE = refusal((words) => words.tlsUnavailable)
export const PLAINTEXT_REFUSED = refusal((words) => words.plaintextRefused)
export const APOP_UNAVAILABLE = refusal((words) => words.apopUnavailable)
export const MECHANISM_UNAVAILABLE = refusal((words) => words.mechanismUnavailable)
/** RFC 5034 §4: a line with "*" alone ends the exchange. */
export const LOGIN_CANCELLED = refusal((words) => words.loginCancelled)

/** [AUTH] is said alike for an unknown user and a wrong password. */
export const LOGIN_REFUSALS: Readonly<Record<LoginRefusal, Refusal>> = {
  'bad-credentials': refusal((words) => words.wrongCredentials, 'AUTH'),
  'needs-password': refusal((words) => words.passwordNeeded, 'AUTH'),
  suspended: refusal((words) => words.accountSuspended, 'SYS/PERM'),
  'in-use': refusal((words) => words.maildropInUse, 'IN-USE'),
  'login-delay': refusal((words) => words.loginTooSoon, 'LOGIN-DELAY'),
  throttled: refusal((words) => words.loginsThrottled, 'SYS/TEMP'),
  'too-many-sessions': refusal((words) => words.tooManySessions, 'SYS/TEMP'),
  'being-moved': refusal((words) => words.mailBeingMoved, 'SYS/TEMP'),
  temporary: refusal((words) => words.loginImpossible, 'SYS/TEMP'),
}
export const TOO_MANY_LOGINS = refusal((words) => words.tooManyLogins, 'AUTH')

export const MAILDROP_UNAVAILABLE = refusal((words) => words.maildropUnavailable, 'SYS/TEMP')
export const MESSAGE_UNAVAILABLE: Readonly<Record<ReasonOf<'unavailable'>, Refusal>> = {
  gone: refusal((words) => words.messageGone),
  temporary: refusal((words) => words.messageUnavailable, 'SYS/TEMP'),
  damaged: refusal((words) => words.messageDamaged, 'SYS/PERM'),
  'needs-utf8': refusal((words) => words.messageNeedsUtf8, 'UTF8'),
}
/** RFC 1939 §6: -ERR if not all could be deleted; ours deletes all or none. */
export const COMMIT_FAILED: Readonly<Record<ReasonOf<'commit-failed'>, Refusal>> = {
  'nothing-deleted': refusal((words) => words.nothingDeleted, 'SYS/TEMP'),
  'lease-lost': refusal((words) => words.sessionWasEnded, 'SYS/TEMP'),
}
export const SHUTTING_DOWN = refusal((words) => words.shuttingDown, 'SYS/TEMP')
export const SESSION_ENDED = refusal((words) => words.sessionEnded, 'SYS/TEMP')

type ReasonOf<K extends Pop3Outcome['kind']> = Extract<
  Pop3Outcome,
  { kind: K; reason: string }
>['reason']

/** RFC 1939 §4; with the timestamp only where APOP works, since clients insist on it then (§7). */
export function greeting(apopTimestamp: string | undefined): string {
  return apopTimestamp === undefined ? 'POP3 server ready' : `POP3 server ready ${apopTimestamp}`
}

export function noSuchMessage(total: number): Refusal {
  return refusal((words) => words.noSuchMessage(total))
}

export function alreadyDeleted(number: number): Refusal {
  return refusal((words) => words.alreadyDeleted(number))
}

/** @param usage the command with its arguments, e.g. `TOP message lines` */
export function wrongArguments(usage: string): Refusal {
  return bad((words) => words.expected(usage))
}

/** @returns the line as it is sent */
export function serializeRefusal({ code, text }: Refusal, words: Words): string {
  return code === undefined ? `-ERR ${text(words)}\r\n` : `-ERR [${code}] ${text(words)}\r\n`
}

function bad(text: Refusal['text']): Refusal {
  return { code: undefined, text, isBadCommand: true }
}

function refusal(text: Refusal['text'], code?: ResponseCode): Refusal {
  return { code, text, isBadCommand: false }
}
