/**
 * Whether a line that begins with "From " separates messages of an mbox, and the date in it. RFC
 * 4155 wants asctime in UTC ("From a@b Thu Nov 13 20:26:00 2025"); programs also write a zone
 * before or after the year, leave the seconds out, or put words behind. With such a date a line is
 * a separator. Without one it is if it has one word at most ("From -", "From 1844347@xxx"), follows
 * a blank line, and a header field stands under it. The first line of a file need only begin so.
 */
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']
const ASCTIME = new RegExp(
  `\\b(${MONTHS.join('|')}) +(\\d{1,2}) +(\\d{1,2}):(\\d\\d)(?::(\\d\\d))?` +
    '(?: +(?:[A-Z]{1,5}|([+-]\\d{4})))* +(\\d{4})(?: +([+-]\\d{4}))?\\b',
)

const BARE = /^From +\S*\s*$/
const HEADER_FIELD = /^[!-9;-~]+:/

export interface ParsedSeparator {
  /** Octets of the line, its line end included. */
  length: number
  date: Date | undefined
}

/**
 * @param lines the line and what follows, as latin1
 * @returns undefined if the line is no separator, or does not end within `lines`
 */
export function parseSeparator(
  lines: string,
  isAfterBlank: boolean,
  isFirst: boolean,
): ParsedSeparator | undefined {
  const length = lines.indexOf('\n') + 1
  if (length === 0) return undefined
  const line = lines.slice(0, length)
  const date = parseDate(line)
  const isBare = isAfterBlank && BARE.test(line) && HEADER_FIELD.test(lines.slice(length))
  return isFirst || isBare || date !== undefined ? { length, date } : undefined
}

function parseDate(line: string): Date | undefined {
  const match = ASCTIME.exec(line)
  if (match === null) return undefined
  const [, month = '', day, hour, minute, second = '0', zoneBefore, year, zoneAfter] = match
  const utc = Date.UTC(
    Number(year),
    MONTHS.indexOf(month),
    Number(day),
    Number(hour),
    Number(minute),
    Number(second),
  )
  return new Date(utc - zoneOffsetMs(zoneBefore ?? zoneAfter))
}

/** @param zone like +0130; a named zone counts as UTC */
function zoneOffsetMs(zone: string | undefined): number {
  if (zone === undefined) return 0
  const minutes = Number(zone.slice(1, 3)) * 60 + Number(zone.slice(3))
  return (zone.startsWith('-') ? -minutes : minutes) * 60_000
}
