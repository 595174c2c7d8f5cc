/**
 * Accounts out of a table, from a file (CSV with its columns named in the first line, or what
 * `mysql --batch` writes, with tabs) or a query. Columns are known by the names that PostfixAdmin,
 * Dovecot's queries and our own CSV give them; others are passed over, but may be named in --mail.
 */
import { createReadStream } from 'node:fs'
import { describeReadError } from '../../../admin/read-error.ts'
import { refused } from '../../../admin/refusal.ts'
import type { OtherRow } from '../../../storage/postgres/other-database.ts'
import { readCsv } from '../../csv.ts'
import type { OldAccountItem } from './old-account.ts'
import { readLines } from './text-lines.ts'

export interface TableOptions {
  /** Whether `password` is a hash, as servers mean it, or the password itself. */
  isPasswordHash: boolean
}

const NAME_COLUMNS = ['address', 'username', 'user', 'userid', 'email']
const TRUE = new Set(['1', 't', 'true', 'y', 'yes'])

/** @throws {Failure} OPERATION_REFUSED if the file cannot be read or names no users */
export async function* readTableFile(
  path: string,
  options: TableOptions,
): AsyncGenerator<OldAccountItem> {
  let names: string[] | undefined
  for await (const record of readRecords(path)) {
    const source = `${path} line ${record.line}`
    if ('problem' in record) {
      if (names === undefined) throw refused(`${source} ${record.problem}`)
      yield { source, refusal: record.problem }
    } else if (names === undefined) names = parseNames(record.fields, source)
    else if (record.fields.length !== names.length)
      yield {
        source,
        refusal: `has ${record.fields.length} columns instead of ${names.length}`,
      }
    else {
      const { fields } = record
      const columns = Object.fromEntries(names.map((name, at) => [name, fields[at] ?? '']))
      yield toAccount(columns, source, options)
    }
  }
  if (names === undefined) throw refused(`${path} is empty: its first line names the columns`)
}

export async function* readTableRows(
  rows: AsyncIterable<OtherRow>,
  options: TableOptions,
): AsyncGenerator<OldAccountItem> {
  let number = 0
  for await (const row of rows) {
    const columns = Object.fromEntries(
      Object.entries(row).map(([name, value]) => [name, String(value ?? '')]),
    )
    const source = `row ${++number}`
    if (number === 1) parseNames(Object.keys(columns), source)
    yield toAccount(columns, source, options)
  }
}

function parseNames(fields: readonly string[], source: string): string[] {
  const names = fields.map((field) => field.trim().toLowerCase())
  if (!names.some((name) => NAME_COLUMNS.includes(name)))
    throw refused(`${source} has no column of names: one of ${NAME_COLUMNS.join(', ')}`)
  return names
}

function toAccount(
  columns: Readonly<Record<string, string>>,
  source: string,
  { isPasswordHash }: TableOptions,
): OldAccountItem {
  const { password = '', hash = '', quota = '', home, mail, active, domain } = columns
  const name = NAME_COLUMNS.map((each) => columns[each]).find((each) => each !== undefined) ?? ''
  const isBare = !name.includes('@') && domain !== undefined && domain !== ''
  const stored = hash === '' && isPasswordHash ? password : hash
  return {
    source,
    name: isBare ? `${name}@${domain}` : name.trim(),
    hash: stored.trim(),
    password: isPasswordHash ? '' : password, // blanks in it are part of it
    // PostfixAdmin: 0 is no limit, -1 no quota at all.
    quota: quota === '0' || quota === '-1' ? '' : quota.trim(),
    home: home || undefined,
    mail: mail || undefined,
    isSuspended: active !== undefined && active !== '' && !TRUE.has(active.toLowerCase()),
    columns,
  }
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
  for await (const record of readCsv(readText(path))) {
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

async function* readText(path: string): AsyncGenerator<string> {
  try {
    for await (const chunk of createReadStream(path, { encoding: 'utf8' })) yield chunk as string
  } catch (error) {
    const reason = describeReadError(error)
    if (reason === undefined) throw error
    throw refused(`cannot read ${path}: ${reason}`, error)
  }
}
