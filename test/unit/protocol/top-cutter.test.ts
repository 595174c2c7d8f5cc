import { expect, test } from 'vitest'
import { TopCutter } from '../../../src/protocol/wire/top-cutter.ts'

function topOf(chunks: readonly string[], bodyLines: number): string {
  const cutter = new TopCutter(bodyLines)
  const pieces = chunks.flatMap((chunk) => cutter.push(Buffer.from(chunk, 'latin1')))
  return Buffer.concat(pieces).toString('latin1')
}

const MESSAGE = 'A: b\r\n c\r\n\r\none\r\n\r\nthree\r\nfour'

test.each([
  ['the header and the blank line', MESSAGE, 0, 'A: b\r\n c\r\n\r\n'],
  ['one line', MESSAGE, 1, 'A: b\r\n c\r\n\r\none\r\n'],
  ['an empty line counts', MESSAGE, 2, 'A: b\r\n c\r\n\r\none\r\n\r\n'],
  ['all lines but one', MESSAGE, 3, 'A: b\r\n c\r\n\r\none\r\n\r\nthree\r\n'],
  ['a last line without end', MESSAGE, 4, MESSAGE],
  ['more lines than there are', MESSAGE, 5, MESSAGE],
  ['no header fields', '\r\none\r\ntwo\r\n', 1, '\r\none\r\n'],
  ['no body', 'A: b\r\n\r\n', 3, 'A: b\r\n\r\n'],
  ['no blank line', 'A: b\r\nC: d\r\n', 0, 'A: b\r\nC: d\r\n'],
  ['bare LF line ends', 'A: b\n\none\ntwo\n', 1, 'A: b\n\none\n'],
  ['a bare CR makes no blank line', 'A: b\r\n\r\r\n\r\none\r\n', 0, 'A: b\r\n\r\r\n\r\n'],
  ['one octet and a bare LF is no blank line', 'A\nB\n\none\n', 0, 'A\nB\n\n'],
  ['one octet a line is no blank line', 'A\r\nB\r\n\r\none\r\n', 0, 'A\r\nB\r\n\r\n'],
  ['an empty message', '', 1, ''],
])('%s, at every cut', (_, message, bodyLines, expected) => {
  for (let first = 0; first <= message.length; first += 1) {
    for (let second = first; second <= message.length; second += 1) {
      const cut = [message.slice(0, first), message.slice(first, second), message.slice(second)]
      expect(topOf(cut, bodyLines)).toBe(expected)
    }
  }
})

test('it says when no more of the message is needed', () => {
  const cutter = new TopCutter(1)
  cutter.push(Buffer.from('A: b\r\n\r\n'))
  expect(cutter.isDone).toBe(false)
  cutter.push(Buffer.from('one\r\n'))
  expect(cutter.isDone).toBe(true)
  expect(cutter.push(Buffer.from('two\r\n'))).toEqual([])
})
