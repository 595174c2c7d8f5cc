/**
 * Tokens that only their provider understands: it is asked what it knows of them (RFC 7662). What
 * it said is remembered for a minute at most, and not beyond the token's own end.
 */
import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { Failure } from '../../../base/failure.ts'
import type { Keyring } from '../../../base/keyring.ts'
import type { Secret } from '../../../base/secret.ts'
import type { OauthProvider } from '../../../storage/tenants/oauth-providers.ts'
import { type Asker, HashQueue } from '../hash-queue.ts'
import {
  type BearerReason,
  type BearerVerdict,
  type Claims,
  judgeClaims,
  LEEWAY_SECONDS,
  refused,
} from './claims.ts'
import { fetchJson } from './provider-fetch.ts'

/** A token that the provider takes back is good for so long. */
const VOUCHED_CACHE_SECONDS = 60
/** Shorter: a new token may not have reached all of the provider's servers. */
const REFUSED_CACHE_SECONDS = 10
const CACHE_ENTRIES = 10_000

/** Of one provider; the worker's logins elsewhere do not feel it. */
const QUEUE = { concurrency: 16, waitingMax: 256, deadlineMs: 5_000 }
const QUEUES_MAX = 1_000

/** What the client secret of a domain's provider is sealed for. */
export const oauthUse = (domainId: number): string => `oauth ${domainId}`

export class Introspection {
  readonly #keyring: Keyring | undefined
  readonly #timeoutMs: number | undefined
  readonly #verdicts = new LRUCache<string, BearerVerdict>({ max: CACHE_ENTRIES })
  readonly #queues = new LRUCache<string, HashQueue>({ max: QUEUES_MAX })

  constructor(keyring: Keyring | undefined, timeoutMs: number | undefined) {
    this.#keyring = keyring
    this.#timeoutMs = timeoutMs
  }

  /** @throws {Failure} AUTH_PROVIDER_AWAY, AUTH_OVERLOADED */
  async verify(
    provider: OauthProvider,
    uri: string,
    token: Secret,
    asker: Asker,
  ): Promise<BearerVerdict> {
    const key = keyOf(provider, token)
    const known = this.#verdicts.get(key)
    if (known !== undefined) return known
    const claims = await this.#queue(uri).run(asker, () => this.#ask(provider, uri, token))
    const now = Date.now() / 1_000
    const reason = findFault(provider, claims, now)
    const verdict = reason === undefined ? judgeClaims(provider, claims) : refused(reason)
    const seconds = verdict.kind === 'vouched' ? VOUCHED_CACHE_SECONDS : REFUSED_CACHE_SECONDS
    const ttl = Math.floor(1_000 * Math.min(seconds, secondsLeft(claims, now)))
    if (ttl > 0) this.#verdicts.set(key, verdict, { ttl })
    return verdict
  }

  async #ask(provider: OauthProvider, uri: string, token: Secret): Promise<Claims> {
    const body = new URLSearchParams({
      token: token.reveal().toString('latin1'),
      token_type_hint: 'access_token',
    })
    const headers = { accept: 'application/json', authorization: this.#authorize(provider) }
    const answer = await fetchJson(uri, { method: 'POST', headers, body }, this.#timeoutMs)
    return Object(answer)
  }

  /** RFC 6749 §2.3.1: both halves are form-encoded before they are joined. */
  #authorize({ domainId, domainName, clientId, clientSecret }: OauthProvider): string {
    const opened = clientSecret && this.#keyring?.open(oauthUse(domainId), clientSecret)
    if (opened?.kind !== 'opened')
      throw new Failure(
        'AUTH_PROVIDER_AWAY',
        `the client secret for the OAuth provider of ${domainName} cannot be opened: ` +
          'is POPGRES_SECRET_KEY the one it was set under?',
      )
    const pair = [clientId ?? '', opened.secret.reveal().toString('utf8')].map(formEncode)
    return `Basic ${Buffer.from(pair.join(':')).toString('base64')}`
  }

  #queue(uri: string): HashQueue {
    const queue = this.#queues.get(uri) ?? new HashQueue(QUEUE)
    this.#queues.set(uri, queue)
    return queue
  }
}

/** A provider that was set anew in any way has said nothing yet. */
function keyOf(provider: OauthProvider, token: Secret): string {
  const hash = createHash('sha256').update(JSON.stringify(provider)).update('\0')
  return hash.update(token.reveal()).digest('base64')
}

/** RFC 7662 §2.2: all but `active` may be left out; an audience that we want must be there. */
function findFault(
  { issuer, audience }: OauthProvider,
  { active, iss, aud, exp, nbf }: Claims,
  now: number,
): BearerReason | undefined {
  if (active !== true) return 'inactive token'
  if (iss !== undefined && iss !== issuer) return 'token of another issuer'
  if (audience !== undefined && ![aud].flat().includes(audience))
    return 'token for another audience'
  if (Number(exp) + LEEWAY_SECONDS <= now) return 'expired token'
  if (Number(nbf) - LEEWAY_SECONDS > now) return 'token not yet valid'
  return undefined
}

function secondsLeft({ exp }: Claims, now: number): number {
  return typeof exp === 'number' ? exp - now : Number.POSITIVE_INFINITY
}

function formEncode(text: string): string {
  return new URLSearchParams({ text }).toString().slice('text='.length)
}
