/**
 * Passwords that were verified lately, so that a client that polls costs no argon2 and one round
 * trip. An entry is found by a keyed digest of address and password (the key is random and of this
 * process), so that it tells whom to expect before the account is read; it holds a digest of the
 * stored hash that the password was verified against. Neither password nor hash can be read from
 * it. It only saves work: the account is read at every login, and judged as it is then. Only
 * successes are kept.
 */
import { hash, randomBytes } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { METRICS } from '../../base/metrics.ts'
import type { Secret } from '../../base/secret.ts'
import type { Entitlement } from '../../storage/leases.ts'

/** LIMIT: some 20 MB. */
const ENTRIES_MAX = 50_000
const LIFE_MS = 3_600_000

interface Verified {
  entitlement: Entitlement
  /** of the stored hash; undefined: an app password, which costs nothing to verify */
  digest: string | undefined
}

/** What is remembered of one address and password. */
export interface Recollection {
  key: string
  verified: Verified | undefined
}

export class VerifiedCache {
  readonly #key = randomBytes(32)
  /** An entry that is replaced lives no longer: used or not, it is verified anew after an hour. */
  readonly #entries = new LRUCache<string, Verified>({
    max: ENTRIES_MAX,
    ttl: LIFE_MS,
    noUpdateTTL: true,
  })

  /** @param address in the form in which two spellings of it are one */
  recall(address: string, password: Secret): Recollection {
    // No address holds NUL.
    const octets = Buffer.concat([this.#key, Buffer.from(`${address}\0`), password.reveal()])
    const key = hash('sha256', octets, 'base64')
    octets.fill(0)
    const verified = this.#entries.get(key)
    METRICS.loginCache.of(verified === undefined ? 'miss' : 'hit').add()
    return { key, verified }
  }

  /** @param storedHash undefined: an app password was verified */
  add({ key }: Recollection, entitlement: Entitlement, storedHash: string | undefined): void {
    const digest = storedHash === undefined ? undefined : digestOf(storedHash)
    this.#entries.set(key, { entitlement, digest })
  }
}

/** Whether this is the hash against which the password was verified. */
export function isVerifiedAgainst({ verified }: Recollection, storedHash: string): boolean {
  return verified?.digest !== undefined && verified.digest === digestOf(storedHash)
}

const digestOf = (storedHash: string): string => hash('sha256', storedHash, 'base64')
