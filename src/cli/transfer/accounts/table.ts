/**
 * Rows of a table that an old server keeps, from a file (CSV with its columns named in the first
 * line, or what `mysql --batch` writes, with tabs) or from a query. Which columns count, and what a
 * row means, is the business of user-table.ts and alias-table.ts.
 */
import { refused } from '../../../admin/refusal.ts'
import type { OtherRow } from '../../../storage/postgres/other-database.ts'
import { readCsvFile } from '../../csv.ts'
import { readLines } from './text-lines.ts'

/** All as text, NULL as an empty one. */
export type Columns = Readonly<Record<string, string>>
export type TableRow = { source: string; columns: Columns } | { source: string; refusal: string }

/** What has to be there; one name of each list. */
export type WantedColumns = Readonly<Record<string, readonly string[]>>

const TRUE = new Set(['1', 't', 'true', 'y', 'yes'])

/** @throws {Failure} OPERATION_REFUSED if the file cannot be read or lacks a column */
export async function* readTableFile(
  path: string,
  wanted: WantedColumns,
): AsyncGenerator<TableRow> {
  let names: string[] | undefined
  for await (const record of readRecords(path)) {
    const source = `${path} line ${record.line}`
    if ('problem' in record) {
      if (names === undefined) throw refused(`${source} ${record.problem}`)
      yield { source, refusal: record.problem }
    } else if (names === undefined) names = parseNames(record.fields, source, wanted)
    else if (record.fields.length !== names.length)
      yield {
        source,
        refusal: `has ${record.fields.length} columns instead of ${names.length}`,
      }
    else {
      const { fields } = record
      yield {
        source,
        columns: Object.fromEntries(names.map((name, at) => [name, fields[at] ?? ''])),
      }
    }
  }
  if (names === undefined) throw refused(`${path} is empty: its first line names the columns`)
}

/** @param table its name, if there are rows of several */
export async function* readTableRows(
  rows: AsyncIterable<OtherRow>,
  wanted: WantedColumns,
  table = '',
): AsyncGenerator<TableRow> {
  let number = 0
  for await (const row of rows) {
    const columns = Object.fromEntries(
      Object.entries(row).map(([name, value]) => [name, String(value ?? '')]),
    )
    const source = `${table === '' ? '' : `${table} `}row ${++number}`
    if (number === 1) parseNames(Object.keys(columns), source, wanted)
    yield { source, columns }
  }
}

/** The first of these columns that the row has. */
export function pick(columns: Columns, names: readonly string[]): string {
  return names.map((name) => columns[name]).find((value) => value !== undefined) ?? ''
}

/** Where nothing says that it is switched off. */
export function isActive({ active = '' }: Columns): boolean {
  return active === '' || TRUE.has(active.toLowerCase())
}

function parseNames(fields: readonly string[], source: string, wanted: WantedColumns): string[] {
  const names = fields.map((field) => field.trim().toLowerCase())
  for (const [what, choices] of Object.entries(wanted))
    if (!choices.some((choice) => names.includes(choice)))
      throw refused(`${source} has no column of ${what}: one of ${choices.join(', ')}`)
  return names
}

type TableRecord = { line: number; fields: string[] } | { line: number; problem: string }

async function* readRecords(path: string): AsyncGenerator<TableRecord> {
  const first = await readLines(path)
  const isTabbed = first[0] !== undefined && /^[^,"]*\t/.test(first[0].text)
  if (isTabbed) {
    for (const { text, source } of first)
      yield { line: Number(/\d+$/.exec(source)?.[0]), fields: text.split('\t').map(unescapeTab) }
    return
  }
  for await (const record of readCsvFile(path)) {
    const { line } = record
    if (record.problem !== undefined) yield { line, problem: record.problem }
    else yield { line, fields: record.fields }
  }
}

/** As mysql writes tabs, line ends, backslashes and NULL. */
function unescapeTab(field: string): string {
  if (field === 'NULL' || field === '\\N') return ''
  const escapes: Readonly<Record<string, string>> = { t: '\t', n: '\n', r: '\r', '0': '\0' }
  return field.replace(/\\(.)/g, (_, letter: string) => escapes[letter] ?? letter)
}
