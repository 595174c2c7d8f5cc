/**
 * When a message arrived, as far as its header can be believed: the first Received field was
 * written last, by the server that took the mail in (RFC 5321 §4.4), so its date is the best there
 * is; Date is the sender's own. What lies in the future, or before there was mail, is not believed.
 */

/** LIMIT: of a header; what comes later is not looked at. */
export const HEAD_OCTETS = 32_768

/** RFC 561, the first header fields. */
const EARLIEST = Date.UTC(1973, 8, 5)
/** Clocks of others may be ahead of ours. */
const AHEAD_MS = 86_400_000

/** RFC 5322 §3.3; the day of the week and comments are not looked at. */
const DAY = '(\\d{1,2})\\s+(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\\w*\\s+(\\d{4})'
const TIME = '(\\d{1,2}):(\\d\\d)(?::(\\d\\d))?\\s*([+-]\\d{4}|[A-Z]{1,5})?'
const DATE = new RegExp(`${DAY}\\s+${TIME}`, 'i')

/** @param head what the message begins with; @returns undefined: nothing to be believed */
export function receivedDate(head: Buffer, now: Date): Date | undefined {
  const text = head.subarray(0, HEAD_OCTETS).toString('latin1')
  const end = /\r?\n\r?\n/.exec(text)?.index ?? text.length
  const header = text.slice(0, end).replace(/\r?\n[ \t]+/g, ' ')
  const received = /^Received:.*;([^;\n]*)$/im.exec(header.replace(/\r/g, ''))?.[1]
  const sent = /^Date:([^\n]*)$/im.exec(header.replace(/\r/g, ''))?.[1]
  return believed(received, now) ?? believed(sent, now)
}

function believed(text: string | undefined, now: Date): Date | undefined {
  const [, day, month, year, hour, minute, second = '00', zone = 'GMT'] =
    DATE.exec(text ?? '') ?? []
  if (day === undefined) return undefined
  const offset = /^[+-]/.test(zone) ? zone : ZONES.has(zone.toUpperCase()) ? zone : 'GMT'
  const time = Date.parse(`${day} ${month} ${year} ${hour}:${minute}:${second} ${offset}`)
  const isCredible = time >= EARLIEST && time <= now.getTime() + AHEAD_MS
  return isCredible ? new Date(Math.min(time, now.getTime())) : undefined
}

/** RFC 5322 §4.3: of the others nobody knows what was meant. */
const ZONES = new Set(['UT', 'GMT', 'EST', 'EDT', 'CST', 'CDT', 'MST', 'MDT', 'PST', 'PDT'])
