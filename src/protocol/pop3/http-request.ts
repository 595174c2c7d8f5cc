/**
 * Recognises HTTP on our port. A browser can be made to POST to any port, with POP3 commands in the
 * body, and the answer may be taken for a page of that host (the ALPACA family of attacks); so a
 * first line that is a request line ends the connection without a word.
 */
import { SPACE } from '../wire/ascii.ts'

/** RFC 9110 §9, RFC 5789, and the first word of HTTP/2. None of them is a POP3 command. */
const METHODS: ReadonlySet<string> = new Set([
  'GET',
  'HEAD',
  'POST',
  'PUT',
  'DELETE',
  'CONNECT',
  'OPTIONS',
  'TRACE',
  'PATCH',
  'PRI',
])

/** @param line the peer's first line, or the beginning of one that is too long */
export function isHttpRequest(line: Buffer): boolean {
  const end = line.indexOf(SPACE)
  return end > 0 && METHODS.has(line.toString('latin1', 0, end))
}
