/**
 * The header lines that final delivery puts before a message (RFC 5321 §4.4): Return-Path,
 * Delivered-To, Received. They are made for each recipient apart, so that no address of one stands
 * in the copy of another. Names and addresses that the peer gave are written only if every
 * character of them is safe there; lines are folded at 78 columns where a word allows it.
 */
import type { Recipient } from '../../storage/tenants/recipients.ts'
import { toAsciiDomain } from './recipients.ts'

/** What one transaction says about where its message came from. */
export interface Trace {
  /** Reverse-path without angle brackets; '' is the null sender. */
  sender: string
  /** What the peer called itself in LHLO. */
  heloName: string
  /** IP address of the peer; undefined: it came through a Unix socket. */
  clientAddress: string | undefined
  /** Registered "with" word (RFC 3848, RFC 6531 §4.3). */
  protocol: 'LMTP' | 'LMTPS' | 'UTF8LMTP' | 'UTF8LMTPS'
  /** This host. */
  hostname: string
  /** Atom that the log shows too. */
  transactionId: string
  receivedAt: Date
}

/** What could end a line or the brackets of a path, or hide in it. */
const UNSAFE = /[<>\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu
const UNSAFE_OR_BLANK = /[\s<>\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu

const LINE_MAX_COLUMNS = 78
const FOLD = '\r\n    '

/**
 * @param forwardPath the recipient's address as the peer gave it
 * @returns the prefix of this recipient's copy, ending in CRLF
 */
export function serializeTraceHeaders(
  trace: Trace,
  recipient: Recipient,
  forwardPath: string,
): Buffer {
  const headers = [
    fold(['Return-Path:', `<${serializePath(trace.sender)}>`]),
    fold(['Delivered-To:', `${recipient.localPart}@${recipient.domainName}`]),
    fold(['Received:', ...receivedWords(trace, forwardPath)]),
  ]
  return Buffer.from(headers.map((header) => `${header}\r\n`).join(''), 'utf8')
}

/** RFC 5321 §4.4 Stamp; each string stays on one line. */
function receivedWords(trace: Trace, forwardPath: string): string[] {
  const { clientAddress } = trace
  return [
    ...['from', serializeHeloName(trace.heloName)],
    ...(clientAddress === undefined ? [] : [`(${addressLiteral(clientAddress)})`]),
    ...['by', trace.hostname],
    ...['with', trace.protocol],
    ...['id', trace.transactionId],
    ...['for', `<${serializePath(forwardPath)}>;`],
    formatDate(trace.receivedAt),
  ]
}

/** RFC 5321 §4.1.3. */
function addressLiteral(address: string): string {
  return address.includes(':') ? `[IPv6:${address}]` : `[${address}]`
}

/** A domain or an address literal as it came; anything else is not repeated. */
function serializeHeloName(name: string): string {
  return /^([A-Za-z0-9._-]{1,255}|\[[A-Za-z0-9.:-]{1,60}\])$/.test(name) ? name : 'unknown'
}

/**
 * An address between angle brackets: no control character, no bracket of its own, no blank outside
 * quotes. Where the domain has an ASCII form it is written so.
 */
function serializePath(address: string): string {
  const at = address.lastIndexOf('@')
  const domain = address.slice(at + 1)
  const path = at < 0 ? address : `${address.slice(0, at)}@${toAsciiDomain(domain) || domain}`
  return path.replace(path.startsWith('"') ? UNSAFE : UNSAFE_OR_BLANK, '')
}

function fold(words: readonly string[]): string {
  let text = words[0] ?? ''
  let column = text.length
  for (const word of words.slice(1)) {
    const fits = column + 1 + word.length <= LINE_MAX_COLUMNS
    text += fits ? ` ${word}` : `${FOLD}${word}`
    column = fits ? column + 1 + word.length : FOLD.length - 2 + word.length
  }
  return text
}

/** RFC 5322 §3.3 date-time, in UTC. */
function formatDate(date: Date): string {
  return date.toUTCString().replace('GMT', '+0000')
}
