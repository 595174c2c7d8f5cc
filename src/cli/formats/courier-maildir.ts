/**
 * A Maildir as Courier's pop3d shows it: in the order of the numbers that file names begin with,
 * then of the names. Its courierpop3dsizelist begins with "/<version> <next> <uidvalidity>", a line
 * is "<file> <size> <n>:<uidvalidity>" (version 3 has another number behind, version 1 only <n>);
 * the unique-id is UID<n>-<uidvalidity>, or UID<n>. A list without such a first line has "<file>
 * <size>", and the unique-id is the file's name, what is odd in it as +hex. The day of receipt is
 * the file's time of change. A file that is not in the list has been seen by no client.
 */
import { refused } from '../../admin/refusal.ts'
import type { ImportItem } from '../../admin/transfer/import-messages.ts'
import { baseNameOf } from './dovecot-uidlist.ts'
import { readListLines } from './list-file.ts'
import type { MailPath } from './mail-path.ts'
import { listMaildir, type MaildirFile, openFiles } from './maildir.ts'

export const SIZELIST_NAME = 'courierpop3dsizelist'

/** @throws {Failure} OPERATION_REFUSED if the list is of no known version */
export async function* readCourierMaildir(directory: MailPath): AsyncGenerator<ImportItem> {
  const uniqueIds = await readSizelist(directory.below(SIZELIST_NAME))
  const files = (await listMaildir(directory)).sort(compare)
  const placed = files.map((file) => ({ ...file, uniqueId: uniqueIds.get(baseNameOf(file.name)) }))
  yield* openFiles(placed, 'change')
}

/** Unique-id by the file's name without flags. */
async function readSizelist(path: MailPath): Promise<Map<string, string>> {
  const lines = (await readListLines(path)) ?? [] // without one nobody has logged in yet
  const hasHead = lines[0]?.startsWith('/')
  const version = hasHead ? Number(/^\/(\d+) \d+/.exec(lines.shift() ?? '')?.[1]) : 0
  if (!(version >= 0 && version <= 3)) throw refused(`${path.text} is of no known version`)
  const uniqueIds = new Map<string, string>()
  for (const line of lines) {
    const match = LINES[version]?.exec(line)
    if (match?.[1] === undefined) continue
    const [, name, number, validity] = match
    // Number 0 was made by version 0, and stays what it was.
    const isName = Number(number ?? 0) === 0
    uniqueIds.set(baseNameOf(name), isName ? escapeOdd(name) : formatId(number, validity))
  }
  return uniqueIds
}

const LINES = [
  /^(.+) \d+$/,
  /^(.+) \d+ (\d+)$/,
  /^(.+) \d+ (\d+):(\d+)$/,
  /^(.+) \d+ (\d+):(\d+):\d+$/,
] as const

function formatId(number = '', validity = '0'): string {
  return Number(validity) === 0 ? `UID${number}` : `UID${number}-${validity}`
}

function escapeOdd(name: string): string {
  return baseNameOf(name).replace(
    /[^\x21-\x7e]|['"+]/g,
    (character) => `+${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  )
}

function compare(one: MaildirFile, other: MaildirFile): number {
  const byNumber = numberOf(one) - numberOf(other)
  if (byNumber !== 0) return byNumber
  return baseNameOf(one.name) < baseNameOf(other.name) ? -1 : 1
}

function numberOf({ name }: MaildirFile): number {
  return Number(/^\d+/.exec(name)?.[0] ?? 0)
}
