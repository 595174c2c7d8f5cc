/** Shared makings of the fuzz tests: places to cut, and messages full of what goes wrong. */
import fc from 'fast-check'

/** Cuts octets into chunks of the sizes given, round and round; none of them empty. */
export function cut(octets: Buffer, sizes: readonly number[]): Buffer[] {
  const chunks: Buffer[] = []
  for (let start = 0, index = 0; start < octets.length; index += 1) {
    const size = sizes[index % sizes.length] ?? octets.length
    chunks.push(octets.subarray(start, start + size))
    start += size
  }
  return chunks
}

export const cuts = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 8 })

const fragments = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom('\r\n', '.', '\r\n.', '\r\n\r\n', 'a', 'To: b') },
  { weight: 1, arbitrary: fc.constantFrom('\r', '\n', '\n.', '\0', '\xff', '..') },
)

/** Any octets at all, many of them ends of lines and dots. */
export const messages = fc
  .array(fragments, { maxLength: 60 })
  .map((pieces) => Buffer.from(pieces.join(''), 'latin1'))

/** Messages as delivery stores them: CRLF at the end of each line, and of the message. */
export const storedMessages = messages.map((octets) => {
  const text = octets.toString('latin1').replace(/\r\n|\r|\n/g, '\r\n')
  return Buffer.from(text === '' || text.endsWith('\r\n') ? text : `${text}\r\n`, 'latin1')
})
