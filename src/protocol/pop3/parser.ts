/**
 * A command line to a verb and arguments, RFC 1939 §3 and RFC 2449 §4. Octets in, values or
 * `MALFORMED` out; nothing is thrown and nothing is remembered. No regular expressions and few
 * strings: a RETR parses without making any.
 *
 * Exactly one space stands between keyword and arguments (RFC 1939 §3). LENIENT: spaces at the end
 * of the line are dropped, except in PASS, where every octet counts. Spaces before the keyword and
 * extra arguments are refused.
 */
import { isUtf8 } from 'node:buffer'
import { CR, EQUALS, NUL, SPACE } from '../wire/ascii.ts'

export const MALFORMED: unique symbol = Symbol('malformed')
export type Malformed = typeof MALFORMED

/** RFC 5034 §4: what AUTH begins an exchange with. */
export interface MechanismAndResponse {
  /** In upper case, as mechanisms are registered; whether there is such a one is not known yet. */
  mechanism: string
  /** undefined: none came; of no octets: "=" came. */
  initialResponse: Buffer | undefined
}

/** What each shape of arguments is parsed to. */
export interface Arguments {
  none: undefined
  name: string
  /** Everything after the space that follows PASS, as it came. */
  password: Buffer
  /** The digest in lower case. */
  nameAndDigest: { name: string; digest: string }
  mechanism: MechanismAndResponse | undefined
  /** Zero and numbers without a message are parsed; the check refuses them. */
  number: number
  optionalNumber: number | undefined
  optionalName: string | undefined
  numberAndLines: { number: number; bodyLines: number }
}
export type Shape = keyof Arguments

type ArgumentParsers = { [S in Shape]: (line: Buffer, start: number) => Arguments[S] | Malformed }

/** LIMIT: larger numbers are all as good as this one; a message or maildrop has fewer lines. */
const NUMBER_MAX = Number.MAX_SAFE_INTEGER
const DIGEST_LENGTH = 32

/** A keyword of 3 or 4 letters of any case packed into one number, 0 for anything else. */
export function verbKey(line: Buffer): number {
  const length = verbLength(line)
  if (length !== 3 && length !== 4) return 0
  let key = 0
  // Bit 5 is what tells a letter from its other case. A digit (UTF8) has it, and shares it with a
  // control character; a line with one of those is refused anyway.
  for (let index = 0; index < length; index += 1) {
    key = (key << 8) | (line[index] as number) | 0x20
  }
  return key
}

/**
 * @param start where the verb ends
 * @returns the arguments after it, or MALFORMED: wrong count, spelling or separation
 */
export function parseArguments<S extends Shape>(
  shape: S,
  line: Buffer,
  start: number,
): Arguments[S] | Malformed {
  return PARSERS[shape](line, start)
}

/**
 * Base64 as RFC 4648 §4 has it: nothing but its alphabet, padded, no stray bits in the end.
 * @returns new octets, no view of the line
 */
export function parseBase64(line: Buffer, start = 0, end = line.length): Buffer | Malformed {
  const text = line.toString('latin1', start, end)
  const octets = Buffer.from(text, 'base64')
  return octets.toString('base64') === text ? octets : MALFORMED
}

/** Whether C0 control characters or DEL are in the line; legal nowhere but in a password. */
export function hasControlCharacters(line: Buffer): boolean {
  for (let index = 0; index < line.length; index += 1) {
    const octet = line[index] as number
    if (octet < SPACE || octet === 0x7f) return true
  }
  return false
}

function verbLength(line: Buffer): number {
  const limit = Math.min(line.length, 5)
  let length = 0
  while (length < limit && line[length] !== SPACE) length += 1
  return length
}

