/**
 * What the commands print. Results go to standard output: an aligned table for people, or JSON for
 * programs; everything else goes to standard error. Names, subjects and addresses come from others,
 * so whatever could steer a terminal is shown as an escape instead.
 */

/** Controls (C0, DEL, C1), what formats invisibly (reorders, joins, hides), and line separators. */
const STEERING = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu

function toEscape(character: string): string {
  const code = character.codePointAt(0) ?? 0
  return code < 0x100
    ? `\\x${code.toString(16).padStart(2, '0')}`
    : `\\u{${code.toString(16).padStart(4, '0')}}`
}

/** As JSON writes them: each UTF-16 unit for itself. */
function toJsonEscape(character: string): string {
  return Array.from({ length: character.length }, (_, index) => character.charCodeAt(index))
    .map((unit) => `\\u${unit.toString(16).padStart(4, '0')}`)
    .join('')
}

/** One line that is safe on a terminal. */
export function harmlessLine(text: string): string {
  return text.replace(STEERING, toEscape)
}

/** Several lines that are safe on a terminal: LF and TAB stay, CR before LF goes. */
export function harmlessText(text: string): string {
  return text
    .replaceAll('\r\n', '\n')
    .replace(STEERING, (character) =>
      '\n\t'.includes(character) ? character : toEscape(character),
    )
}

export interface Column<Row> {
  title: string
  cell: (row: Row) => string | number
  isRight?: boolean
}

/** Lines of a table, columns two spaces apart, no blanks at the end of a line. */
export function formatTable<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): string {
  const lines = [
    columns.map((column) => column.title),
    ...rows.map((row) => columns.map((column) => harmlessLine(String(column.cell(row))))),
  ]
  const widths = columns.map((_, index) =>
    lines.reduce((widest, line) => Math.max(widest, [...(line[index] ?? '')].length), 0),
  )
  const format = (line: string[]) =>
    line
      .map((cell, index) => {
        const gap = ' '.repeat((widths[index] ?? 0) - [...cell].length)
        return columns[index]?.isRight ? gap + cell : cell + gap
      })
      .join('  ')
      .trimEnd()
  return lines.map((line) => `${format(line)}\n`).join('')
}

/** `name  value` lines, for one thing. */
export function formatFields(fields: Readonly<Record<string, string | number>>): string {
  const names = Object.keys(fields)
  const width = Math.max(...names.map((name) => name.length))
  return names
    .map((name) => `${name.padEnd(width)}  ${harmlessLine(String(fields[name]))}`.trimEnd())
    .map((line) => `${line}\n`)
    .join('')
}

/** JSON whose strings cannot steer a terminal either; it parses to the same value. */
export function formatJson(value: unknown): string {
  const json = JSON.stringify(value, null, 2)
  const escaped = json.replace(STEERING, (character) =>
    character === '\n' ? character : toJsonEscape(character),
  )
  return `${escaped}\n`
}

/** `2026-05-01 12:00:00Z`: a moment in UTC, to the second. */
export function formatMoment(moment: Date | undefined): string {
  return moment === undefined ? '-' : moment.toISOString().replace('T', ' ').replace(/\.\d+/, '')
}

export function formatYesNo(is: boolean): string {
  return is ? 'yes' : 'no'
}

/** `1 user`, `2 users`. */
export function formatCount(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}
