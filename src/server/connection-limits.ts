/**
 * How many may be in at once: connections of this worker in all, connections from one network,
 * sessions of one domain. What is counted is in memory here, so it is exact and costs nothing; the
 * limits of the settings are therefore each worker's.
 */

export interface ConnectionLimits {
  connections: number
  /** From one IPv4 address or IPv6 /64. */
  connectionsPerNetwork: number
  sessionsPerDomain: number
}

/** To be called when whoever came in goes; a second call does nothing. */
export type Leave = () => void

/**
 * Places by key. A key under which nobody is in is not kept, so there are never more keys than
 * connections.
 */
export class Places {
  readonly #max: number
  readonly #taken = new Map<string, number>()

  /** @param max places for each key */
  constructor(max: number) {
    this.#max = max
  }

  /** @returns undefined if all places of `key` are taken */
  enter(key: string): Leave | undefined {
    const taken = this.#taken.get(key) ?? 0
    if (taken >= this.#max) return undefined
    this.#taken.set(key, taken + 1)
    let isIn = true
    return () => {
      if (isIn) this.#leave(key)
      isIn = false
    }
  }

  #leave(key: string): void {
    const left = (this.#taken.get(key) ?? 0) - 1
    if (left > 0) this.#taken.set(key, left)
    else this.#taken.delete(key)
  }
}
