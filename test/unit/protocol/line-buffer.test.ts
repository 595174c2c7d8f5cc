import { expect, test } from 'vitest'
import { LineBuffer } from '../../../src/protocol/wire/line-buffer.ts'

const LIMIT = 16

function linesOf(chunks: readonly string[]): string[] {
  const buffer = new LineBuffer()
  const lines: string[] = []
  for (const chunk of chunks) {
    buffer.push(Buffer.from(chunk, 'latin1'))
    for (let line = buffer.take(LIMIT); line !== undefined; line = buffer.take(LIMIT)) {
      lines.push(line.toString('latin1'))
    }
  }
  return lines
}

test('line ends are taken off: CRLF, a bare LF, and no more than one CR', () => {
  expect(linesOf(['a\r\nb\nc\r\r\n\r\n\n'])).toEqual(['a', 'b', 'c\r', '', ''])
})

test('every cut gives the same lines', () => {
  const text = `one\r\n${'x'.repeat(14)}\r\n${'y'.repeat(40)}\r\ntwo\n${'z'.repeat(15)}\nthree\r\n`
  const whole = linesOf([text])
  expect(whole).toEqual(['one', 'x'.repeat(14), 'y'.repeat(LIMIT), 'two', 'z'.repeat(15), 'three'])
  for (let first = 0; first <= text.length; first += 1) {
    for (let second = first; second <= text.length; second += 1) {
      const cut = [text.slice(0, first), text.slice(first, second), text.slice(second)]
      expect(linesOf(cut)).toEqual(whole)
    }
  }
})

test('the limit counts the line end', () => {
  expect(linesOf([`${'a'.repeat(14)}\r\n`])).toEqual(['a'.repeat(14)])
  expect(linesOf([`${'a'.repeat(15)}\r\n`])).toEqual([`${'a'.repeat(15)}\r`])
  expect(linesOf([`${'a'.repeat(15)}\n`])).toEqual(['a'.repeat(15)])
  expect(linesOf([`${'a'.repeat(16)}\n`])).toEqual(['a'.repeat(16)])
})

test('a line that never ends is told once and not kept', () => {
  const buffer = new LineBuffer()
  let toldCount = 0
  for (let chunk = 0; chunk < 1000; chunk += 1) {
    buffer.push(Buffer.alloc(5000, 'a'))
    while (buffer.take(LIMIT) !== undefined) toldCount += 1
    expect(buffer.heldOctets).toBe(0)
  }
  expect(toldCount).toBe(1)
})

test('the beginning of a line does not keep the chunk it came in alive', () => {
  const buffer = new LineBuffer()
  const chunk = Buffer.from(`${'NOOP\r\n'.repeat(10_000)}QU`)
  buffer.push(chunk)
  while (buffer.take(LIMIT) !== undefined);
  chunk.fill('!')
  buffer.push(Buffer.from('IT\r\n'))
  expect(buffer.take(LIMIT)?.toString()).toBe('QUIT')
})

test('the owner is told to stop, and an owner who does not is a bug', () => {
  const buffer = new LineBuffer()
  expect(buffer.isFull).toBe(false)
  buffer.push(Buffer.from('NOOP\r\n'.repeat(6000)))
  expect(buffer.isFull).toBe(true)
  while (buffer.take(LIMIT) !== undefined);
  expect(buffer.isFull).toBe(false)
  expect(() => {
    for (let chunk = 0; chunk < 100; chunk += 1) buffer.push(Buffer.alloc(65_536, '\n'))
  }).toThrow('stops reading')
})

test('what is there of the next line can be looked at, but not what is skipped', () => {
  const buffer = new LineBuffer()
  expect(buffer.peek().toString()).toBe('')
  buffer.push(Buffer.from('AU'))
  expect(buffer.peek().toString()).toBe('AU')
  buffer.push(Buffer.from(`TH ${'x'.repeat(40)}`))
  expect(buffer.take(LIMIT)).toHaveLength(LIMIT)
  buffer.push(Buffer.from('AUTH '))
  expect(buffer.peek().toString()).toBe('')
  buffer.push(Buffer.from('\r\nNOOP\r\n'))
  expect(buffer.peek().toString()).toBe('NOOP\r\n')
  expect(buffer.take(LIMIT)?.toString()).toBe('NOOP')
})
