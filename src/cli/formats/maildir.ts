/**
 * A Maildir: one message a file in `new` and `cur`, oldest first. `tmp` holds what was not
 * delivered whole, files whose name begins with a dot are no messages, and folders (`.Sent`) are
 * Maildirs of their own: name them too if they shall come along. The day of receipt is the number
 * at the start of the file's name, else the file's time of change.
 */
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { ImportItem } from '../../admin/transfer/import-messages.ts'
import { openFile } from './eml.ts'

const SUBDIRECTORIES = ['new', 'cur']

export async function* readMaildir(directory: string): AsyncGenerator<ImportItem> {
  for (const path of await listFiles(directory)) {
    const stats = await stat(path).catch(() => undefined)
    // A mail program moves files from new to cur at any time.
    if (stats === undefined)
      yield { source: path, sourceOctets: 0, refusal: 'moved away meanwhile' }
    else if (!stats.isFile()) yield { source: path, sourceOctets: 0, refusal: 'not a file' }
    else yield openFile(path, stats.size, timeInName(path) ?? stats.mtime)
  }
}

export async function measureMaildir(directory: string): Promise<number> {
  let octets = 0
  for (const path of await listFiles(directory))
    octets += (await stat(path).catch(() => undefined))?.size ?? 0
  return octets
}

/** A directory with at least one of the two. */
export async function isMaildir(directory: string): Promise<boolean> {
  const names = await readdir(directory)
  return SUBDIRECTORIES.some((name) => names.includes(name))
}

/** In the order of delivery as far as names tell it. */
async function listFiles(directory: string): Promise<string[]> {
  const files: { path: string; name: string; time: number }[] = []
  for (const subdirectory of SUBDIRECTORIES) {
    const names = await readdir(join(directory, subdirectory)).catch(() => [])
    for (const name of names) {
      if (name.startsWith('.')) continue
      const path = join(directory, subdirectory, name)
      files.push({ path, name, time: timeInName(path)?.getTime() ?? Number.MAX_SAFE_INTEGER })
    }
  }
  files.sort((one, other) => one.time - other.time || (one.name < other.name ? -1 : 1))
  return files.map((file) => file.path)
}

/** Unix seconds, up to the first dot; what lies before 1980 is a counter, no time. */
function timeInName(path: string): Date | undefined {
  const seconds = Number(/(?:^|\/)(\d{9,10})\.[^/]*$/.exec(path)?.[1] ?? 0)
  return seconds < 315_532_800 ? undefined : new Date(seconds * 1000)
}
