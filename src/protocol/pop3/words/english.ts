/**
 * English, spoken until a client asks for another language (RFC 6856 §3), and ASCII only. The
 * wording is that of the examples in RFC 1939 §5 and §10.
 */
import type { Words } from './words.ts'

export const ENGLISH: Words = {
  tag: 'en',
  name: 'English',
  languageChosen: 'English it is',
  languagesFollow: 'languages follow',

  sendPassword: 'send PASS',
  capabilitiesFollow: 'capability list follows',
  mechanismsFollow: 'mechanisms follow',
  beginTls: 'begin TLS negotiation',
  utf8Enabled: 'UTF-8 it is',
  topFollows: 'top of message follows',
  uniqueIdsFollow: 'unique-id listing follows',
  maildropOpened: (owner, count, octets) =>
    `${owner === undefined ? 'maildrop' : `${owner}'s maildrop`} has ${sizeOf(count, octets)}`,
  maildropHas: (count, octets) => `maildrop has ${sizeOf(count, octets)}`,
  octetsFollow: (octets) => `${octets} octets`,
  scanListingFollows: sizeOf,
  messageDeleted: (number) => `message ${number} deleted`,
  signOff: (hostname) => `${hostname} POP3 server signing off`,
  signOffAfterUpdate: (hostname, countLeft) => {
    const left = countLeft === 0 ? 'maildrop empty' : `${messages(countLeft)} left`
    return `${hostname} POP3 server signing off (${left})`
  },

  unknownCommand: 'unknown command',
  expected: (usage) => `expected: ${usage}`,
  lineTooLong: 'command line too long',
  controlCharacters: 'control characters are not allowed',
  notLoggedIn: 'log in first',
  alreadyLoggedIn: 'already logged in',
  userFirst: 'send USER first',
  tooManyBadCommands: 'too many bad commands, closing the connection',
  tooManyCommands: 'too many commands before the login, closing the connection',
  unknownLanguage: 'language not known',
  tlsUnavailable: 'TLS cannot be started here',
  plaintextRefused: 'passwords are not accepted unencrypted, set your mail program to use TLS',
  apopUnavailable: 'APOP is not available here',
  mechanismUnavailable: 'this authentication mechanism is not available here',
  responseNotBase64: 'the response is not base64',
  responseMalformed: 'the response is not what the mechanism asks for',
  loginCancelled: 'login cancelled',

  wrongCredentials: 'wrong user name or password',
  passwordNeeded: 'wrong user name or secret; the first login here needs USER and PASS, or PLAIN',
  tooManyLogins: 'too many failed logins, closing the connection',
  accountSuspended: 'this account is suspended',
  maildropInUse: 'maildrop is locked by another session',
  loginTooSoon: 'too soon after the last login',
  loginsThrottled: 'too many failed logins, try again later',
  tooManySessions: 'too many sessions, try again later',
  mailBeingMoved: 'your mail is being moved to this server, try again in a few minutes',
  loginImpossible: 'login is not possible now, try again later',

  maildropUnavailable: 'maildrop cannot be read now, try again later',
  noSuchMessage: (total) => `no such message, only ${messages(total)} in maildrop`,
  alreadyDeleted: (number) => `message ${number} already deleted`,
  messageGone: 'message is gone',
  messageUnavailable: 'message cannot be read now, try again later',
  messageDamaged: 'message is damaged',
  messageNeedsUtf8: 'message has header fields beyond ASCII, send UTF8 first',
  nothingDeleted: 'nothing was deleted, try again later',
  sessionWasEnded: 'this session had been ended, nothing was deleted',
  shuttingDown: 'server is shutting down, try again later',
  sessionEnded: 'this session was ended by the server',
}

function sizeOf(count: number, octets: number): string {
  return `${messages(count)} (${octets} octets)`
}

function messages(count: number): string {
  return count === 1 ? '1 message' : `${count} messages`
}
