/** Tables, fields and JSON: aligned, and harmless on a terminal whatever the text is. */
import { describe, expect, test } from 'vitest'
import {
  formatFields,
  formatJson,
  formatMoment,
  formatTable,
  harmlessLine,
  harmlessText,
} from '../../../src/cli/output.ts'

describe('what could steer a terminal', () => {
  const steering = [
    ['escape sequences', '\x1b[2J\x1b]0;title\x07'],
    ['8-bit controls', '\u009b31m'],
    ['line ends', 'a\r\nb\u2028c'],
    ['reordering marks', 'abc\u202egpj.exe'],
    ['hidden characters', 'a\u200bb\ufeffc\u00add\u{e0041}'],
  ] as const

  test.each(steering)('%s are shown as escapes in a line', (_, text) => {
    expect(harmlessLine(text)).toMatch(/^[\x20-\x7e]*$/)
    expect(harmlessLine(text)).toContain('\\')
  })

  test.each(steering)('%s leave JSON harmless, and it still parses to the same', (_, text) => {
    const json = formatJson({ text })
    expect(json).toMatch(/^[\x20-\x7e\n]*$/)
    expect(JSON.parse(json)).toEqual({ text })
  })

  test('letters of any script stay', () => {
    expect(harmlessLine('Grüße, 日本語, привет')).toBe('Grüße, 日本語, привет')
  })

  test('text keeps its lines and tabs', () => {
    expect(harmlessText('a\tb\r\nc\rd\x1b\n')).toBe('a\tb\nc\\x0dd\\x1b\n')
  })
})

describe('tables', () => {
  interface Row {
    name: string
    count: number
  }
  const columns = [
    { title: 'NAME', cell: (row: Row) => row.name },
    { title: 'COUNT', cell: (row: Row) => row.count, isRight: true },
    { title: 'END', cell: () => '' },
  ]

  test('columns begin at the same place in every line', () => {
    const rows = [
      { name: 'a', count: 1 },
      { name: 'Grüße\x1b', count: 12_345_678 },
    ]
    const lines = formatTable(columns, rows).split('\n')
    expect(lines).toEqual([
      'NAME          COUNT  END',
      'a                 1',
      'Grüße\\x1b  12345678',
      '',
    ])
  })

  test('without rows there is the head, so that a script sees what it asked', () => {
    expect(formatTable(columns, [])).toBe('NAME  COUNT  END\n')
  })

  test('fields are aligned', () => {
    expect(formatFields({ a: 1, 'longer name': 'x\n' })).toBe(
      'a            1\nlonger name  x\\x0a\n',
    )
  })

  test('a moment is in UTC to the second', () => {
    expect(formatMoment(new Date(Date.UTC(2026, 4, 1, 23, 59, 58, 999)))).toBe(
      '2026-05-01 23:59:58Z',
    )
    expect(formatMoment(undefined)).toBe('-')
  })
})
