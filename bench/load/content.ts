/**
 * What mail there is on every server under test: the same users, the same octets, made from (user,
 * number) alone, so that the generator knows what a right reply is without asking anybody.
 *
 * Lines are random base64 (mail with attachments does not compress). Each body begins with a line
 * that has a leading dot and one that is nothing but a dot, so a server that forgets dot-stuffing
 * fails at once; further ones are as rare as in real mail.
 */
import { createHash } from 'node:crypto'

export interface Seed {
  /** Ordinary users, numbered from 1. */
  users: number
  messagesEach: number
  messageOctets: number
  /** From here on they are users whom nobody has seen when they are measured. */
  coldFrom?: number
  /** Which of the special users are made; undefined: all. */
  special?: readonly Special[]
}

export type Special = 'big' | 'large' | 'delete' | 'deliver'

export const DOMAIN = 'bench.example'
/** One for all; hashes are made once per scheme. */
export const PASSWORD = 'correct-horse-battery-staple'

export const BIG = { localPart: 'big', messages: 100_000, octets: 1_024 } as const
export const LARGE = { localPart: 'large', messages: 1, octets: 50_000_000 } as const
/** `delete-<n>`, from 1: fetched from by retr, emptied by retr-dele. */
export const DELETE = { users: 48, messages: 100, octets: 10_240 } as const
/** `deliver-<n>`, from 1: empty until mail is delivered. */
export const DELIVER = { users: 16, octets: 10_240 } as const

/** A number is an ordinary user, a text the local part of a special one. */
export type User = number | string

export interface SeededAccount {
  user: User
  localPart: string
  address: string
  messages: number
  octets: number
}

const localPartOf = (user: User): string => (typeof user === 'number' ? `u${user}` : user)
export const addressOf = (user: User): string => `${localPartOf(user)}@${DOMAIN}`
export const deleteUser = (n: number): string => `delete-${n}`
export const deliverUser = (n: number): string => `deliver-${n}`

/** Everybody who is to be made, with the number and size of their messages. */
export function* accountsOf(seed: Seed): Generator<SeededAccount> {
  const wants = (special: Special): boolean => seed.special?.includes(special) ?? true
  const account = (user: User, messages: number, octets: number): SeededAccount => ({
    user,
    localPart: localPartOf(user),
    address: addressOf(user),
    messages,
    octets,
  })
  for (let user = 1; user <= seed.users; user++)
    yield account(user, seed.messagesEach, seed.messageOctets)
  if (wants('delete'))
    for (let n = 1; n <= DELETE.users; n++)
      yield account(deleteUser(n), DELETE.messages, DELETE.octets)
  if (wants('deliver'))
    for (let n = 1; n <= DELIVER.users; n++) yield account(deliverUser(n), 0, DELIVER.octets)
  if (wants('big')) yield account(BIG.localPart, BIG.messages, BIG.octets)
  if (wants('large')) yield account(LARGE.localPart, LARGE.messages, LARGE.octets)
}

const LINE_OCTETS = 78
/** More than a megabyte: no part of a message repeats within what a server compresses at once. */
const POOL_LINES = 16_384
const DOTTED = '.begins with a dot\r\n.\r\n'
const pool = makePool()

function makePool(): Buffer {
  const octets = (POOL_LINES * (LINE_OCTETS - 2) * 3) / 4
  const random = createHash('shake256', { outputLength: octets }).update('popgres').digest()
  const text = random.toString('base64')
  const lines = Buffer.alloc(POOL_LINES * LINE_OCTETS)
  for (let line = 0; line < POOL_LINES; line++) {
    const start = line * LINE_OCTETS
    const from = line * (LINE_OCTETS - 2)
    lines.write(text.slice(from, from + LINE_OCTETS - 2), start, 'latin1')
    if (line % 1024 === 3) lines.write('.', start, 'latin1')
    if (line % 4096 === 7) lines.write('.\r\n', start, 'latin1')
    lines.write('\r\n', start + LINE_OCTETS - 2, 'latin1')
  }
  return lines
}

/** The message, CRLF lines, exactly `octets` long (at least 512). */
export function messageOf(user: User, number: number, octets: number): Buffer {
  const name = localPartOf(user)
  const start =
    `From: Sender <sender@${DOMAIN}>\r\nTo: <${name}@${DOMAIN}>\r\n` +
    `Subject: message ${number} of ${name}\r\nDate: Mon, 23 Nov 2026 08:00:00 +0000\r\n` +
    `Message-ID: <${number}.${name}@${DOMAIN}>\r\nX-Padding: `
  const padding = (octets - start.length - 4 - DOTTED.length) % LINE_OCTETS
  if (octets < 512) throw new Error('a message has 512 octets at least')
  const message = Buffer.allocUnsafe(octets)
  let end = message.write(`${start}${'x'.repeat(padding)}\r\n\r\n${DOTTED}`, 'latin1')
  let from = (hash(`${name}/${number}`) % POOL_LINES) * LINE_OCTETS
  while (end < octets) {
    end += pool.copy(message, end, from, Math.min(pool.length, from + octets - end))
    from = 0
  }
  return message
}

/** FNV-1a. */
function hash(text: string): number {
  let value = 0x811c9dc5
  for (let i = 0; i < text.length; i++)
    value = Math.imul(value ^ text.charCodeAt(i), 0x01000193) >>> 0
  return value
}

/** As a server sends it after its status line (and an LMTP client after 354): stuffed and ended. */
export function wireOf(message: Buffer): Buffer {
  const parts: Buffer[] = message[0] === DOT ? [Buffer.from('.')] : []
  let from = 0
  for (;;) {
    const at = message.indexOf('\r\n.', from, 'latin1')
    if (at < 0) break
    parts.push(message.subarray(from, at + 3))
    from = at + 2
  }
  parts.push(message.subarray(from), Buffer.from('.\r\n'))
  return Buffer.concat(parts)
}

const DOT = 0x2e
