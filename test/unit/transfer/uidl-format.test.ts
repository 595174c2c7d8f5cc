/** Unique-ids as Dovecot forms them. */
import { expect, test } from 'vitest'
import { parseUidlFormat } from '../../../src/cli/formats/uidl-format.ts'

const PARTS = { uid: 26, uidValidity: 1_234_567_890, filename: '1.M2P3.host', guid: 'abc' }

test.each([
  ['%08Xu%08Xv', '0000001a499602d2'],
  ['%v.%u', '1234567890.26'],
  ['%u', '26'],
  ['%Xu', '1a'],
  ['%5u', '   26'],
  ['%f', '1.M2P3.host'],
  ['%g', 'abc'],
  ['UID%u-%v', 'UID26-1234567890'],
  ['%%%u', '%26'],
  ['%{uid | hex(8)}%{uidvalidity | hex(8)}', '0000001a499602d2'],
  ['%{uidvalidity}.%{uid}', '1234567890.26'],
  ['%{ filename }', '1.M2P3.host'],
])('%s', (format, uniqueId) => {
  expect(parseUidlFormat(format)(PARTS)).toBe(uniqueId)
})

test.each(['%m', '%', 'constant', '%{md5}', '%%', '%{uid | upper}'])('%s is refused', (format) => {
  expect(() => parseUidlFormat(format)).toThrow(/unique-id format/)
})

test('what a source does not know is told', () => {
  expect(() => parseUidlFormat('%f')({ uid: 1, uidValidity: 2 })).toThrow('knows no filename')
})
