/**
 * PostgreSQL's binary formats to values, for the few types that the hot statements return, and the
 * array texts that they take. Each decoder takes one field of a raw row; null is the caller's case.
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
  return field.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

/** @returns a PostgreSQL array literal of whole numbers, e.g. `{1,2,3}` */
export function encodeNumbers(numbers: Iterable<number>): string {
  return `{${[...numbers].join(',')}}`
}
