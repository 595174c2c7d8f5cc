/**
 * PostgreSQL's binary formats to values, for the few types that the hot statements return, and the
 * arrays that they take. Each decoder takes one field of a raw row; null is the caller's case.
 */
import { assert } from '../../base/assert.ts'
import type { RawRow } from './raw-connection.ts'

/** The field at `index`, which the statement never returns as null. */
export function present(row: RawRow, index: number): Buffer {
  const field = row[index]
  assert(field, `column ${index} has a value`)
  return field
}

export function decodeInt4(field: Buffer): number {
  return field.readInt32BE(0)
}

/** Ids, octets and counts stay below 2^53; the assert says so. */
export function decodeInt8(field: Buffer): number {
  const value = field.readInt32BE(0) * 0x1_0000_0000 + field.readUInt32BE(4)
  assert(Number.isSafeInteger(value), 'a bigint column fits a number')
  return value
}

export function decodeBoolean(field: Buffer): boolean {
  return field[0] === 1
}

export function decodeText(field: Buffer): string {
  return field.toString('utf8')
}

export function decodeUuid(field: Buffer): string {
  const hex = field.toString('hex')
  const groups = [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20)]
  return `${groups.join('-')}-${hex.slice(20)}`
}

/** @returns a PostgreSQL array literal of whole numbers, e.g. `{1,2,3}` */
export function encodeNumbers(numbers: Iterable<number>): string {
  return `{${[...numbers].join(',')}}`
}

const ARRAY_HEADER_OCTETS = 20
const OID_BYTEA = 17

/** @returns a bytea[] in PostgreSQL's binary format: as text every octet would be sent as two */
export function encodeOctets(elements: readonly (Buffer | null)[]): Buffer {
  const octets = elements.reduce((sum, element) => sum + 4 + (element?.length ?? 0), 0)
  const array = Buffer.allocUnsafe(ARRAY_HEADER_OCTETS + octets)
  // Dimensions, whether there are nulls, type of the elements, their number, the first one's index.
  const header = [1, elements.includes(null) ? 1 : 0, OID_BYTEA, elements.length, 1]
  let at = 0
  for (const word of header) at = array.writeInt32BE(word, at)
  for (const element of elements) {
    at = array.writeInt32BE(element?.length ?? -1, at)
    if (element !== null) at += element.copy(array, at)
  }
  return array
}
