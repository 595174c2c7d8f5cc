/**
 * Byte-stuffing of multi-line replies, RFC 1939 §3: a line that begins with "." gets another one,
 * and CRLF "." CRLF ends the reply. Message octets go in, cut anywhere; they are copied, with the
 * added dots, to where the reply is gathered. Where there is no dot at all, as in most of what is
 * sent as base64, that is one search and one copy.
 *
 * Delivery guarantees that a stored message has CRLF line ends and ends in CRLF. That is what makes
 * the size in LIST equal to the octets a client has after unstuffing; this room only keeps the
 * reply well-formed if a message should break the promise.
 */
import { CR, DOT, LF } from './ascii.ts'

/**
 * A dot after a bare LF is stuffed too. Stored mail has none, but if one came in by a way around
 * delivery, a client that takes LF for a line end would see ".": the reply would end early and the
 * rest of the mail be read as our replies. One dot too many for a strict client is the lesser evil.
 * A dot after a bare CR is left alone: no client known to us ends a line there.
 */
const LF_DOT = Buffer.from('\n.', 'latin1')
const END = Buffer.from('.\r\n', 'latin1')
const END_AFTER_OPEN_LINE = Buffer.from('\r\n.\r\n', 'latin1')

/** LIMIT: searches in one part; octet by octet, very many such lines cost less. */
const SEARCHES_MAX = 64

/** @returns what so many octets of a message may become */
export function stuffedMax(octets: number): number {
  // No line that begins with a dot is shorter than two octets with the line end before it.
  return octets + ((octets + 1) >> 1)
}

export class DotStuffer {
  // Before the first octet we stand behind the CRLF of the status line.
  #beforeLast = CR
  #last = LF

  /**
   * @param part of the message, the next
   * @param target with room for `stuffedMax(part.length)` from `at` on
   * @returns where it ends there
   */
  stuff(part: Buffer, target: Buffer, at: number): number {
    if (part.length === 0) return at
    let end = at
    if (this.#last === LF && part[0] === DOT) target[end++] = DOT
    this.#beforeLast = part.length > 1 ? (part[part.length - 2] as number) : this.#last
    this.#last = part[part.length - 1] as number
    let start = 0
    for (let searches = 0; searches < SEARCHES_MAX; searches++) {
      const lf = findLineWithDot(part, start)
      if (lf === -1) return end + part.copy(target, end, start)
      end += part.copy(target, end, start, lf + 1)
      target[end++] = DOT
      start = lf + 1
    }
    return copyStuffed(part, start, target, end)
  }

  /** @returns the end of the reply, always in one piece: clients have hung on a split one */
  finish(): Buffer {
    const isLineClosed = this.#last === LF && this.#beforeLast === CR
    return isLineClosed ? END : END_AFTER_OPEN_LINE
  }
}

/** @returns where the line end before it is, or -1 */
function findLineWithDot(part: Buffer, from: number): number {
  const dot = part.indexOf(DOT, from + 1)
  return dot === -1 ? -1 : part.indexOf(LF_DOT, dot - 1)
}

/** @param from where a dot is stuffed already, if it has to be */
function copyStuffed(part: Buffer, from: number, target: Buffer, at: number): number {
  let end = at
  let before = 0
  for (let index = from; index < part.length; index++) {
    const octet = part[index] as number
    if (octet === DOT && before === LF) target[end++] = DOT
    target[end++] = octet
    before = octet
  }
  return end
}
