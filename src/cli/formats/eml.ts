/**
 * One message in one file, as it lies there: line ends apart, every octet of the file is the
 * message, a leading "From " line of some mbox too. The file's time of change stands for the day of
 * receipt.
 */
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import type { ImportItem } from '../../admin/transfer/import-messages.ts'

export async function readEml(path: string): Promise<ImportItem> {
  const { size, mtime } = await stat(path)
  return openFile(path, size, mtime)
}

/** A whole file as a message. */
export function openFile(
  path: string,
  octets: number,
  receivedAt: Date,
  open: (path: string) => AsyncIterable<Buffer> = createReadStream,
) {
  return { source: path, sourceOctets: octets, receivedAt, open: () => open(path) }
}
