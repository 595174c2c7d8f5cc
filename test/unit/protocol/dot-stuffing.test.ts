import { expect, test } from 'vitest'
import { DotStuffer } from '../../../src/protocol/wire/dot-stuffing.ts'
import { stuffed } from '../../support/stuffed.ts'

function stuff(chunks: readonly string[]): string {
  const stuffer = new DotStuffer()
  const pieces = chunks.map((chunk) => stuffed(stuffer, Buffer.from(chunk, 'latin1')))
  return Buffer.concat([...pieces, stuffer.finish()]).toString('latin1')
}

test.each([
  ['nothing to stuff', 'a\r\nb\r\n', 'a\r\nb\r\n.\r\n'],
  ['a dot at the very beginning', '.a\r\n', '..a\r\n.\r\n'],
  ['a line that is a dot', 'a\r\n.\r\nb\r\n', 'a\r\n..\r\nb\r\n.\r\n'],
  ['lines of dots', '.\r\n..\r\n...\r\n', '..\r\n...\r\n....\r\n.\r\n'],
  ['dots elsewhere', 'a.b.\r\n a .\r\n', 'a.b.\r\n a .\r\n.\r\n'],
  ['a dot after a bare LF', 'a\n.\r\n', 'a\n..\r\n.\r\n'],
  ['a dot after a bare CR stays', 'a\r.\r\n', 'a\r.\r\n.\r\n'],
  ['an empty message', '', '.\r\n'],
  ['no final line end', 'a', 'a\r\n.\r\n'],
  ['a final dot without line end', 'a\r\n.', 'a\r\n..\r\n.\r\n'],
  ['a final bare LF', 'a\n', 'a\n\r\n.\r\n'],
  ['a final bare CR', 'a\r', 'a\r\r\n.\r\n'],
])('%s, at every cut', (_, message, expected) => {
  for (let first = 0; first <= message.length; first += 1) {
    for (let second = first; second <= message.length; second += 1) {
      const cut = [message.slice(0, first), message.slice(first, second), message.slice(second)]
      expect(stuff(cut)).toBe(expected)
    }
  }
})

test('nothing is written before its place, and the octets themselves stay as they are', () => {
  const part = Buffer.from('.a\r\n.b')
  const target = Buffer.alloc(20, '#')
  expect(new DotStuffer().stuff(part, target, 3)).toBe(11)
  expect(target.toString()).toBe('###..a\r\n..b#########')
  expect(part.toString()).toBe('.a\r\n.b')
})

test.each([
  ['.\r\n', 100_000],
  ['.\n', 100_000],
  ['.a\r\n', 64],
  ['.a\r\nb\r\n', 63],
  ['a.b.c\r\n.d\r\n', 65],
])('lines of %j, %i times', (lines, count) => {
  const message = lines.repeat(count)
  for (const before of ['', 'a', 'a\r\n']) {
    const octets = stuffed(new DotStuffer(), Buffer.from(before + message))
    const expected = `${before}${message}`.replace(/(^|\n)\./g, '$1..')
    expect(octets.toString() === expected).toBe(true)
  }
})
