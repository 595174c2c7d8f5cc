import { expect, test } from 'vitest'
import { Listing, NONE_IMPORTED } from '../../../src/protocol/pop3/listing.ts'

function listingOf(octets: readonly number[], hasUniqueIds = false): Listing {
  const listing = new Listing({
    messageCount: octets.length,
    octets: octets.reduce((sum, size) => sum + size, 0),
    uidPrefix: '17.',
    hasUniqueIds,
  })
  const uids = Int32Array.from(octets, (_, index) => 1000 + 3 * index)
  listing.load(uids, Int32Array.from(octets))
  return listing
}

test('marks are kept apart at every place of the bitmap', () => {
  const sizes = Array.from({ length: 70 }, (_, index) => index + 1)
  for (let number = 1; number <= sizes.length; number += 1) {
    const listing = listingOf(sizes)
    listing.markDeleted(number)
    const deleted = sizes.filter((_, index) => listing.isDeleted(index + 1))
    expect(deleted).toEqual([number])
    expect(listing.octets).toBe((70 * 71) / 2 - number)
    expect([...listing.deletedUids()]).toEqual([1000 + 3 * (number - 1)])
  }
})

test('unmarking restores counts and may be followed by new marks', () => {
  const listing = listingOf([10, 20, 30])
  listing.markDeleted(3)
  listing.markDeleted(1)
  expect([...listing.deletedUids()]).toEqual([1000, 1006])
  listing.unmarkAll()
  expect([listing.messageCount, listing.octets, listing.deletedUids().length]).toEqual([3, 60, 0])
  listing.markDeleted(1)
  expect([listing.messageCount, listing.octets]).toEqual([2, 50])
  expect(() => listing.markDeleted(1)).toThrow('present')
})

test('sums beyond 32 bits are exact', () => {
  const size = 2 ** 31 - 1
  const listing = listingOf(new Array<number>(100_000).fill(size))
  expect(listing.octets).toBe(size * 100_000)
  listing.markDeleted(1)
  expect(listing.octets).toBe(size * 99_999)
  expect(`${listing.octets}`).toMatch(/^\d+$/)
})

test('a long listing is made in pieces of bounded size', () => {
  const listing = listingOf(new Array<number>(100_000).fill(1234))
  const uniqueIds = listing.serializeUniqueIds(1, 100_000, NONE_IMPORTED)
  for (const pieces of [listing.serializeSizes(), uniqueIds]) {
    let rowCount = 0
    let text = ''
    for (const piece of pieces) {
      expect(piece.length).toBeLessThan(33_000)
      rowCount += piece.split('\r\n').length - 1
      text = piece
    }
    expect(rowCount).toBe(100_001)
    expect(text.endsWith('\r\n.\r\n')).toBe(true)
  }
})

test('imported unique-ids go before derived ones, whichever messages a page leaves out', () => {
  const listing = listingOf([10, 20, 30, 40, 50], true)
  // 999 and 1004 are of no listed message.
  const uids = Int32Array.of(999, 1003, 1004, 1006, 1012)
  const imported = { uids, uniqueIds: ['x', 'old-2', 'y', 'old-3', 'old-5'] }
  const told = (first: number, last: number) =>
    [...listing.serializeUniqueIds(first, last, imported)].join('')
  const lines = ['1 17.1000', '2 old-2', '3 old-3', '4 17.1009', '5 old-5', '.', '']
  expect(told(1, 5)).toBe(lines.join('\r\n'))
  expect(told(1, 2)).toBe('1 17.1000\r\n2 old-2\r\n')
  listing.markDeleted(3)
  listing.markDeleted(5)
  expect(told(3, 5)).toBe('4 17.1009\r\n.\r\n')
  expect(told(3, 3)).toBe('')
})

test('an empty maildrop needs no loading', () => {
  const listing = new Listing({ messageCount: 0, octets: 0, uidPrefix: '17.', hasUniqueIds: false })
  expect(listing.isLoaded).toBe(true)
  expect([...listing.serializeSizes()]).toEqual(['.\r\n'])
})

test('should the counters be wrong, the loaded list counts', () => {
  const listing = new Listing({ messageCount: 9, octets: 9, uidPrefix: '17.', hasUniqueIds: false })
  expect(listing.isLoaded).toBe(false)
  listing.load(Int32Array.of(4, 7), Int32Array.of(100, 50))
  expect([listing.messageCount, listing.octets, listing.total]).toEqual([2, 150, 2])
})
