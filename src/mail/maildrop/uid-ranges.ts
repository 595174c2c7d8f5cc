/**
 * A set of uids as ranges, which is what a session's fetches nearly always are: one range. Bounded
 * whatever a client does: of more ranges than that, those with the smallest gaps between them are
 * joined. Then the set holds more uids than were added, and `count` tells so; it never holds fewer.
 */

/** LIMIT: ranges that are written down; some 20 KB of text. */
const RANGES_MAX = 1_000

export class UidRanges {
  /** How many different uids were added; once ranges were joined, at least how many. */
  count = 0
  /** First and last of each range, ascending. */
  readonly #bounds: number[] = []

  static of(uids: Iterable<number>): UidRanges {
    const ranges = new UidRanges()
    for (const uid of uids) ranges.add(uid)
    return ranges
  }

  add(uid: number): void {
    const bounds = this.#bounds
    const top = bounds.length - 1
    const at = uid > (bounds[top] ?? 0) ? bounds.length : this.#rangeFrom(uid)
    if ((bounds[at] ?? uid + 1) <= uid) return
    this.count++
    const touchesLower = bounds[at - 1] === uid - 1
    const touchesUpper = bounds[at] === uid + 1
    if (touchesLower && touchesUpper) bounds.splice(at - 1, 2)
    else if (touchesLower) bounds[at - 1] = uid
    else if (touchesUpper) bounds[at] = uid
    else bounds.splice(at, 0, uid, uid)
    if (bounds.length > 4 * RANGES_MAX) this.#join()
  }

  /** As PostgreSQL reads an int4multirange. */
  toText(): string {
    this.#join()
    const parts: string[] = []
    for (let at = 0; at < this.#bounds.length; at += 2)
      parts.push(`[${this.#bounds[at]},${this.#bounds[at + 1]}]`)
    return `{${parts.join(',')}}`
  }

  /** Where the first range begins that does not end before `uid`. */
  #rangeFrom(uid: number): number {
    let low = 0
    let high = this.#bounds.length / 2
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#bounds[2 * middle + 1] ?? 0) < uid) low = middle + 1
      else high = middle
    }
    return 2 * low
  }

  #join(): void {
    const bounds = this.#bounds
    let surplus = bounds.length / 2 - RANGES_MAX
    if (surplus <= 0) return
    const gapAt = (at: number): number => (bounds[at] ?? 0) - (bounds[at - 1] ?? 0)
    const gaps: number[] = []
    for (let at = 2; at < bounds.length; at += 2) gaps.push(gapAt(at))
    const widest = gaps.sort((a, b) => a - b)[surplus - 1] ?? 0
    const kept = bounds.slice(0, 1)
    for (let at = 2; at < bounds.length; at += 2) {
      if (surplus > 0 && gapAt(at) <= widest) surplus--
      else kept.push(bounds[at - 1] ?? 0, bounds[at] ?? 0)
    }
    kept.push(bounds[bounds.length - 1] ?? 0)
    this.#bounds.splice(0, bounds.length, ...kept)
  }
}
