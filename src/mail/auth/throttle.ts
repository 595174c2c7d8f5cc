/**
 * What failed logins cost the next attempt: first nothing (people mistype), then a growing delay,
 * then a refusal before any proof is looked at. All nodes count together, in PostgreSQL; a login
 * that succeeds writes nothing, but once a day from where it came.
 *
 * Failures count against the client's network (an IPv4 address, an IPv6 /64), against the user as
 * it was named, known or not alike, and against the domain. Networks refuse themselves; too many
 * failures of a user refuse the networks that it did not lately log in from; those of a domain only
 * delay such networks. So others can lock a user out of nowhere it is used from: there only what
 * failed from there, for this user, counts (the key `known`).
 *
 * The same wrong proof again counts once: a device that knows an old password tries it for days.
 */
import { createHmac, randomBytes } from 'node:crypto'
import { assert } from '../../base/assert.ts'
import type { Keyring } from '../../base/keyring.ts'
import type { Log } from '../../base/log.ts'
import type { LoginAccount } from '../../storage/accounts.ts'
import type { Database } from '../../storage/postgres/database.ts'
import {
  countFailure,
  noteNetwork,
  selectThrottles,
  shareProofKey,
  type ThrottleCounts,
  type ThrottleKind,
} from '../../storage/throttles.ts'
import type { LoginName } from './login-name.ts'
import { sourceOf } from './source.ts'

/** By kind; who named no address has the network's alone. */
export type ThrottleKeys = Pick<Record<ThrottleKind, string>, 'network'> &
  Partial<Record<ThrottleKind, string>>

/** Who tries to log in. */
export interface Claimant {
  /** address of the peer */
  client: string
  /** undefined: what was typed cannot be an address, or a token alone says who */
  name: LoginName | undefined
  /** of throttleKeys */
  keys: ThrottleKeys
  /** undefined: unknown, or not looked up */
  account?: Pick<LoginAccount, 'isKnownNetwork'> | undefined
}

export type ThrottleVerdict =
  /** after `delayMs`, the proof may be looked at */
  { kind: 'go'; delayMs: number } | { kind: 'refuse' }

interface Rule {
  /** failures that cost nothing */
  free: number
  /** the delay doubles with each `step` more */
  step: number
  /** from here on nothing is verified */
  refuseFrom: number
}

const RULES: Readonly<Record<ThrottleKind, Rule>> = {
  network: { free: 10, step: 10, refuseFrom: 50 },
  user: { free: 3, step: 1, refuseFrom: 10 },
  known: { free: 3, step: 3, refuseFrom: 20 },
  domain: { free: 100, step: 100, refuseFrom: Number.POSITIVE_INFINITY },
}

const NAMELESS = ['network'] as const
const FROM_KNOWN_NETWORK = ['known'] as const
const FROM_ELSEWHERE = ['network', 'user', 'domain'] as const
const NOTHING_TO_LEAVE = (): void => {}

const FIRST_DELAY_MS = 1_000
const DELAY_MAX_MS = 8_000
const PROOF_OCTETS = 16

interface ThrottleOptions {
  db: Database
  log: Log
  /** Of all nodes; undefined: they share a random key in the database. */
  keyring: Keyring | undefined
}

export class Throttle {
  readonly #options: ThrottleOptions
  /** Attempts of this process that are not judged yet, by the key of the user they name. */
  readonly #inFlight = new Map<string, number>()

  constructor(options: ThrottleOptions) {
    this.#options = options
  }

