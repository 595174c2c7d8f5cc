/**
 * Byte-stuffing of multi-line replies, RFC 1939 §3: a line that begins with "." gets another one,
 * and CRLF "." CRLF ends the reply. Message octets go in, cut anywhere; the same octets with the
 * added dots come out as views of the input, so a chunk without such a line costs one search. A
 * chunk with very many such lines is copied: each view costs what a write to the socket costs.
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
const EXTRA_DOT = Buffer.from('.', 'latin1')
const END = Buffer.from('.\r\n', 'latin1')
const END_AFTER_OPEN_LINE = Buffer.from('\r\n.\r\n', 'latin1')

/** LIMIT: views of one chunk, two for each line that is stuffed. */
const VIEWS_MAX = 128

export class DotStuffer {
  // Before the first octet we stand behind the CRLF of the status line.
  #beforeLast = CR
  #last = LF

  /** @returns what to send for `chunk`, in order: views of it and added dots */
  push(chunk: Buffer): Buffer[] {
    if (chunk.length === 0) return []
    const pieces: Buffer[] = []
    if (this.#last === LF && chunk[0] === DOT) pieces.push(EXTRA_DOT)
    let start = 0
    while (pieces.length < VIEWS_MAX) {
      const lf = chunk.indexOf(LF_DOT, start)
      if (lf === -1) break
      pieces.push(chunk.subarray(start, lf + 1), EXTRA_DOT)
      start = lf + 1
    }
    const rest = start === 0 ? chunk : chunk.subarray(start)
    pieces.push(pieces.length < VIEWS_MAX ? rest : copyStuffed(rest))
    this.#beforeLast = chunk.length > 1 ? (chunk.at(-2) as number) : this.#last
    this.#last = chunk.at(-1) as number
    return pieces
  }

  /** @returns the end of the reply, always in one piece: clients have hung on a split one */
  finish(): Buffer {
    const isLineClosed = this.#last === LF && this.#beforeLast === CR
    return isLineClosed ? END : END_AFTER_OPEN_LINE
  }
}

/** @param rest whose first octet is stuffed already, if it has to be */
function copyStuffed(rest: Buffer): Buffer {
  // No line that begins with a dot is shorter than two octets with the line end before it.
  const stuffed = Buffer.allocUnsafe(rest.length + (rest.length >> 1))
  let length = 0
  let before = 0
  for (let at = 0; at < rest.length; at += 1) {
    const octet = rest[at] as number
    if (octet === DOT && before === LF) stuffed[length++] = DOT
    stuffed[length++] = octet
    before = octet
  }
  return stuffed.subarray(0, length)
}
