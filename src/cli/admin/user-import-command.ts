/**
 * `popgres user import FILE.csv`, or the users.json of an export: the file becomes rows; what is
 * done with them is in admin/transfer/user-import.ts. It is read twice: once to count, for the
 * progress bar.
 */
import type { Command } from 'commander'
import { refused } from '../../admin/refusal.ts'
import {
  importUsers,
  type UserImportReport,
  type UserImportRow,
} from '../../admin/transfer/user-import.ts'
import { type CommandContext, withDatabase } from '../command-context.ts'
import { type CsvRecord, readCsvFile } from '../csv.ts'
import { formatCount, formatJson, harmlessLine } from '../output.ts'
import { startProgress } from '../progress.ts'
import { readUsersJson } from '../transfer/export/users-json.ts'

const COLUMNS = ['address', 'password', 'hash', 'quota'] as const
type Column = (typeof COLUMNS)[number]

/** What is not, may be a password or a hash, and is never repeated. */
const PLAUSIBLE_COLUMN = /^[a-z\d_-]{1,30}$/
/** A line of a Dovecot passwd file. */
const PASSWD_LINE = /^[^:]+:(?:\{[a-z\d.-]+\}|\$)/i
const PASSWD_TO_CSV =
  String.raw`(echo address,hash; sed -E 's/"/""/g; s/^([^:]+):([^:]+).*/\1,"\2"/' passwd)` +
  ' > users.csv'

export function defineUserImportCommand(user: Command, context: CommandContext): void {
  user
    .command('import')
    .description('add many users from a CSV file, or from the users.json of an export')
    .argument('<file>', 'CSV: RFC 4180, the first line names the columns; or .json')
    .option('--dry-run', 'look at every line, write nothing')
    .option('--json', 'print the report as JSON')
    .addHelpText(
      'after',
      `
Columns, in any order: address (needed), password or hash (one of them on each line), quota.
A quota is 500M, 1.5G, octets, or empty for none. The domains must be there.

A hash is argon2id ("$argon2id$v=19$...", in quotes because of its commas), one of crypt(3)
($2y$..., $6$..., $5$..., $1$...), or has Dovecot's prefix: {SHA512-CRYPT}, {SSHA}, {SSHA512},
{PBKDF2}, {PLAIN}, also with .HEX or .B64. It becomes argon2id at the first login, {PLAIN} at once.

Lines with hashes go in by thousands a second; a password is hashed first, some 20 to 60 a second.
A line that is refused is told with its number and the reason on standard error (with --json in the
report), the others go in, and the status is 1. Running it again is safe: who exists already is
refused.

From users.json come hash, quotas, suspension, main password, login delay and EXPIRE of each user;
"popgres import popgres" brings mail, app passwords and aliases too, and the passwords last.

Example of a file:
  address,hash,quota
  alice@example.com,$2y$10$abcdefghijklmnopqrstuv...,1G

Of a Dovecot passwd file whose names are addresses, one makes such a file by:
  ${PASSWD_TO_CSV}

Examples:
  popgres user import users.csv --dry-run
  popgres user import users.csv
`,
    )
    .action((file: string, options: { dryRun?: boolean; json?: boolean }) =>
      withDatabase(context, async ({ db }) => {
        const total = await countRows(file)
        const noun = total.passwords > 0 ? 'users (passwords are being hashed: slow)' : 'users'
        const progress = startProgress(total.rows, noun)
        try {
          const report = await importUsers(db, readRows(file), {
            isDryRun: options.dryRun === true,
            onProgress: (rows) => progress.update(rows),
          })
          progress.stop()
          // JSON has them itself.
          for (const { line, address, reason } of options.json ? [] : report.refused) {
            const what = address === '' ? reason : `${address}: ${reason}`
            process.stderr.write(`line ${line}: ${harmlessLine(what)}\n`)
          }
          const text = formatSummary(report, options.dryRun === true)
          process.stdout.write(options.json ? formatJson(report) : text)
          if (report.refused.length > 0) context.status = 1
        } finally {
          progress.stop()
        }
      }),
    )
}

function formatSummary({ added, refused }: UserImportReport, isDryRun: boolean): string {
  const verb = isDryRun ? 'would add' : 'added'
  return `${verb} ${formatCount(added, 'user')}, refused ${formatCount(refused.length, 'line')}\n`
}

async function countRows(file: string): Promise<{ rows: number; passwords: number }> {
  const total = { rows: 0, passwords: 0 }
  for await (const row of readRows(file)) {
    total.rows += 1
    if (!('problem' in row) && row.password !== '') total.passwords += 1
  }
  return total
}

/** @throws {Failure} OPERATION_REFUSED if the file cannot be read or names no columns */
async function* readRows(file: string): AsyncGenerator<UserImportRow> {
  if (/\.json$/i.test(file)) return yield* readUsersJson(file)
  let positions: Map<Column, number> | undefined
  for await (const record of readCsvFile(file)) {
    if (positions === undefined) positions = parseHeader(record)
    else yield toRow(record, positions)
  }
  if (positions === undefined) throw refused(`${file} is empty: its first line names the columns`)
}

/** Where each column is. */
export function parseHeader(record: CsvRecord): Map<Column, number> {
  if (record.problem !== undefined) throw refused(`line ${record.line} ${record.problem}`)
  const names = record.fields.map((field) => field.trim().toLowerCase())
  if (PASSWD_LINE.test(record.fields.join(',')))
    throw refused(`this looks like a Dovecot passwd file, make a CSV of it: ${PASSWD_TO_CSV}`)
  const unknown = names.find((name) => !(COLUMNS as readonly string[]).includes(name))
  if (unknown !== undefined) {
    const isPlausible = names.every((name) => PLAUSIBLE_COLUMN.test(name))
    const what = isPlausible ? JSON.stringify(unknown) : 'that there is not'
    throw refused(
      `line ${record.line} names a column ${what}: ` +
        'the columns are address, password or hash, quota',
    )
  }
  if (new Set(names).size < names.length) throw refused(`line ${record.line} names a column twice`)
  if (!names.includes('address') || !(names.includes('password') || names.includes('hash')))
    throw refused(
      `line ${record.line} must name the columns address and password or hash, perhaps quota`,
    )
  return new Map(names.map((name, index) => [name as Column, index]))
}

function toRow(record: CsvRecord, positions: ReadonlyMap<Column, number>): UserImportRow {
  const { line } = record
  if (record.problem !== undefined) return { line, problem: record.problem }
  const { fields } = record
  if (fields.length !== positions.size) {
    const why = fields.length > positions.size ? ' (an argon2id hash needs quotes: commas)' : ''
    return { line, problem: `has ${fields.length} columns instead of ${positions.size}${why}` }
  }
  const field = (column: Column): string => fields[positions.get(column) ?? -1] ?? ''
  return {
    line,
    address: field('address').trim(),
    password: field('password'), // blanks in it are part of it
    hash: field('hash').trim(),
    quota: field('quota').trim(),
  }
}
