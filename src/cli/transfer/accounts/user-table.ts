/**
 * Accounts out of a table. Columns are known by the names that PostfixAdmin, Dovecot's queries and
 * our own CSV give them; others are passed over, but may be named in --mail.
 */
import type { OtherRow } from '../../../storage/postgres/other-database.ts'
import type { OldAccountItem } from './old-account.ts'
import {
  type Columns,
  isActive,
  pick,
  readTableFile,
  readTableRows,
  type TableRow,
} from './table.ts'

export interface UserTableOptions {
  /** Whether `password` is a hash, as servers mean it, or the password itself. */
  isPasswordHash: boolean
}

const NAMES = ['address', 'username', 'user', 'userid', 'email']
const WANTED = { names: NAMES }

/** @throws {Failure} OPERATION_REFUSED if the file cannot be read or names no users */
export function readUserFile(
  path: string,
  options: UserTableOptions,
): AsyncGenerator<OldAccountItem> {
  return toAccounts(readTableFile(path, WANTED), options)
}

export function readUserRows(
  rows: AsyncIterable<OtherRow>,
  options: UserTableOptions,
): AsyncGenerator<OldAccountItem> {
  return toAccounts(readTableRows(rows, WANTED), options)
}

async function* toAccounts(
  rows: AsyncIterable<TableRow>,
  options: UserTableOptions,
): AsyncGenerator<OldAccountItem> {
  for await (const row of rows)
    yield 'refusal' in row ? row : toAccount(row.columns, row.source, options)
}

function toAccount(
  columns: Columns,
  source: string,
  { isPasswordHash }: UserTableOptions,
): OldAccountItem {
  const { password = '', hash = '', quota = '', home, mail, domain } = columns
  const name = pick(columns, NAMES)
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
    isSuspended: !isActive(columns),
    columns,
  }
}
