/**
 * A Maildir as Dovecot's POP3 shows it: unique-ids and order from its dovecot-uidlist, the day of
 * receipt is the file's time of change. A file that is not in the list has been seen by no client:
 * it comes last and gets a new unique-id, as it would have there.
 */
import type { ImportItem } from '../../admin/transfer/import-messages.ts'
import { openCompressed } from './compressed-file.ts'
import { baseNameOf, readUidlist, UIDLIST_NAME, type UidlistRecord } from './dovecot-uidlist.ts'
import type { MailPath } from './mail-path.ts'
import { listInOrder, openFiles, type PlacedFile } from './maildir.ts'
import type { UidlFormat } from './uidl-format.ts'

export interface DovecotOptions {
  format: UidlFormat
  /** Where the list lies, if not in the Maildir (CONTROL= of mail_location). */
  control?: MailPath | undefined
}

/** @throws {Failure} OPERATION_REFUSED if the list is broken */
export async function* readDovecotMaildir(
  directory: MailPath,
  { format, control = directory }: DovecotOptions,
): AsyncGenerator<ImportItem> {
  const list = await readUidlist(control.below(UIDLIST_NAME))
  const known: { file: PlacedFile; record: UidlistRecord }[] = []
  const unseen: PlacedFile[] = []
  for (const file of await listInOrder(directory)) {
    const record: UidlistRecord | undefined = list.records.get(baseNameOf(file.name))
    if (record === undefined) unseen.push(file)
    else known.push({ file: { ...file, uniqueId: uniqueIdOf(record, list.uidValidity) }, record })
  }
  known.sort(({ record: one }, { record: other }) => {
    const [order1, order2] = [one.pop3Order ?? LAST, other.pop3Order ?? LAST]
    return order1 - order2 || one.uid - other.uid
  })
  yield* openFiles([...known.map(({ file }) => file), ...unseen], 'change', openCompressed)

  function uniqueIdOf(record: UidlistRecord, uidValidity: number): string {
    const { uid, filename, guid = filename, savedUidl } = record
    return savedUidl ?? format({ uid, uidValidity, filename, guid })
  }
}

const LAST = 2 ** 32
