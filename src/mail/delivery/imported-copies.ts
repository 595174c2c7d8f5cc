/**
 * Which copy of its octets a message from another server is: what tells two of them apart in the
 * ledger `imported`. Whoever brings mail in, by POP3, IMAP or from files, must count alike, or one
 * would bring again what the other has brought. Who writes the ledger: storage/deliveries.ts.
 */
import { createHash } from 'node:crypto'

/** A unique-id that can be kept: RFC 1939 §7, without "/". Migrations say so too. */
export const UNIQUE_ID = /^[!-.0-~]{1,70}$/
/** Copies from here on are made of unique-ids, those below are counted. */
const NAMED_FROM = 2 ** 30

export function isCounted(copy: number): boolean {
  return copy < NAMED_FROM
}

/** Of a message that is told apart by its unique-id on the old server. */
export function copyOf(uniqueId: string): number {
  const digest = createHash('sha256').update(uniqueId).digest()
  return NAMED_FROM + (digest.readUInt32BE(0) % NAMED_FROM)
}

/** Of those without one: two equal messages are two messages, copy 1 and 2. */
export class CopyCounter {
  readonly #counts = new Map<string, number>()

  /** @returns how often these octets came up, this time included */
  count(digest: Buffer): number {
    const key = digest.toString('base64')
    const count = (this.#counts.get(key) ?? 0) + 1
    this.#counts.set(key, count)
    return count
  }
}
