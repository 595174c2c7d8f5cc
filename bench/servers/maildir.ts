/** The mail of the seed as Maildirs, written file by file. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { messageOf, type SeededAccount } from '../load/content.ts'

/** Of the first message; each has a second of its own, so that all servers see them in order. */
const FIRST_DELIVERY = 1_700_000_000

export interface MaildirFormat {
  /** Unix keeps LF; Dovecot may also be told to keep CRLF, and sends that as it is. */
  hasCrlf: boolean
}

/** Seen messages: nothing has to be moved out of `new` in the first session. */
export function writeMaildir(directory: string, account: SeededAccount, format: MaildirFormat) {
  for (const name of ['cur', 'new', 'tmp']) mkdirSync(join(directory, name), { recursive: true })
  for (let number = 1; number <= account.messages; number++) {
    const message = messageOf(account.user, number, account.octets)
    const kept = format.hasCrlf ? message : withoutCr(message)
    const name =
      `${FIRST_DELIVERY + number}.M${number}P1.bench` + `,S=${kept.length},W=${message.length}:2,S`
    writeFileSync(join(directory, 'cur', name), kept)
  }
}

function withoutCr(message: Buffer): Buffer {
  return Buffer.from(message.toString('latin1').replaceAll('\r\n', '\n'), 'latin1')
}
