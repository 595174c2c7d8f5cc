/**
 * An mbox: messages one after the other, each under a "From " line (RFC 4155). Read in two steps,
 * so that nothing larger than a buffer is held and each message can be opened again: the scan finds
 * where messages lie, opening one reads that part of the file.
 *
 * - Not every line that begins with "From " is a separator: mbox-separator.ts decides. So a
 *   paragraph of a message that somebody forgot to quote does not split it.
 * - Content-Length is not believed: programs that rewrite messages leave it wrong.
 * - The blank line before a separator, or at the end of the file, belongs to the mbox.
 * - Quoting is undone as mboxrd has it: of ">From ", ">>From ", … one ">" goes. In the older mboxo
 *   a line that was ">From " in the message itself loses its ">" too: the format cannot tell.
 */
import type { ImportItem } from '../../admin/transfer/import-messages.ts'
import { CR, LF } from '../../protocol/wire/ascii.ts'
import type { MailPath } from './mail-path.ts'
import { parseSeparator } from './mbox-separator.ts'

const GREATER_THAN = 0x3e
const SEPARATOR_START = Buffer.from('\nFrom ')
const FROM = Buffer.from('From ')

/** LIMIT: a separator and the start of the header under it fit in here. */
const LOOKAHEAD_OCTETS = 1_000

/** LIMIT: as many ">" are looked at across the seam of two reads. */
const QUOTES_MAX = 1_000

/** @throws errors of reading, with `syscall` */
export async function* readMbox(path: MailPath): AsyncGenerator<ImportItem> {
  let current: Separator | undefined
  let number = 0
  for await (const next of scan(path)) {
    if (current !== undefined) yield openPart(path, ++number, current, next)
    else if (next.from > 0)
      yield {
        source: path.text,
        sourceOctets: next.from,
        refusal: 'text before the first "From " line',
      }
    current = next
  }
}

/** One "From " line, or the end of the file. Octets are counted from the start of the file. */
interface Separator {
  /** Where the blank line before it begins: the message before ends here. */
  blankFrom: number
  from: number
  /** Where its message begins. */
  to: number
  date: Date | undefined
}

function openPart(path: MailPath, number: number, here: Separator, next: Separator): ImportItem {
  const start = here.to
  const end = Math.max(next.blankFrom, start)
  return {
    source: `${path.text}, message ${number}`,
    sourceOctets: next.from - here.from,
    receivedAt: here.date,
    open: () => unquote(end > start ? path.read({ start, end: end - 1 }) : []),
  }
}

/** All separators, and at last the end of the file. */
async function* scan(path: MailPath): AsyncGenerator<Separator> {
  // A line feed before the first octet lets the first line be like every other.
  let window = Buffer.from([LF, LF])
  let windowFrom = -2
  for await (const chunk of path.read()) {
    window = Buffer.concat([window, chunk])
    const { separators, keepFrom } = findSeparators(window, windowFrom, false)
    yield* separators
    window = window.subarray(keepFrom)
    windowFrom += keepFrom
  }
  yield* findSeparators(window, windowFrom, true).separators
  const end = windowFrom + window.length
  yield {
    blankFrom: end - blankOctetsAt(window, window.length - 1),
    from: end,
    to: end,
    date: undefined,
  }
}

/** @returns the separators that lie whole in `window`, and from where it has to be seen again */
function findSeparators(window: Buffer, windowFrom: number, isLast: boolean) {
  const separators: Separator[] = []
  let seenTo = 0
  let at = window.indexOf(SEPARATOR_START)
  for (; at !== -1; at = window.indexOf(SEPARATOR_START, at + 1)) {
    if (!isLast && window.length - at <= LOOKAHEAD_OCTETS) break
    const lines = window.toString('latin1', at + 1, at + LOOKAHEAD_OCTETS)
    const blankOctets = blankOctetsAt(window, at)
    const from = windowFrom + at + 1
    const separator = parseSeparator(lines, blankOctets > 0, from === 0)
    if (separator === undefined) continue
    const { length, date } = separator
    separators.push({ blankFrom: from - blankOctets, from, to: from + length, date })
    seenTo = at + length
  }
  // What may still become a separator, and the blank line before it.
  const keepFrom = at === -1 ? window.length - SEPARATOR_START.length - 2 : at - 2
  return { separators, keepFrom: Math.max(seenTo, keepFrom) }
}

/**
 * Octets of the blank line that ends at `at`: LF, CRLF; 0 if the line that ends there is not blank.
 */
function blankOctetsAt(window: Buffer, at: number): number {
  if (window[at] !== LF) return 0
  if (window[at - 1] === LF) return 1
  return window[at - 1] === CR && window[at - 2] === LF ? 2 : 0
}

/** Takes one ">" from each line of ">"s and "From ". */
async function* unquote(content: AsyncIterable<Buffer> | Buffer[]): AsyncGenerator<Buffer> {
  let tail: Buffer = Buffer.alloc(0)
  let isLineStart = true
  for await (const chunk of content) {
    const window = Buffer.concat([tail, chunk])
    const lastLine = window.lastIndexOf(LF) + 1
    const isWhole: boolean = lastLine === 0 && !isLineStart
    const cut: number =
      isWhole || !isPartOfQuote(window.subarray(lastLine)) ? window.length : lastLine
    yield* unquoteLines(window.subarray(0, cut), isLineStart)
    if (cut > 0) isLineStart = window[cut - 1] === LF
    tail = window.subarray(cut)
  }
  if (tail.length > 0) yield tail
}

/** Whether the start of a line may go on to be a quoted "From ". */
function isPartOfQuote(line: Buffer): boolean {
  if (line.length > QUOTES_MAX) return false
  return /^>+(F(r(om?)?)?)?$/.test(line.toString('latin1'))
}

function* unquoteLines(window: Buffer, isLineStart: boolean): Generator<Buffer> {
  let done = 0
  for (let at = window.indexOf(FROM); at !== -1; at = window.indexOf(FROM, at + 1)) {
    let quote = at
    while (quote > 0 && window[quote - 1] === GREATER_THAN) quote--
    const isAtStart = quote === 0 ? isLineStart : window[quote - 1] === LF
    if (quote === at || !isAtStart) continue
    yield window.subarray(done, quote)
    done = quote + 1
  }
  if (done < window.length) yield window.subarray(done)
}
