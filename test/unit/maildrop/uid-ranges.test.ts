/** A set of uids as ranges: exact until there are too many ranges, and never a uid too few. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { UidRanges } from '../../../src/mail/maildrop/uid-ranges.ts'

/** Ranges as [first, last]. */
const rangesOf = (text: string): [number, number][] =>
  [...text.matchAll(/\[(\d+),(\d+)\]/g)].map(([, first, last]) => [Number(first), Number(last)])

const uidsOf = (text: string): number[] =>
  rangesOf(text).flatMap(([first, last]) =>
    Array.from({ length: last - first + 1 }, (_, nth) => first + nth),
  )

test('what is fetched one after the other is one range, whichever way', () => {
  expect(UidRanges.of([1, 2, 3]).toText()).toBe('{[1,3]}')
  expect(UidRanges.of([3, 2, 1]).toText()).toBe('{[1,3]}')
  expect(UidRanges.of([1, 3, 2]).toText()).toBe('{[1,3]}')
  expect(UidRanges.of([]).toText()).toBe('{}')
})

test('holds exactly what was added, and counts each once', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 300 })), (uids) => {
      const ranges = UidRanges.of(uids)
      const expected = [...new Set(uids)].sort((a, b) => a - b)
      expect(uidsOf(ranges.toText())).toEqual(expected)
      expect(ranges.count).toBe(expected.length)
    }),
  )
})

test('of too many ranges those with the smallest gaps are joined', () => {
  const far = Array.from({ length: 400 }, (_, nth) => 1 + 100 * nth)
  const near = Array.from({ length: 5_000 }, (_, nth) => 100_000 + 2 * nth)
  for (const uids of [[...near, ...far], [...far, ...near].reverse()]) {
    const ranges = UidRanges.of(uids)
    const found = rangesOf(ranges.toText())
    expect(found.length).toBeLessThanOrEqual(1_000)
    expect(found.slice(0, 400)).toEqual(far.map((uid) => [uid, uid]))
    const held = new Set(uidsOf(ranges.toText()))
    expect(uids.filter((uid) => !held.has(uid))).toEqual([])
    expect(held.size).toBeGreaterThan(ranges.count)
  }
})
