/**
 * One message in one file, as it lies there: line ends apart, every octet of the file is the
 * message, a leading "From " line of some mbox too. The file's time of change stands for the day of
 * receipt.
 */
import type { ImportItem } from '../../admin/transfer/import-messages.ts'
import type { MailPath } from './mail-path.ts'

export async function readEml(path: MailPath): Promise<ImportItem> {
  const { size, mtime } = await path.stat()
  return openFile(path, size, mtime)
}

/** A whole file as a message. */
export function openFile(
  path: MailPath,
  octets: number,
  receivedAt: Date,
  open: (path: MailPath) => AsyncIterable<Buffer> = (file) => file.read(),
) {
  return { source: path.text, sourceOctets: octets, receivedAt, open: () => open(path) }
}
