/**
 * Dovecot's pop3_uidl_format, so that unique-ids can be formed as it formed them: "%08Xu%08Xv" and
 * its like (2.3 and older), "%{uid | hex(8)}%{uidvalidity | hex(8)}" (2.4). %m is not known: the
 * digest of a header comes from mbox files of very old servers.
 */
import { refused } from '../../admin/refusal.ts'

/** What there is to form a unique-id of; what a source does not have is undefined. */
interface UidlParts {
  uid: number
  uidValidity: number
  filename?: string
  guid?: string
}

export type UidlFormat = (parts: UidlParts) => string

/** Dovecot's own default. */
export const DEFAULT_UIDL_FORMAT = '%08Xu%08Xv'

const SHORT: Readonly<Record<string, keyof UidlParts>> = {
  u: 'uid',
  v: 'uidValidity',
  f: 'filename',
  g: 'guid',
}
const LONG: Readonly<Record<string, keyof UidlParts>> = {
  uid: 'uid',
  uidvalidity: 'uidValidity',
  filename: 'filename',
  guid: 'guid',
}

const OLD_VARIABLE = String.raw`(?<zero>0?)(?<width>\d*)(?<hex>X?)(?<key>[a-zA-Z])`
const NEW_VARIABLE = String.raw`\{ *(?<name>\w+) *(?:\| *hex(?:\( *(?<digits>\d*) *\))? *)?\}`
const VARIABLE = new RegExp(`%(?:%|${OLD_VARIABLE}|${NEW_VARIABLE})`, 'y')

/** @throws {Failure} OPERATION_REFUSED if it is not understood whole */
export function parseUidlFormat(format: string): UidlFormat {
  const pieces: UidlFormat[] = []
  for (let at = 0; at < format.length; ) {
    const next = format.indexOf('%', at)
    if (next !== at) {
      const literal = format.slice(at, next < 0 ? undefined : next)
      pieces.push(() => literal)
      at += literal.length
      continue
    }
    VARIABLE.lastIndex = at
    const match = VARIABLE.exec(format)
    if (match === null) throw refused(`the unique-id format ${format} is not understood`)
    pieces.push(toPiece(match, format))
    at = VARIABLE.lastIndex
  }
  if (!/%/.test(format.replaceAll('%%', '')))
    throw refused(`the unique-id format ${format} names nothing`)
  return (parts) => pieces.map((piece) => piece(parts)).join('')
}

function toPiece(match: RegExpExecArray, format: string): UidlFormat {
  const { zero = '', width = '', hex = '', key, name, digits } = match.groups ?? {}
  if (key === undefined && name === undefined) return () => '%'
  const part = key === undefined ? LONG[name ?? ''] : SHORT[key]
  if (part === undefined)
    throw refused(`the unique-id format ${format} has ${match[0]}: known are %u %v %f %g`)
  const isHex = hex !== '' || (match[0].includes('hex') && name !== undefined)
  const length = Number((name === undefined ? width : digits) || 0)
  const fill = zero !== '' || name !== undefined ? '0' : ' '
  return (parts) => {
    const value = parts[part]
    if (value === undefined) throw refused(`this source knows no ${part} for ${match[0]}`)
    const text = typeof value === 'number' ? value.toString(isHex ? 16 : 10) : value
    return text.padStart(length, fill)
  }
}
