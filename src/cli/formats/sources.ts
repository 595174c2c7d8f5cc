/**
 * Files to import: which format each path has, and the messages in all of them, one after the
 * other. A format is told by what lies there: a directory with `new` or `cur` is a Maildir, a file
 * that begins with "From " an mbox, any other file one message if it begins like one. Only a name
 * in .eml counts for more: such a file is one message whatever it begins with.
 */
import { join } from 'node:path'
import { describeReadError } from '../../admin/read-error.ts'
import type { ImportItem } from '../../admin/transfer/import-messages.ts'
import { readEml } from './eml.ts'
import type { MailPath } from './mail-path.ts'
import { isMaildir, measureMaildir, readMaildir } from './maildir.ts'
import { readMbox } from './mbox.ts'
import { beginsLikeMessage, HEAD_OCTETS } from './message-head.ts'

export type SourceFormat = 'auto' | 'eml' | 'mbox' | 'maildir'

/**
 * The messages of all paths, in order; what cannot be read is an item too, with the reason.
 * @param format 'auto' or what all paths are
 */
export async function* readSources(
  paths: readonly MailPath[],
  format: SourceFormat = 'auto',
): AsyncGenerator<ImportItem> {
  for (const path of paths) {
    try {
      yield* readSource(path, format)
    } catch (error) {
      const reason = describeReadError(error)
      if (reason === undefined) throw error
      const source = linkIn(error) ?? path.text
      // Inside of the mail no option helps.
      const isOnTheWay = linkIn(error) !== undefined && path.text.startsWith(source)
      const refusal = isOnTheWay ? `${reason} (see --follow-links)` : reason
      yield { source, sourceOctets: 0, refusal, unread: 'source' }
    }
  }
}

/**
 * Octets in all paths together: the end of the progress bar. What cannot be read counts nothing.
 */
export async function measureSources(paths: readonly MailPath[]): Promise<number> {
  let octets = 0
  for (const path of paths) {
    const stats = await path.stat().catch(() => undefined)
    if (stats?.isDirectory()) octets += await measureMaildir(path).catch(() => 0)
    else octets += stats?.size ?? 0
  }
  return octets
}

async function* readSource(path: MailPath, format: SourceFormat): AsyncGenerator<ImportItem> {
  const stats = await path.stat()
  const refuse = (refusal: string, sourceOctets = 0): ImportItem => {
    return { source: path.text, sourceOctets, refusal, unread: 'source' }
  }
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
  if (format === 'eml' || (format === 'auto' && EML.test(path.text)))
    return yield await readEml(path)
  const head = await readHead(path)
  if (head.startsWith('From ')) return yield* readMbox(path)
  if (format === 'mbox' && head === '') return // all of it was fetched and deleted
  if (format === 'mbox') return yield refuse('does not begin with a "From " line')
  // One that is empty is told as such.
  if (head === '' || beginsLikeMessage(head)) return yield await readEml(path)
  const why = 'does not look like a message: use --format eml to import it anyway'
  yield refuse(why, stats.size)
}

/** Which part of a path it was that may not be a link. */
function linkIn(error: unknown): string | undefined {
  const { code, path } = error as NodeJS.ErrnoException
  return code === 'ELOOP' ? path : undefined
}

const EML = /\.eml$/i

/** A directory of .eml files is what the shell can spread. */
async function adviceOnFiles(directory: MailPath): Promise<string> {
  const names = await directory.list()
  return names.some((name) => EML.test(name))
    ? `: name ${join(directory.text, '*.eml')} instead`
    : ''
}

/** Decoded as latin1: one character an octet. */
async function readHead(path: MailPath): Promise<string> {
  let head = ''
  for await (const piece of path.read({ end: HEAD_OCTETS - 1 })) head += piece.toString('latin1')
  return head
}
