/**
 * The list that a server keeps beside the mail. It lies where its user may write, so it is as
 * bounded as any other input: a list beyond the limits refuses this maildrop, and no other.
 */
import { refused } from '../../admin/refusal.ts'
import type { MailPath } from './mail-path.ts'

/** LIMIT: of one list. A line names a message and has about 100 octets. */
const LIST_MAX_OCTETS = 67_108_864
const LIST_MAX_LINES = 500_000
/** LIMIT: a file's name has 255 octets at most, the rest is numbers. */
const LINE_MAX_OCTETS = 2_048

/**
 * @returns one character an octet, which keeps every file's name apart; undefined: there is none
 * @throws {Failure} OPERATION_REFUSED beyond a limit; errors of reading as they come
 */
export async function readListLines(path: MailPath): Promise<string[] | undefined> {
  const pieces: Buffer[] = []
  let octets = 0
  try {
    for await (const piece of path.read()) {
      octets += piece.length
      if (octets > LIST_MAX_OCTETS) throw refused(`${path.text} is larger than 64 MiB`)
      pieces.push(piece)
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
  const lines = Buffer.concat(pieces)
    .toString('latin1')
    .split('\n', LIST_MAX_LINES + 1)
  if (lines.at(-1) === '') lines.pop()
  if (lines.length > LIST_MAX_LINES)
    throw refused(`${path.text} has more than ${LIST_MAX_LINES} lines`)
  const long = lines.findIndex((line) => line.length > LINE_MAX_OCTETS)
  if (long >= 0)
    throw refused(`${path.text} line ${long + 1} has more than ${LINE_MAX_OCTETS} octets`)
  return lines
}
