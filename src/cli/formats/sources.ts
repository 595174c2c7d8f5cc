/**
 * Files to import: which format each path has, and the messages in all of them, one after the
 * other. A format is told by what lies there: a directory with `new` or `cur` is a Maildir, a file
 * that begins with "From " an mbox, any other file one message if it begins like one. Only a name
 * in .eml counts for more: such a file is one message whatever it begins with.
 */
import { open, readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { describeReadError } from '../../admin/read-error.ts'
import type { ImportItem } from '../../admin/transfer/import-messages.ts'
import { readEml } from './eml.ts'
import { isMaildir, measureMaildir, readMaildir } from './maildir.ts'
import { readMbox } from './mbox.ts'
import { beginsLikeMessage, HEAD_OCTETS } from './message-head.ts'

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
      const refusal = describeReadError(error)
      if (refusal === undefined) throw error
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
    const isOther = format !== 'auto' && format !== 'maildir'
    if (!isOther && (await isMaildir(path))) return yield* readMaildir(path)
    const why = isOther
      ? `is a directory, not ${format}`
      : 'is a directory without new and cur, so no Maildir'
    return yield refuse(`${why}${await adviceOnFiles(path)}`)
  }
  if (!stats.isFile()) return yield refuse('is no file')
  if (format === 'maildir') return yield refuse('is no directory, so no Maildir')
  if (format === 'eml' || (format === 'auto' && EML.test(path))) return yield await readEml(path)
  const head = await readHead(path)
  if (head.startsWith('From ')) return yield* readMbox(path)
  if (format === 'mbox') return yield refuse('does not begin with a "From " line')
  // One that is empty is told as such.
  if (head === '' || beginsLikeMessage(head)) return yield await readEml(path)
  const refusal = 'does not look like a message: use --format eml to import it anyway'
  yield { source: path, sourceOctets: stats.size, refusal }
}

const EML = /\.eml$/i

/** A directory of .eml files is what the shell can spread. */
async function adviceOnFiles(directory: string): Promise<string> {
  const names = await readdir(directory)
  return names.some((name) => EML.test(name)) ? `: name ${join(directory, '*.eml')} instead` : ''
}

/** Decoded as latin1: one character an octet. */
async function readHead(path: string): Promise<string> {
  const file = await open(path)
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(HEAD_OCTETS), 0, HEAD_OCTETS, 0)
    return buffer.toString('latin1', 0, bytesRead)
  } finally {
    await file.close()
  }
}
