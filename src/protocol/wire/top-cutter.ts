/**
 * What TOP sends of a message, RFC 1939 §7: the header fields, the blank line, and the first lines
 * of the body. Message octets go in, cut anywhere; their beginning comes out as views of the input,
 * so that TOP is always a prefix of RETR. Dot-stuffing comes after it.
 *
 * A message without a blank line is all header and passes whole, and so does one whose body has no
 * more lines than asked for.
 */
import { CR, LF } from './ascii.ts'

export class TopCutter {
  #linesLeft: number
  #isInHeader = true
  /** Octets of the current line so far, as far as it matters for being blank. */
  #lineSoFar: 'nothing' | 'cr' | 'text' = 'nothing'

  /** @param bodyLines lines of the body to let pass; 0: only the header and the blank line */
  constructor(bodyLines: number) {
    this.#linesLeft = bodyLines
  }

  /** Whether everything asked for has passed; the rest of the message need not be read. */
  get isDone(): boolean {
    return !this.#isInHeader && this.#linesLeft === 0
  }

  /** @returns the part of `chunk` that belongs to the top: none, or one view */
  push(chunk: Buffer): Buffer[] {
    let end = 0
    while (!this.isDone && end < chunk.length) {
      const lf = chunk.indexOf(LF, end)
      if (this.#isInHeader) this.#passHeaderLine(chunk, end, lf)
      else if (lf !== -1) this.#linesLeft -= 1
      end = lf === -1 ? chunk.length : lf + 1
    }
    if (end === 0) return []
    return [end === chunk.length ? chunk : chunk.subarray(0, end)]
  }

  #passHeaderLine(chunk: Buffer, start: number, lf: number): void {
    const end = lf === -1 ? chunk.length : lf
    const octets = end - start
    if (octets > 1 || (octets === 1 && (this.#lineSoFar !== 'nothing' || chunk[start] !== CR))) {
      this.#lineSoFar = 'text'
    } else if (octets === 1) {
      this.#lineSoFar = 'cr'
    }
    if (lf === -1) return
    if (this.#lineSoFar !== 'text') this.#isInHeader = false
    this.#lineSoFar = 'nothing'
  }
}
