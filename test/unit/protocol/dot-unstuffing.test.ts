import { expect, test } from 'vitest'
import { unstuff } from '../../../src/protocol/wire/dot-unstuffing.ts'

/** @returns the message, and what came behind its end; undefined: it has not ended */
function take(chunks: readonly string[]): [message: string, behind: string | undefined] {
  let message = ''
  let held = Buffer.alloc(0)
  let isFirst = true
  for (const [at, chunk] of chunks.entries()) {
    const octets = Buffer.concat([held, Buffer.from(chunk, 'latin1')])
    const { content, rest, hasEnded } = unstuff(octets, isFirst)
    message += content.toString('latin1')
    if (hasEnded) return [message, rest.toString('latin1') + chunks.slice(at + 1).join('')]
    if (rest.length < octets.length) isFirst = false
    held = Buffer.from(rest)
  }
  return [message + held.toString('latin1'), undefined]
}

test.each([
  ['nothing stuffed', 'a\r\nb\r\n.\r\n', 'a\r\nb\r\n', ''],
  ['what is behind the end', 'a\r\n.\r\nMAIL\r\n', 'a\r\n', 'MAIL\r\n'],
  ['a dot at the very beginning', '..a\r\n.\r\n', '.a\r\n', ''],
  ['an empty message', '.\r\n', '', ''],
  ['an empty line', '\r\n.\r\n', '\r\n', ''],
  ['lines of dots', '..\r\n...\r\n....\r\n.\r\n', '.\r\n..\r\n...\r\n', ''],
  ['a line that was a dot is not the end', '..\r\nRSET\r\n.\r\n', '.\r\nRSET\r\n', ''],
  ['a dot that nobody stuffed stays', '.a\r\n.b\r\n.\r\n', '.a\r\n.b\r\n', ''],
  ['a dot after a bare LF', 'a\n..b\r\n.\r\n', 'a\n.b\r\n', ''],
  ['LF.CRLF is not the end', 'a\n.\r\nb\r\n.\r\n', 'a\n.\r\nb\r\n', ''],
  ['nor CRLF.LF', 'a\r\n.\nb\r\n.\r\n', 'a\r\n.\nb\r\n', ''],
  ['nor CR.CRLF', 'a\r.\r\nb\r\n.\r\n', 'a\r.\r\nb\r\n', ''],
  ['nor CRLF.CR', 'a\r\n.\rb\r\n.\r\n', 'a\r\n.\rb\r\n', ''],
  ['nor LF.CRLF at the beginning', '\n.\r\nb\r\n.\r\n', '\n.\r\nb\r\n', ''],
  ['no end', 'a\r\n..b\r\nc', 'a\r\n.b\r\nc', undefined],
])('%s, at every cut', (_, sent, message, behind) => {
  for (let first = 0; first <= sent.length; first += 1) {
    for (let second = first; second <= sent.length; second += 1) {
      const cut = [sent.slice(0, first), sent.slice(first, second), sent.slice(second)]
      expect(take(cut)).toEqual([message, behind])
    }
  }
  expect(take([...sent])).toEqual([message, behind])
})

test('octets without a stuffed dot are not copied', () => {
  const octets = Buffer.from('abc\r\n.b\r\ncd')
  const { content } = unstuff(octets, true)
  octets.fill('!')
  expect(content.toString()).toBe('!'.repeat(octets.length - 2))
})