const PARSERS: ArgumentParsers = {
  none: (line, start) => (trimmedEnd(line, start) === start ? undefined : MALFORMED),

  name: (line, start) => parseName(line, start + 1, trimmedEnd(line, start)),

  password: (line, start) => {
    // A NUL would cut the password short in bcrypt, a CR is a line end gone wrong.
    const password = line.subarray(start + 1)
    if (password.length === 0 || password.includes(NUL) || password.includes(CR)) return MALFORMED
    return password
  },

  nameAndDigest: (line, start) => {
    const end = trimmedEnd(line, start)
    const space = line.indexOf(SPACE, start + 1)
    if (space === -1) return MALFORMED
    const name = parseName(line, start + 1, space)
    const digest = line.toString('latin1', space + 1, end).toLowerCase()
    if (name === MALFORMED || digest.length !== DIGEST_LENGTH || !isHex(digest)) return MALFORMED
    return { name, digest }
  },

  mechanism: (line, start) => {
    const end = trimmedEnd(line, start)
    if (end === start) return undefined
    const space = line.indexOf(SPACE, start + 1)
    const mechanismEnd = space === -1 || space > end ? end : space
    if (mechanismEnd === start + 1) return MALFORMED
    const mechanism = line.toString('latin1', start + 1, mechanismEnd).toUpperCase()
    if (mechanismEnd === end) return { mechanism, initialResponse: undefined }
    const initialResponse = parseInitialResponse(line, mechanismEnd + 1, end)
    return initialResponse === MALFORMED ? MALFORMED : { mechanism, initialResponse }
  },

  number: (line, start) => parseNumber(line, start + 1, trimmedEnd(line, start)),

  optionalNumber: (line, start) => {
    const end = trimmedEnd(line, start)
    return end === start ? undefined : parseNumber(line, start + 1, end)
  },

  optionalName: (line, start) => {
    const end = trimmedEnd(line, start)
    return end === start ? undefined : parseName(line, start + 1, end)
  },

  numberAndLines: (line, start) => {
    const end = trimmedEnd(line, start)
    const space = line.indexOf(SPACE, start + 1)
    if (space === -1) return MALFORMED
    const number = parseNumber(line, start + 1, space)
    const bodyLines = parseNumber(line, space + 1, end)
    if (number === MALFORMED || bodyLines === MALFORMED) return MALFORMED
    return { number, bodyLines }
  },
}

/** RFC 5034 §4: one of no octets is written "=", so that it can be seen. */
function parseInitialResponse(line: Buffer, start: number, end: number): Buffer | Malformed {
  const isEmpty = end - start === 1 && line[start] === EQUALS
  return isEmpty ? Buffer.alloc(0) : parseBase64(line, start, end)
}

function trimmedEnd(line: Buffer, start: number): number {
  let end = line.length
  while (end > start && line[end - 1] === SPACE) end -= 1
  return end
}

/** Decimal digits, nothing else. Leading zeros are harmless and accepted. */
function parseNumber(line: Buffer, start: number, end: number): number | Malformed {
  if (start >= end) return MALFORMED
  let number = 0
  for (let index = start; index < end; index += 1) {
    const digit = (line[index] as number) - 0x30
    if (digit < 0 || digit > 9) return MALFORMED
    number = Math.min(number * 10 + digit, NUMBER_MAX)
  }
  return number
}

/**
 * LENIENT: RFC 1939 §3 allows ASCII only; addresses beyond it (RFC 6531) are taken as UTF-8,
 * without control characters of either kind.
 */
function parseName(line: Buffer, start: number, end: number): string | Malformed {
  if (start >= end) return MALFORMED
  const octets = line.subarray(start, end)
  if (octets.includes(SPACE) || !isUtf8(octets)) return MALFORMED
  const name = octets.toString('utf8')
  return hasC1Controls(name) ? MALFORMED : name
}

function hasC1Controls(name: string): boolean {
  for (let index = 0; index < name.length; index += 1) {
    const unit = name.charCodeAt(index)
    if (unit >= 0x80 && unit <= 0x9f) return true
  }
  return false
}

function isHex(text: string): boolean {
  return /^[0-9a-f]*$/.test(text)
}
