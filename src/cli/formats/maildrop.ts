/**
 * The maildrop of one user of an old server, wherever its files lie: what they are and which
 * server's unique-ids they have is asked for or found out by what lies beside them.
 */
import { describeReadError } from '../../admin/read-error.ts'
import { refused } from '../../admin/refusal.ts'
import type { ImportItem } from '../../admin/transfer/import-messages.ts'
import { readCourierMaildir, SIZELIST_NAME } from './courier-maildir.ts'
import { readDovecotMaildir } from './dovecot-maildir.ts'
import { UIDLIST_NAME } from './dovecot-uidlist.ts'
import type { MailPath } from './mail-path.ts'
import { isMaildir } from './maildir.ts'
import { readSources, type SourceFormat } from './sources.ts'
import type { UidlFormat } from './uidl-format.ts'
import { withXUidl } from './x-uidl.ts'

/** Where a unique-id comes from. */
export const UIDL_SOURCES = ['auto', 'dovecot', 'courier', 'x-uidl', 'none'] as const
export type UidlSource = (typeof UIDL_SOURCES)[number]

export interface MaildropOptions {
  uidl: UidlSource
  format: UidlFormat
  files: SourceFormat
  control?: MailPath | undefined
}

/**
 * Messages of all paths; what a path is that cannot be read is an item with the reason.
 * @throws {Failure} OPERATION_REFUSED if a server's list of unique-ids cannot be used
 */
export async function* readMaildrops(
  paths: readonly MailPath[],
  options: MaildropOptions,
): AsyncGenerator<ImportItem> {
  for (const path of paths) yield* readMaildrop(path, options)
}

async function* readMaildrop(path: MailPath, options: MaildropOptions): AsyncGenerator<ImportItem> {
  const isPlain = options.files === 'eml' || options.files === 'mbox' || !(await isMaildirAt(path))
  const server = isPlain ? undefined : await serverOf(path, options)
  if (server === undefined) {
    const items = readSources([path], options.files)
    yield* options.uidl === 'x-uidl' ? withXUidl(items) : items
  } else if (server === 'dovecot') {
    yield* telling(path, readDovecotMaildir(path, options))
  } else yield* telling(path, readCourierMaildir(path))
}

async function isMaildirAt(path: MailPath): Promise<boolean> {
  const stats = await path.stat().catch(() => undefined)
  return stats?.isDirectory() === true && (await isMaildir(path).catch(() => false))
}

/** Whose list counts; undefined: nobody's. */
async function serverOf(path: MailPath, { uidl, control = path }: MaildropOptions) {
  if (uidl === 'dovecot' || uidl === 'courier') return uidl
  if (uidl !== 'auto') return undefined
  const [isDovecot, isCourier] = await Promise.all([
    exists(control.below(UIDLIST_NAME)),
    exists(path.below(SIZELIST_NAME)),
  ])
  if (isDovecot && isCourier)
    throw refused(
      `${path.text} has unique-ids of both Dovecot and Courier: ` +
        'say whose count with --uidl dovecot or --uidl courier',
    )
  if (isDovecot) return 'dovecot'
  return isCourier ? 'courier' : undefined
}

/** What cannot be looked at is there: reading it will tell why not. */
async function exists(path: MailPath): Promise<boolean> {
  return await path.lstat().then(
    () => true,
    (error) => error.code !== 'ENOENT',
  )
}

/** A list that cannot be read is no reason to stop other users. */
async function* telling(
  path: MailPath,
  items: AsyncIterable<ImportItem>,
): AsyncGenerator<ImportItem> {
  try {
    yield* items
  } catch (error) {
    const reason = describeReadError(error)
    if (reason === undefined) throw error
    const { path: at = path.text } = error as NodeJS.ErrnoException
    throw refused(`${at} cannot be read: ${reason}`, error)
  }
}
