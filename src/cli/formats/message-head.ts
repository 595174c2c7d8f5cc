/**
 * Whether a file begins like a message, so that a photo or a list named by mistake does not become
 * mail. A guess that is kind to messages: one header field within the first lines is enough, and
 * after the header anything may come. A field's name and colon must be followed by a blank or the
 * end of the line, as programs write them: `root:x:0:0` is no field.
 */

/** LIMIT: as much of a file is looked at. */
export const HEAD_OCTETS = 4_096
/** LIMIT: so many lines. Above the first field may stand blank lines, or what some program left. */
const LINES_MAX = 10

const HEADER_FIELD = /^[A-Za-z][!-9;-~]*[ \t]*:(?:[ \t]|$)/

/** @param head the first octets of the file, as latin1 */
export function beginsLikeMessage(head: string): boolean {
  const header = head.replace(/^\xef\xbb\xbf/, '').replace(/^[\r\n]+/, '')
  const lines = header.split(/\r?\n/, LINES_MAX)
  const end = lines.indexOf('')
  const first = end < 0 ? lines : lines.slice(0, end)
  return first.some((line) => HEADER_FIELD.test(line)) && !first.join('').includes('\0')
}
