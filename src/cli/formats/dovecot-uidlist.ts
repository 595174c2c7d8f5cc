/**
 * Dovecot's dovecot-uidlist, in which it keeps the UIDs of a Maildir's files. Version 3 begins with
 * "3 V<uidvalidity> N<next uid> …", a line is "<uid> [<key><value> …] :<file>"; version 1 (that of
 * Courier-IMAP too) has "1 <uidvalidity> <next uid>" and "<uid> <file>". Of the keys P is a
 * unique-id that stays whatever the format is (with nothing behind it: the file's name), O the
 * place in POP3's order, G a GUID. A file is named without its flags.
 */
import { refused } from '../../admin/refusal.ts'
import { readListLines } from './list-file.ts'
import type { MailPath } from './mail-path.ts'

export interface UidlistRecord {
  uid: number
  filename: string
  savedUidl: string | undefined
  pop3Order: number | undefined
  guid: string | undefined
}

export interface Uidlist {
  uidValidity: number
  /** By the file's name without flags. */
  records: ReadonlyMap<string, UidlistRecord>
}

export const UIDLIST_NAME = 'dovecot-uidlist'

/** The name up to the flags: what stays when a message is read. */
export function baseNameOf(name: string): string {
  return name.split(':', 1)[0] ?? name
}

/**
 * Without one nobody has logged in yet.
 * @throws {Failure} OPERATION_REFUSED if a line is broken; errors of reading as they come
 */
export async function readUidlist(path: MailPath): Promise<Uidlist> {
  const records = new Map<string, UidlistRecord>()
  let header: { version: number; uidValidity: number } | undefined
  const lines = await readListLines(path)
  if (lines === undefined) return { uidValidity: 0, records }
  for (const [index, line] of lines.entries()) {
    const broken = () =>
      refused(`${path.text} line ${index + 1} is broken: let Dovecot write it anew`)
    if (header === undefined) {
      header = parseHeader(line)
      if (header === undefined) throw broken()
      continue
    }
    const record = parseRecord(line, header.version)
    if (record === undefined) throw broken()
    // One that stands twice was moved away and back: the later line counts.
    records.delete(record.filename)
    records.set(record.filename, record)
  }
  if (header === undefined) throw refused(`${path.text} is empty`)
  return { uidValidity: header.uidValidity, records }
}

function parseHeader(line: string): { version: number; uidValidity: number } | undefined {
  const version = Number(/^([13]) /.exec(line)?.[1])
  const validity = version === 1 ? /^1 (\d+) \d+/.exec(line) : /^3 (?:.* )?V(\d+)(?: |$)/.exec(line)
  return validity === null ? undefined : { version, uidValidity: Number(validity[1]) }
}

function parseRecord(line: string, version: number): UidlistRecord | undefined {
  const match =
    version === 1
      ? /^(\d+) +()([^/]+)$/.exec(line)
      : /^(\d+) +((?:[^: ]\S* +)*):([^/]+)$/.exec(line)
  if (match === null) return undefined
  const [, uid, fields = '', name = ''] = match
  const values = new Map(
    fields
      .trim()
      .split(/ +/)
      .map((field) => [field.slice(0, 1), field.slice(1)] as const),
  )
  const filename = baseNameOf(name)
  const order = values.get('O')
  const saved = values.get('P')
  return {
    uid: Number(uid),
    filename,
    savedUidl: saved === '' ? filename : saved,
    pop3Order: order === undefined ? undefined : Number(order),
    guid: values.get('G'),
  }
}
