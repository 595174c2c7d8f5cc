/**
 * The octets of a message on its way in (RFC 5321 §4.5.2): freed of the dots that the sender put
 * before lines that begin with one, up to the line that is only a dot. Only CRLF.CRLF is the end; a
 * dot after a bare LF is taken for a stuffed one as well, but never for the end.
 */
import { CR, DOT, LF } from './ascii.ts'

const LINE_WITH_DOT = Buffer.from([LF, DOT])

export interface Unstuffed {
  /** What belongs to the message. */
  content: Buffer
  /** After the end: what came behind it. Before: what cannot be told yet; the next goes behind. */
  rest: Buffer
  hasEnded: boolean
}

/** @param isFirst nothing of the message has been taken yet: a dot here begins a line */
export function unstuff(octets: Buffer, isFirst: boolean): Unstuffed {
  const parts: Buffer[] = []
  let from = 0
  // CRLF may be the line end before a dot that is still to come.
  let heldFrom = Math.max(0, octets.length - 2)
  let dot = isFirst && octets[0] === DOT ? 0 : findDot(octets, 0)
  for (; dot !== -1; dot = findDot(octets, dot)) {
    if (dot + 2 >= octets.length) {
      heldFrom = Math.max(0, dot - 2)
      break
    }
    if (isEnd(octets, dot)) {
      parts.push(octets.subarray(from, dot))
      return { content: join(parts), rest: octets.subarray(dot + 3), hasEnded: true }
    }
    if (octets[dot + 1] !== DOT) continue
    parts.push(octets.subarray(from, dot))
    from = dot + 1
  }
  heldFrom = Math.max(heldFrom, from)
  parts.push(octets.subarray(from, heldFrom))
  return { content: join(parts), rest: octets.subarray(heldFrom), hasEnded: false }
}

/** @returns where the next dot at the start of a line stands, or -1 */
function findDot(octets: Buffer, from: number): number {
  const at = octets.indexOf(LINE_WITH_DOT, from)
  return at === -1 ? -1 : at + 1
}

/** At 0 the line end before it is not the message's. */
function isEnd(octets: Buffer, dot: number): boolean {
  if (octets[dot + 1] !== CR || octets[dot + 2] !== LF) return false
  return dot === 0 || octets[dot - 2] === CR
}

function join([first, ...others]: readonly Buffer[]): Buffer {
  if (first === undefined) return Buffer.alloc(0)
  return others.length === 0 ? first : Buffer.concat([first, ...others])
}
