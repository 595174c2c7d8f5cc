import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { LineEnds } from '../../../src/mail/delivery/line-ends.ts'
import { toStored } from '../../support/lmtp.ts'

function normalize(...parts: string[]): string {
  const lineEnds = new LineEnds()
  const results = parts.map((part) => lineEnds.push(Buffer.from(part, 'latin1')))
  return Buffer.concat([...results, lineEnds.end()]).toString('latin1')
}

describe('line ends of a message on its way in', () => {
  test('CRLF stays, a bare LF becomes CRLF', () => {
    expect(normalize('a\r\nb\nc\r\n\nd\n')).toBe('a\r\nb\r\nc\r\n\r\nd\r\n')
  })

  test('a CRLF cut in two is one line end', () => {
    expect(normalize('a\r', '\nb\r', '', '\n')).toBe('a\r\nb\r\n')
  })

  test('a bare CR is content, also before a CRLF and at the end', () => {
    expect(normalize('a\rb\r\r\nc\r')).toBe('a\rb\r\r\nc\r\r\n')
  })

  test('a last line without line end gets one, no octets stay none', () => {
    expect(normalize('a')).toBe('a\r\n')
    expect(normalize('')).toBe('')
    expect(normalize('', '')).toBe('')
  })

  test('NUL and 8-bit octets stay', () => {
    expect(normalize('\x00\xff\x80\n')).toBe('\x00\xff\x80\r\n')
  })

  test('what needs no change is not copied', () => {
    const chunk = Buffer.from('a\r\nb\r\n')
    expect(new LineEnds().push(chunk)).toBe(chunk)
  })

  test('at whatever places the message is cut, the result is that of the whole', () => {
    const octet = fc.oneof(
      { weight: 3, arbitrary: fc.constantFrom(0x0d, 0x0a, 0x2e) },
      fc.integer({ min: 0, max: 255 }),
    )
    const part = fc.array(octet, { maxLength: 12 }).map((octets) => Buffer.from(octets))
    fc.assert(
      fc.property(fc.array(part, { maxLength: 12 }), (parts) => {
        const lineEnds = new LineEnds()
        const result = Buffer.concat([...parts.map((p) => lineEnds.push(p)), lineEnds.end()])
        expect(result.toString('latin1')).toBe(toStored(Buffer.concat(parts)).toString('latin1'))
      }),
      { numRuns: 2_000 },
    )
  })
})
