/**
 * The maildrop of one user in an export, whatever its format: octet for octet what was exported,
 * with its unique-ids, its order and its dates. What the format has added is taken away again. How
 * many messages there must be stands in users.json, so that half a copy is not taken for the whole.
 */
import { describeReadError } from '../../../admin/read-error.ts'
import { refused } from '../../../admin/refusal.ts'
import type { ImportItem } from '../../../admin/transfer/import-messages.ts'
import type { OldMaildrop } from '../../../admin/transfer/move-in.ts'
import { readDovecotMaildir } from '../../formats/dovecot-maildir.ts'
import { openFile } from '../../formats/eml.ts'
import { MailPath } from '../../formats/mail-path.ts'
import { readMbox } from '../../formats/mbox.ts'
import { measureSources } from '../../formats/sources.ts'
import { DEFAULT_UIDL_FORMAT, parseUidlFormat } from '../../formats/uidl-format.ts'

export const EXPORT_FORMATS = ['maildir', 'mbox', 'eml'] as const
export type ExportFormat = (typeof EXPORT_FORMATS)[number]

interface Reader {
  measure(directory: MailPath): Promise<number>
  read(directory: MailPath): AsyncIterable<ImportItem>
}

const READERS: Record<ExportFormat, Reader> = {
  maildir: {
    measure: (directory) => measureSources([directory]),
    // All unique-ids are saved ones, so that no format counts.
    read: (directory) =>
      readDovecotMaildir(directory, { format: parseUidlFormat(DEFAULT_UIDL_FORMAT) }),
  },
  mbox: {
    measure: (directory) => measureSources([directory.below('mbox')]),
    read: (directory) => takeIdsOut(readMbox(directory.below('mbox'))),
  },
  eml: { measure: measureFiles, read: readNumbered },
}

/**
 * @param count how many messages there are to be
 * @param missing what the export could not read, as items
 */
export function openExported(
  directory: string,
  format: ExportFormat,
  count: number,
  missing: readonly ImportItem[],
): OldMaildrop {
  const { measure, read } = READERS[format]
  const path = MailPath.of(directory)
  return {
    measure: () => measure(path).catch((error) => explain(directory, error)),
    async *messages() {
      let found = 0
      try {
        for await (const item of read(path)) {
          found += 1
          yield item
        }
      } catch (error) {
        explain(directory, error)
      }
      if (found !== count)
        throw refused(
          `${directory} has ${found} messages, but users.json says ${count}: copy it anew`,
        )
      yield* missing
    },
  }
}

function explain(directory: string, error: unknown): never {
  const reason = describeReadError(error)
  throw reason === undefined ? error : refused(`${directory} cannot be read: ${reason}`, error)
}

const X_UIDL = /^X-UIDL: ([!-.0-~]{1,70})\r?\n/
/** LIMIT: the longest of such lines fits in. */
const X_UIDL_OCTETS = 80

async function* takeIdsOut(items: AsyncIterable<ImportItem>): AsyncGenerator<ImportItem> {
  for await (const item of items) {
    if ('refusal' in item) yield item
    else {
      const [line = '', uniqueId] = X_UIDL.exec(await readHead(item.open())) ?? []
      const { source, sourceOctets } = item
      if (uniqueId === undefined)
        yield { source, sourceOctets, refusal: 'does not begin with X-UIDL, as exported ones do' }
      else yield { ...item, uniqueId, open: () => dropOctets(item.open(), line.length) }
    }
  }
}

async function readHead(content: AsyncIterable<Buffer>): Promise<string> {
  let head = ''
  for await (const piece of content) {
    head += piece.toString('latin1', 0, X_UIDL_OCTETS)
    if (head.length >= X_UIDL_OCTETS) break
  }
  return head
}

async function* dropOctets(content: AsyncIterable<Buffer>, octets: number): AsyncGenerator<Buffer> {
  let open = octets
  for await (const piece of content) {
    if (piece.length > open) yield piece.subarray(open)
    open = Math.max(open - piece.length, 0)
  }
}

/** <uid>_<unique-id>.eml, see eml-writer.ts */
const NAME = /^\d{10}_((?:[A-Za-z0-9._+=@-]|%[2-7][0-9a-f])+)\.eml$/

/** In the order of their names, which is that of the uids. */
async function* readNumbered(directory: MailPath): AsyncGenerator<ImportItem> {
  for (const name of (await directory.list()).sort()) {
    const path = directory.below(name)
    const stats = await path.lstat()
    const id = NAME.exec(name)?.[1]
    if (id === undefined || !stats.isFile())
      yield { source: path.text, sourceOctets: 0, refusal: 'is no message of an export' }
    else yield { ...openFile(path, stats.size, stats.mtime), uniqueId: decodeURIComponent(id) }
  }
}

async function measureFiles(directory: MailPath): Promise<number> {
  let octets = 0
  for (const name of await directory.list()) octets += (await directory.below(name).lstat()).size
  return octets
}
