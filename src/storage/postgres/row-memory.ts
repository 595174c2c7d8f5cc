/**
 * Memory for the rows of large answers that is used again. What is allocated for each answer lies
 * outside of V8's heap, and V8 collects all garbage whenever some tens of MiB of that have
 * gathered: of a worker that sends mail as fast as it can that was a third to two thirds of its
 * CPU.
 */

/** LIMIT: what is read from a socket at once lies in one piece, and fits. */
const SLAB_OCTETS = 131_072
/** LIMIT: slabs kept for whoever asks next, in this process; 8 MiB. */
const SPARE_MAX = 64

const spare: Buffer[] = []

export class RowMemory {
  readonly #slabs: Buffer[] = []
  #usedOctets = 0

  /** Of so many octets less would be gained than lies idle. */
  static forAnswer(octets: number): RowMemory | undefined {
    return octets < SLAB_OCTETS ? undefined : new RowMemory()
  }

  /** Memory that nobody else writes to until all of this is given back. */
  allocate(octets: number): Buffer {
    if (octets > SLAB_OCTETS) return Buffer.allocUnsafeSlow(octets)
    let slab = this.#slabs.at(-1)
    if (slab === undefined || this.#usedOctets + octets > SLAB_OCTETS) {
      slab = spare.pop() ?? Buffer.allocUnsafeSlow(SLAB_OCTETS)
      this.#slabs.push(slab)
      this.#usedOctets = 0
    }
    this.#usedOctets += octets
    return slab.subarray(this.#usedOctets - octets, this.#usedOctets)
  }

  /**
   * To be called when nothing that lies here is looked at any more, and only of an answer that came
   * whole: of another one rows may still be on their way. Without this it is garbage as any other.
   */
  giveBack(): void {
    for (const slab of this.#slabs.splice(0)) if (spare.length < SPARE_MAX) spare.push(slab)
  }
}
