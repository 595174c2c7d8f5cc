/**
 * A Maildir: one message a file in `new` and `cur`, oldest first. `tmp` holds what was not
 * delivered whole, files whose name begins with a dot are no messages, and folders (`.Sent`) are
 * Maildirs of their own: name them too if they shall come along. The day of receipt is the number
 * at the start of the file's name, else the file's time of change. What unique-ids and what order
 * a server gave to the files is in dovecot-maildir.ts and courier-maildir.ts.
 */
import type { ImportItem } from '../../admin/transfer/import-messages.ts'
import { openFile } from './eml.ts'
import type { MailPath } from './mail-path.ts'

const SUBDIRECTORIES = ['new', 'cur']

export interface MaildirFile {
  path: MailPath
  /** Without directory, one character an octet. */
  name: string
}

/** Where a file has its place, and what is known of it besides. */
export interface PlacedFile extends MaildirFile {
  uniqueId?: string | undefined
}

export async function* readMaildir(directory: MailPath): AsyncGenerator<ImportItem> {
  yield* openFiles(await listInOrder(directory), 'name')
}

/**
 * @param dates where the day of receipt is: in the file's name, or its time of change
 * @param open how a file's octets are read
 */
export async function* openFiles(
  files: Iterable<PlacedFile>,
  dates: 'name' | 'change',
  open?: (path: MailPath) => AsyncIterable<Buffer>,
): AsyncGenerator<ImportItem> {
  for (const { path, name, uniqueId } of files) {
    const stats = await path.lstat().catch((error) => {
      if (error.code === 'ENOENT') return undefined
      throw error
    })
    // A mail program moves files from new to cur at any time.
    if (stats === undefined) yield refuse(path, 'moved away meanwhile: run it again', 'message')
    else if (!stats.isFile()) yield refuse(path, 'not a file')
    else {
      const named = dates === 'name' ? timeInName(name) : undefined
      yield { ...openFile(path, stats.size, named ?? stats.mtime, open), uniqueId }
    }
  }
}

function refuse({ text: source }: MailPath, refusal: string, unread?: 'message'): ImportItem {
  return { source, sourceOctets: 0, refusal, ...(unread && { unread }) }
}

export async function measureMaildir(directory: MailPath): Promise<number> {
  let octets = 0
  for (const { path } of await listMaildir(directory))
    octets += (await path.lstat().catch(() => undefined))?.size ?? 0
  return octets
}

/** A directory with at least one of the two. */
export async function isMaildir(directory: MailPath): Promise<boolean> {
  const names = await directory.list()
  return SUBDIRECTORIES.some((name) => names.includes(name))
}

/** @throws errors of reading: what cannot be read is not empty */
export async function listMaildir(directory: MailPath): Promise<MaildirFile[]> {
  const files: MaildirFile[] = []
  for (const each of SUBDIRECTORIES) {
    const subdirectory = directory.below(each)
    const names = await subdirectory.list().catch((error) => {
      if (error.code === 'ENOENT') return [] // one of the two may be missing
      throw error
    })
    for (const name of names)
      if (!name.startsWith('.')) files.push({ path: subdirectory.below(name), name })
  }
  return files
}

/** In the order of delivery as far as names tell it. */
export async function listInOrder(directory: MailPath): Promise<MaildirFile[]> {
  const files = await listMaildir(directory)
  const timed = files.map((file) => ({ file, time: timeInName(file.name)?.getTime() }))
  timed.sort(({ file: one, time: time1 = LATEST }, { file: other, time: time2 = LATEST }) =>
    time1 === time2 ? (one.name < other.name ? -1 : 1) : time1 - time2,
  )
  return timed.map(({ file }) => file)
}

const LATEST = Number.MAX_SAFE_INTEGER

/** Unix seconds, up to the first dot; what lies before 1980 is a counter, no time. */
function timeInName(name: string): Date | undefined {
  const seconds = Number(/^(\d{9,10})\./.exec(name)?.[1] ?? 0)
  return seconds < 315_532_800 ? undefined : new Date(seconds * 1000)
}
