/**
 * Passwords that were verified lately, so that a client that polls costs no argon2. An entry is a
 * keyed digest of whose password it is, the hash that it was verified against and the password
 * itself: the key is random and of this process, and neither hash nor password can be read from it.
 * The stored hash is read at every login and is part of the digest, so a changed password finds
 * nothing here. Only successes are kept.
 */
import { createHmac, randomBytes } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { Secret } from '../../base/secret.ts'
import type { LoginAccount } from '../../storage/accounts.ts'

/** LIMIT: some 10 MB. */
const ENTRIES_MAX = 50_000
const LIFE_MS = 3_600_000

type Owner = Pick<LoginAccount, 'domainId' | 'userId'>

export class VerifiedCache {
  readonly #key = randomBytes(32)
  readonly #entries = new LRUCache<string, true>({ max: ENTRIES_MAX, ttl: LIFE_MS })

  has(owner: Owner, storedHash: string, password: Secret): boolean {
    return this.#entries.has(this.#digest(owner, storedHash, password))
  }

  add(owner: Owner, storedHash: string, password: Secret): void {
    this.#entries.set(this.#digest(owner, storedHash, password), true)
  }

  /** No part can run into the next: ids are digits, a stored hash has no NUL, the rest is last. */
  #digest({ domainId, userId }: Owner, storedHash: string, password: Secret): string {
    return createHmac('sha256', this.#key)
      .update(`${domainId}\0${userId}\0${storedHash}\0`)
      .update(password.reveal())
      .digest('base64')
  }
}
