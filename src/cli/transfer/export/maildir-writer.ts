/**
 * A Maildir that Dovecot serves as it is: its dovecot-uidlist (version 3) has the uids in their
 * order, and the unique-ids as saved ones (P), which Dovecot's POP3 shows whatever its
 * pop3_uidl_format is. The day of receipt is the file's time of change and, in seconds, the start
 * of its name; S and W are the octets, alike as lines end in CRLF.
 */
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import type { MaildropWriter } from '../../../admin/transfer/export.ts'
import type {
  MaildropSnapshot,
  SnapshotMessage,
} from '../../../storage/tenants/maildrops/maildrop-snapshot.ts'
import { makeDirectories, writeMessageFile } from './export-directory.ts'

/** LIMIT: lines of the list that are kept before they are written. */
const LINES = 1_000

export async function openMaildirWriter(
  directory: string,
  { nextUid, uidValidity }: MaildropSnapshot,
): Promise<MaildropWriter> {
  await makeDirectories(directory, ['cur', 'new', 'tmp'])
  const list = await open(join(directory, 'dovecot-uidlist'), 'wx', 0o600)
  // 32 bits there; ours are milliseconds.
  let lines = [`3 V${Math.floor(uidValidity / 1_000) % 2 ** 32 || 1} N${nextUid}\n`]
  const flush = async (): Promise<void> => {
    await list.write(lines.join(''))
    lines = []
  }
  return {
    async write(message) {
      const name = nameOf(message)
      await writeMessageFile(join(directory, 'cur', `${name}:2,`), message)
      lines.push(`${message.uid} P${message.uniqueId} :${name}\n`)
      if (lines.length >= LINES) await flush()
    },
    async finish() {
      await flush()
      await list.close()
    },
  }
}

function nameOf({ uid, octets, receivedAt }: SnapshotMessage): string {
  const ms = receivedAt.getTime()
  const [seconds, micros] = [Math.floor(ms / 1_000), (((ms % 1_000) + 1_000) % 1_000) * 1_000]
  return `${seconds}.M${micros}P${uid}.popgres,S=${octets},W=${octets}`
}
