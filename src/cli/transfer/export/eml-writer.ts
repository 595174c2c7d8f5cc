/**
 * One file a message, octet for octet as RETR sends it: <uid>_<unique-id>.eml, so that the order of
 * the names is the maildrop's. The day of receipt is the file's time of change.
 */
import { join } from 'node:path'
import type { MaildropWriter } from '../../../admin/transfer/export.ts'
import { fileNameOf, makeDirectories, writeMessageFile } from './export-directory.ts'

export async function openEmlWriter(directory: string): Promise<MaildropWriter> {
  await makeDirectories(directory, [])
  return {
    async write(message) {
      const number = String(message.uid).padStart(10, '0')
      const file = join(directory, `${number}_${fileNameOf(message.uniqueId)}.eml`)
      await writeMessageFile(file, message)
    },
    async finish() {},
  }
}
