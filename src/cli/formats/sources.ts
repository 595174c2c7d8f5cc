/**
 * Files to import: which format each path has, and the messages in all of them, one after the
 * other. A format is told by what lies there: a directory with `new` or `cur` is a Maildir, a file
 * that begins with "From " an mbox, any other file one message. Only a name in .eml counts for
 * more: such a file is one message whatever it begins with.
 */
import { open, stat } from 'node:fs/promises'
import type { ImportItem } from '../../admin/operations/import-messages.ts'
import { readEml } from './eml.ts'
import { isMaildir, measureMaildir, readMaildir } from './maildir.ts'
import { readMbox } from './mbox.ts'

export type SourceFormat = 'auto' | 'eml' | 'mbox' | 'maildir'

/**
 * The messages of all paths, in order; what cannot be read is an item too, with the reason.
 * @param format 'auto' or what all paths are
 */
export async function* readSources(
  paths: readonly string[],
  format: SourceFormat = 'auto',
): AsyncGenerator<ImportItem> {
  for (const path of paths) {
    try {
      yield* readSource(path, format)
    } catch (error) {
      const { code, syscall } = error as NodeJS.ErrnoException
      if (syscall === undefined) throw error
      const refusal = code === 'ENOENT' ? 'there is no such file' : `cannot be read: ${code}`
      yield { source: path, sourceOctets: 0, refusal }
    }
  }
}

/**
 * Octets in all paths together: the end of the progress bar. What cannot be read counts nothing.
 */
export async function measureSources(paths: readonly string[]): Promise<number> {
  let octets = 0
  for (const path of paths) {
    const stats = await stat(path).catch(() => undefined)
    if (stats?.isDirectory()) octets += await measureMaildir(path)
    else octets += stats?.size ?? 0
  }
  return octets
}

async function* readSource(path: string, format: SourceFormat): AsyncGenerator<ImportItem> {
  const stats = await stat(path)
  const refuse = (refusal: string): ImportItem => ({ source: path, sourceOctets: 0, refusal })
  if (stats.isDirectory()) {
    if (format !== 'auto' && format !== 'maildir') yield refuse(`is a directory, not ${format}`)
    else if (await isMaildir(path)) yield* readMaildir(path)
    else yield refuse('is a directory without new and cur, so no Maildir')
    return
  }
  if (!stats.isFile()) return yield refuse('is no file')
  if (format === 'maildir') return yield refuse('is no directory, so no Maildir')
  const isMbox = await beginsWithFrom(path)
  if (format === 'mbox' && !isMbox) return yield refuse('does not begin with a "From " line')
  if (format === 'mbox' || (format === 'auto' && isMbox && !/\.eml$/i.test(path)))
    return yield* readMbox(path)
  yield await readEml(path)
}

async function beginsWithFrom(path: string): Promise<boolean> {
  const file = await open(path)
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(5), 0, 5, 0)
    return buffer.toString('latin1', 0, bytesRead) === 'From '
  } finally {
    await file.close()
  }
}
