/**
 * Cuts what a peer sends into lines, with a bound on everything. Octets come in anywhere cut;
 * whole lines go out, without their line end. A line above the limit is reported once, as soon as
 * the limit is passed, and then skipped to its end without being kept.
 *
 * LENIENT: a bare LF ends a line like CRLF. Hand-typed sessions and scripts send it, and unlike in
 * SMTP nothing is relayed that two parsers could cut differently. A bare CR ends nothing; it stays
 * in the line, where the parser refuses it.
 */
import { assert } from '../../base/assert.ts'
import { CR, LF } from './ascii.ts'

/**
 * LIMIT: above this much unread input the owner should stop reading from the socket. More than the
 * longest line, or it would never end.
 */
const FULL_OCTETS = 32_768
/** LIMIT: an owner that goes on reading regardless is broken. */
const HELD_MAX_OCTETS = 1_048_576
const EMPTY = Buffer.alloc(0)

export class LineBuffer {
  #held: Buffer = EMPTY
  #offset = 0
  #isSkipping = false

  /** Octets held that no `take()` has consumed yet. */
  get heldOctets(): number {
    return this.#held.length - this.#offset
  }

  get isFull(): boolean {
    return this.heldOctets >= FULL_OCTETS
  }

  /** Keeps `chunk` without copying it where it can, so its owner must not write to it again. */
  push(chunk: Buffer): void {
    if (this.heldOctets === 0) this.#held = chunk
    else this.#held = Buffer.concat([this.#held.subarray(this.#offset), chunk])
    this.#offset = 0
    assert(this.#held.length <= HELD_MAX_OCTETS, 'the owner stops reading when the buffer is full')
  }

  /** What is there of the next line, and behind it: enough to tell how long it may become. */
  peek(): Buffer {
    return this.#isSkipping && !this.#skip() ? EMPTY : this.#held.subarray(this.#offset)
  }

  /**
   * The next line without its line end; undefined: more octets are needed. A line that is too long
   * comes out as its first `lineMaxOctets` octets, a length that no accepted line has, since those
   * lost at least their LF.
   * @param lineMaxOctets the longest line accepted, its line end included; the same until the line
   *   is there, however it is cut
   */
  take(lineMaxOctets: number): Buffer | undefined {
    if (this.#isSkipping && !this.#skip()) return undefined
    const start = this.#offset
    const end = this.#held.indexOf(LF, start)
    const lineOctets = (end === -1 ? this.#held.length : end + 1) - start
    if (lineOctets > lineMaxOctets || (end === -1 && lineOctets === lineMaxOctets)) {
      this.#isSkipping = true
      this.#offset = start + lineMaxOctets
      return this.#held.subarray(start, this.#offset)
    }
    if (end === -1) {
      this.#releaseChunk()
      return undefined
    }
    this.#offset = end + 1
    const isCrlf = end > start && this.#held[end - 1] === CR
    return this.#held.subarray(start, isCrlf ? end - 1 : end)
  }

  /** Drops the rest of a line that was too long; false: its end has not come yet. */
  #skip(): boolean {
    const end = this.#held.indexOf(LF, this.#offset)
    if (end === -1) {
      this.#held = EMPTY
      this.#offset = 0
      return false
    }
    this.#offset = end + 1
    this.#isSkipping = false
    return true
  }

  /** A few octets of an unfinished line must not keep a whole chunk from the socket alive. */
  #releaseChunk(): void {
    if (this.#offset === 0) return
    const rest = this.#held.subarray(this.#offset)
    this.#held = rest.length === 0 ? EMPTY : Buffer.from(rest)
    this.#offset = 0
  }
}
