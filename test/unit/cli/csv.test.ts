/** RFC 4180, cut anywhere; a broken record is told by its line and stops nothing. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type CsvRecord, readCsv } from '../../../src/cli/csv.ts'

async function* inPieces(text: string, length: number): AsyncGenerator<string> {
  for (let at = 0; at < text.length; at += length) yield text.slice(at, at + length)
}

async function read(text: string, length = 3): Promise<CsvRecord[]> {
  const records: CsvRecord[] = []
  for await (const record of readCsv(inPieces(text, length))) records.push(record)
  return records
}

describe('records', () => {
  test.each([
    [
      'LF and no end at the end',
      'a,b\nc,d',
      [
        ['a', 'b'],
        ['c', 'd'],
      ],
    ],
    [
      'CRLF',
      'a,b\r\nc,d\r\n',
      [
        ['a', 'b'],
        ['c', 'd'],
      ],
    ],
    ['quotes', '"a,1","b ""x"""\n', [['a,1', 'b "x"']]],
    ['quotes before CRLF', '"a","b"\r\n"c"\r\n', [['a', 'b'], ['c']]],
    ['line ends in quotes', '"a\r\nb",c\nd\n', [['a\r\nb', 'c'], ['d']]],
    [
      'empty fields',
      ',\n"",\n',
      [
        ['', ''],
        ['', ''],
      ],
    ],
    ['blanks belong to a field', ' a , b\n', [[' a ', ' b']]],
    ['empty lines are passed over', '\na\n\r\n\nb\n', [['a'], ['b']]],
    ['a byte order mark is skipped', '\ufeffa,b\n', [['a', 'b']]],
    ['nothing', '', []],
  ])('%s', async (_, text, fields) => {
    for (const length of [1, 2, 7, 1000])
      expect(
        (await read(text, length)).map((record) => 'fields' in record && record.fields),
      ).toEqual(fields)
  })

  test('lines are counted from 1, those inside quotes too', async () => {
    const records = await read('a\n\n"b\nb\nb"\nc\n')
    expect(records.map((record) => record.line)).toEqual([1, 3, 6])
  })

  test.each([
    ['a quote inside', 'ok\na"b,c\nok\n', 2, 'quote inside'],
    ['text after a closing quote', 'ok\n"a"b\nok\n', 2, 'after a closing quote'],
    ['a quote never closed', 'ok\nok\n"a\nb\n', 3, 'never closed'],
  ])('%s is told by its line', async (_, text, line, problem) => {
    const records = await read(text)
    const broken = records.filter((record) => record.problem !== undefined)
    expect(broken).toHaveLength(1)
    expect(broken[0]).toMatchObject({ line, problem: expect.stringContaining(problem) })
    expect(records.filter((record) => record.problem === undefined).length).toBe(2)
  })

  test('a quote that swallows the file is bounded, and reading goes on after it', async () => {
    const records = await read(`a\n"${'x,y\n'.repeat(30_000)}`, 4096)
    const broken = records.findIndex((record) => record.problem !== undefined)
    expect(records[broken]).toMatchObject({ line: 2, problem: expect.stringContaining('longer') })
    expect(records.length).toBeGreaterThan(broken + 1)
  })
})

test('what is written by the rules comes back, at any cut', async () => {
  const field = fc.string({ unit: fc.constantFrom('a', 'é', '"', ',', '\n', '\r', ' ') })
  const rows = fc.array(fc.array(field, { minLength: 2, maxLength: 4 }))
  const parameters = { seed: Date.now() & 0x7fff_ffff }
  await fc.assert(
    fc.asyncProperty(rows, fc.integer({ min: 1, max: 20 }), async (wanted, length) => {
      const text = wanted
        .map((row) => row.map((value) => `"${value.replaceAll('"', '""')}"`).join(','))
        .map((line) => `${line}\r\n`)
        .join('')
      const records = await read(text, length)
      expect(records.map((record) => 'fields' in record && record.fields)).toEqual(wanted)
    }),
    parameters,
  )
})
