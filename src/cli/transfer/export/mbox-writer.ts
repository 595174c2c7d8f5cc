/**
 * An mbox (RFC 4155) as mboxrd has it: a line of ">"s and "From " gets one ">" more, which readers
 * of mboxrd take away again. The unique-id stands in an X-UIDL field before the others, the day of
 * receipt in the "From " line, in UTC and seconds. Lines end in CRLF, as they are kept.
 */
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import type { MaildropWriter } from '../../../admin/transfer/export.ts'
import { LF } from '../../../protocol/wire/ascii.ts'
import type { SnapshotMessage } from '../../../storage/tenants/maildrops/maildrop-snapshot.ts'
import { makeDirectories } from './export-directory.ts'

export async function openMboxWriter(directory: string): Promise<MaildropWriter> {
  await makeDirectories(directory, [])
  const file = await open(join(directory, 'mbox'), 'wx', 0o600)
  let end = 0
  const write = async (octets: Buffer): Promise<void> => {
    await file.write(octets, 0, octets.length, end)
    end += octets.length
  }
  return {
    async write(message) {
      const start = end
      try {
        await write(Buffer.from(headOf(message), 'latin1'))
        for await (const piece of quoteFrom(message.pieces())) await write(piece)
        await write(Buffer.from('\r\n'))
      } catch (error) {
        // Half a message would be taken for one.
        end = start
        await file.truncate(end)
        throw error
      }
    },
    finish: () => file.close(),
  }
}

function headOf({ uniqueId, receivedAt }: SnapshotMessage): string {
  // Thu, 13 Nov 2025 20:26:00 GMT → Thu Nov 13 20:26:00 2025
  const [weekday, day, month, year, time] = receivedAt.toUTCString().replace(',', '').split(' ')
  const asctime = `${weekday} ${month} ${day?.replace(/^0/, ' ')} ${time} ${year}`
  return `From MAILER-DAEMON ${asctime}\r\nX-UIDL: ${uniqueId}\r\n`
}

const QUOTE = Buffer.from('>')
/** What a line may begin with that is to be quoted; longer runs of ">" count as text. */
const START = /^>{0,998}From /
const MAYBE_START = /^>{0,998}(?:F(?:r(?:om?)?)?)?$/

/** Looks at the start of each line only; one that a piece cuts is looked at with the next piece. */
export async function* quoteFrom(pieces: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let held: Buffer = Buffer.alloc(0)
  let isLineStart = true
  for await (const piece of pieces) {
    const window: Buffer = held.length === 0 ? piece : Buffer.concat([held, piece])
    let done = 0
    for (let at = isLineStart ? 0 : nextLine(window, 0); at < window.length; ) {
      const start = window.toString('latin1', at, at + 1_003)
      if (at + start.length === window.length && MAYBE_START.test(start)) break
      if (START.test(start)) {
        yield window.subarray(done, at)
        yield QUOTE
        done = at
      }
      at = nextLine(window, at)
    }
    const lastLine = window.lastIndexOf(LF) + 1
    const isOpen: boolean = lastLine > 0 || isLineStart
    const isHeld: boolean =
      isOpen && MAYBE_START.test(window.toString('latin1', lastLine, lastLine + 1_003))
    held = isHeld ? window.subarray(lastLine) : Buffer.alloc(0)
    isLineStart = isHeld || window.at(-1) === LF
    yield window.subarray(done, window.length - held.length)
  }
  if (held.length > 0) yield held
}

function nextLine(window: Buffer, at: number): number {
  const end = window.indexOf(LF, at)
  return end === -1 ? window.length : end + 1
}