  /** For an attempt that needs no look at an account; otherwise the counts come with it. */
  read(keys: ThrottleKeys): Promise<ThrottleCounts> {
    return selectThrottles(this.#options.db, Object.values(keys))
  }

  /**
   * To be asked before anything is spent on the proof.
   * @param counts of its keys, read just now
   */
  judge(who: Claimant, counts: ThrottleCounts): ThrottleVerdict {
    let delayMs = 0
    for (const kind of kindsOf(who)) {
      const key = keyOf(who, kind)
      const verdict = judgeCount(kind, (counts.get(key) ?? 0) + (this.#inFlight.get(key) ?? 0))
      if (verdict.kind === 'refuse') return verdict
      delayMs = Math.max(delayMs, verdict.delayMs)
    }
    return { kind: 'go', delayMs }
  }

  /**
   * While its proof is looked at, an attempt counts for those that come meanwhile as if it had
   * failed: many at once get no further with one user than one after the other.
   * @returns to be called when the attempt is over
   */
  enter(who: Claimant): () => void {
    if (who.name === undefined) return NOTHING_TO_LEAVE
    const key = keyOf(who, who.account?.isKnownNetwork ? 'known' : 'user')
    this.#inFlight.set(key, (this.#inFlight.get(key) ?? 0) + 1)
    return () => {
      const left = (this.#inFlight.get(key) ?? 0) - 1
      if (left > 0) this.#inFlight.set(key, left)
      else this.#inFlight.delete(key)
    }
  }

  /**
   * To be waited for before the refusal is told, so that the next attempt is judged by it. Never
   * throws: what the database cannot take is not counted.
   * @param proof what did not prove it: a password, or whatever the mechanism has in its place
   */
  async recordFailure(who: Claimant, proof: Buffer): Promise<void> {
    const keys = kindsOf(who).map((kind) => keyOf(who, kind))
    try {
      await countFailure(this.#options.db, keys, await this.#digest(who.name, proof))
    } catch (error) {
      this.#options.log.warn({ error, client: who.client }, 'a failed login was not counted')
    }
  }

  /** Not to be waited for. Never throws. @param account that logged in from there */
  async recordSuccess(
    client: string,
    account: Pick<LoginAccount, 'domainId' | 'userId' | 'isNetworkNoted'>,
  ): Promise<void> {
    if (account.isNetworkNoted) return
    try {
      await noteNetwork(this.#options.db, account.domainId, account.userId, sourceOf(client))
    } catch (error) {
      this.#options.log.warn({ error, client }, 'the network of a login was not noted')
    }
  }

  /** Keyed, so that who reads the table cannot try passwords against it. */
  async #digest(name: LoginName | undefined, proof: Buffer): Promise<Buffer> {
    const { db, keyring } = this.#options
    const key = keyring?.derive('throttle', 32) ?? (await shareProofKey(db, randomBytes(32)))
    const hmac = createHmac('sha256', key)
      .update(`${addressOf(name)}\0`)
      .update(proof)
    return hmac.digest().subarray(0, PROOF_OCTETS)
  }
}

/** What so many failures of one key mean for the next attempt. */
export function judgeCount(kind: ThrottleKind, failures: number): ThrottleVerdict {
  const { free, step, refuseFrom } = RULES[kind]
  const count = Math.round(failures)
  if (count >= refuseFrom) return { kind: 'refuse' }
  const steps = Math.ceil((count - free) / step)
  const delayMs = steps > 0 ? FIRST_DELAY_MS * 2 ** (steps - 1) : 0
  return { kind: 'go', delayMs: Math.min(delayMs, DELAY_MAX_MS) }
}

/** The keys whose counts `judge` may want to know, whoever the account is. */
export function throttleKeys(client: string, name: LoginName | undefined): ThrottleKeys {
  const source = sourceOf(client)
  const network = `network ${source}`
  if (name === undefined) return { network }
  const address = addressOf(name)
  const [user, known] = [`user ${address}`, `known ${source} ${address}`]
  return { network, user, domain: `domain ${name.domainName}`, known }
}

/** What this attempt is judged by, and what its failure counts against. */
function kindsOf({ name, account }: Claimant): readonly ThrottleKind[] {
  if (name === undefined) return NAMELESS
  return account?.isKnownNetwork ? FROM_KNOWN_NETWORK : FROM_ELSEWHERE
}

function keyOf({ keys }: Claimant, kind: ThrottleKind): string {
  const key = keys[kind]
  assert(key !== undefined, 'who named an address has a key of every kind')
  return key
}

const addressOf = (name: LoginName | undefined): string => name?.address.toLowerCase() ?? ''
