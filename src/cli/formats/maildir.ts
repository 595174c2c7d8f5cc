/**
 * A Maildir: one message a file in `new` and `cur`, oldest first. `tmp` holds what was not
 * delivered whole, files whose name begins with a dot are no messages, and folders (`.Sent`) are
 * Maildirs of their own: name them too if they shall come along. The day of receipt is the number
 * at the start of the file's name, else the file's time of change. What unique-ids and what order
 * a server gave to the files is in dovecot-maildir.ts and courier-maildir.ts.
 */
import { lstat, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { ImportItem } from '../../admin/transfer/import-messages.ts'
import { openFile } from './eml.ts'

const SUBDIRECTORIES = ['new', 'cur']

export interface MaildirFile {
  path: string
  /** Without directory. */
  name: string
}

/** Where a file has its place, and what is known of it besides. */
export interface PlacedFile extends MaildirFile {
  uniqueId?: string | undefined
}

export async function* readMaildir(directory: string): AsyncGenerator<ImportItem> {
  yield* openFiles(await listInOrder(directory), 'name')
}

/**
 * @param dates where the day of receipt is: in the file's name, or its time of change
 * @param open how a file's octets are read
 */
export async function* openFiles(
  files: Iterable<PlacedFile>,
  dates: 'name' | 'change',
  open?: (path: string) => AsyncIterable<Buffer>,
): AsyncGenerator<ImportItem> {
  for (const { path, uniqueId } of files) {
    // A link would lead whoever imports to files that are not its owner's to read.
    const stats = await lstat(path).catch(() => undefined)
    // A mail program moves files from new to cur at any time.
    if (stats === undefined)
      yield { source: path, sourceOctets: 0, refusal: 'moved away meanwhile: run it again' }
    else if (!stats.isFile()) yield { source: path, sourceOctets: 0, refusal: 'not a file' }
    else {
      const named = dates === 'name' ? timeInName(path) : undefined
      yield { ...openFile(path, stats.size, named ?? stats.mtime, open), uniqueId }
    }
  }
}

export async function measureMaildir(directory: string): Promise<number> {
  let octets = 0
  for (const { path } of await listMaildir(directory))
    octets += (await stat(path).catch(() => undefined))?.size ?? 0
  return octets
}

/** A directory with at least one of the two. */
export async function isMaildir(directory: string): Promise<boolean> {
  const names = await readdir(directory)
  return SUBDIRECTORIES.some((name) => names.includes(name))
}

export async function listMaildir(directory: string): Promise<MaildirFile[]> {
  const files: MaildirFile[] = []
  for (const subdirectory of SUBDIRECTORIES) {
    const names = await readdir(join(directory, subdirectory)).catch(() => [])
    for (const name of names)
      if (!name.startsWith('.')) files.push({ path: join(directory, subdirectory, name), name })
  }
  return files
}

/** In the order of delivery as far as names tell it. */
export async function listInOrder(directory: string): Promise<MaildirFile[]> {
  const files = await listMaildir(directory)
  const timed = files.map((file) => ({ file, time: timeInName(file.path)?.getTime() }))
  timed.sort(({ file: one, time: time1 = LATEST }, { file: other, time: time2 = LATEST }) =>
    time1 === time2 ? (one.name < other.name ? -1 : 1) : time1 - time2,
  )
  return timed.map(({ file }) => file)
}

const LATEST = Number.MAX_SAFE_INTEGER

/** Unix seconds, up to the first dot; what lies before 1980 is a counter, no time. */
function timeInName(path: string): Date | undefined {
  const seconds = Number(/(?:^|\/)(\d{9,10})\.[^/]*$/.exec(path)?.[1] ?? 0)
  return seconds < 315_532_800 ? undefined : new Date(seconds * 1000)
}
