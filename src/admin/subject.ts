/**
 * The Subject of a message for a list: unfolded, encoded words (RFC 2047) decoded as far as they
 * are well formed. It is for the eye only; what comes out may hold any character.
 */
const FIELD = /(?:^|\n)subject:([^\n]*(?:\n[ \t][^\n]*)*)/i
const ENCODED_WORD = /=\?([^?\s]{1,40})\?([bq])\?([^?\s]*)\?=/gi

/** @param head the start of a message */
export function readSubject(head: Buffer): string {
  const text = head.toString('utf8').replaceAll('\r\n', '\n')
  const end = text.indexOf('\n\n')
  const field = FIELD.exec(end < 0 ? text : text.slice(0, end + 1))?.[1] ?? ''
  // White space between two encoded words is not part of the text (RFC 2047 §6.2).
  const joined = field.replace(/\n[ \t]/g, ' ').replace(/\?=\s+=\?/g, '?==?')
  return joined.replace(ENCODED_WORD, decodeWord).trim()
}

function decodeWord(word: string, charset: string, encoding: string, encoded: string): string {
  const octets =
    encoding.toLowerCase() === 'b' ? Buffer.from(encoded, 'base64') : decodeQuoted(encoded)
  try {
    return new TextDecoder(charset.replace(/\*.*$/, '')).decode(octets)
  } catch {
    return word // no such charset here
  }
}

function decodeQuoted(encoded: string): Buffer {
  const text = encoded
    .replaceAll('_', ' ')
    .replace(/=([0-9A-Fa-f]{2})/g, (_, hex: string) =>
      String.fromCharCode(Number.parseInt(hex, 16)),
    )
  return Buffer.from(text, 'latin1')
}
