/**
 * Line ends of a message on its way in: every line ends in CRLF, as RFC 5322 §2.1 and RFC 1939 §3
 * want it, wherever the sender's packets were cut. Everything else stays as it came, octet for
 * octet.
 *
 * - A bare LF ends a line (files and careless senders mean it so) and becomes CRLF.
 * - A bare CR is content and stays: no mail program ends lines with it today, and octets that are
 *   not a line end are not ours to change. A "." after it is not at the start of a line, for us or
 *   for POP3 clients. So CR CR LF is a CR and a line end.
 * - NUL and 8-bit octets stay.
 * - A last line without a line end gets one; a message of no octets stays empty.
 */
import { CR, LF } from '../../protocol/wire/ascii.ts'

const CRLF = Buffer.from('\r\n')
const NOTHING = Buffer.alloc(0)

export class LineEnds {
  /** Last octet that came in; undefined: none yet. */
  #last: number | undefined

  /**
   * @returns the octets of this part with CRLF line ends; `chunk` itself if nothing was to change
   */
  push(chunk: Buffer): Buffer {
    if (chunk.length === 0) return chunk
    const bareCount = this.#countBare(chunk)
    const result = bareCount === 0 ? chunk : this.#insertCarriageReturns(chunk, bareCount)
    this.#last = chunk[chunk.length - 1]
    return result
  }

  /** @returns what is missing at the end: CRLF or nothing */
  end(): Buffer {
    return this.#last === undefined || this.#last === LF ? NOTHING : CRLF
  }

  #isBare(chunk: Buffer, at: number): boolean {
    return (at === 0 ? this.#last : chunk[at - 1]) !== CR
  }

  #countBare(chunk: Buffer): number {
    let count = 0
    for (let at = chunk.indexOf(LF); at !== -1; at = chunk.indexOf(LF, at + 1))
      if (this.#isBare(chunk, at)) count++
    return count
  }

  #insertCarriageReturns(chunk: Buffer, bareCount: number): Buffer {
    const result = Buffer.allocUnsafe(chunk.length + bareCount)
    let from = 0
    let used = 0
    for (let at = chunk.indexOf(LF); at !== -1; at = chunk.indexOf(LF, at + 1)) {
      if (!this.#isBare(chunk, at)) continue
      used += chunk.copy(result, used, from, at)
      result[used++] = CR
      from = at
    }
    chunk.copy(result, used, from)
    return result
  }
}
