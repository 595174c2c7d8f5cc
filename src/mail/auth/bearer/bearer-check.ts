/**
 * Bearer tokens of OAuth 2.0 (RFC 6750): does the provider of this domain vouch for whoever holds
 * the token, and as which address? A provider speaks for its own domain only, whatever its tokens
 * claim. A provider that is away is a Failure, which is temporary: never "bad credentials".
 */
import { LRUCache } from 'lru-cache'
import { assert } from '../../../base/assert.ts'
import type { Keyring } from '../../../base/keyring.ts'
import type { Secret } from '../../../base/secret.ts'
import type { Database } from '../../../storage/postgres/database.ts'
import {
  type OauthProvider,
  selectOauthProvider,
} from '../../../storage/tenants/oauth-providers.ts'
import type { Asker } from '../hash-queue.ts'
import { type BearerVerdict, refused } from './claims.ts'
import { Introspection } from './introspection.ts'
import { JwtCheck } from './jwt.ts'

export interface BearerCheckOptions {
  db: Database
  /** Opens client secrets; undefined: providers that are asked cannot be. */
  keyring: Keyring | undefined
  /** How long a provider may take; only tests of waiting change it. */
  providerTimeoutMs?: number
}

/** So soon every node sees that a domain's provider was changed. */
const PROVIDER_CACHE_MS = 10_000
const PROVIDER_CACHE_ENTRIES = 10_000

/** RFC 6750 §2.1. LIMIT: what else is sent as a token is none, and is sent on to nobody. */
const TOKEN = /^[A-Za-z0-9._~+/-]{1,16384}={0,2}$/

export class BearerCheck {
  readonly #db: Database
  readonly #jwt: JwtCheck
  readonly #introspection: Introspection
  readonly #providers = new LRUCache<string, { provider: OauthProvider | undefined }>({
    max: PROVIDER_CACHE_ENTRIES,
    ttl: PROVIDER_CACHE_MS,
  })

  constructor({ db, keyring, providerTimeoutMs }: BearerCheckOptions) {
    this.#db = db
    this.#jwt = new JwtCheck(providerTimeoutMs)
    this.#introspection = new Introspection(keyring, providerTimeoutMs)
  }

  /**
   * Costs and answers the same whether the user exists or not: users are not looked at.
   * @param domainName of the name that came with the token, lower case
   * @param asker for its turn where the provider is asked
   * @throws {Failure} temporary: AUTH_PROVIDER_AWAY, AUTH_OVERLOADED, or a storage failure
   */
  async verify(
    domainName: string,
    token: Secret,
    asker: Omit<Asker, 'domain'>,
  ): Promise<BearerVerdict> {
    const provider = await this.#findProvider(domainName)
    if (provider === undefined) return refused('no OAuth provider')
    const text = token.reveal().toString('latin1')
    if (!TOKEN.test(text)) return refused('malformed token')
    const { jwksUri, introspectionUri } = provider
    if (jwksUri !== undefined) return this.#jwt.verify(provider, jwksUri, text)
    assert(introspectionUri !== undefined, 'a provider has one of the two URIs')
    const full = { ...asker, domain: domainName }
    return this.#introspection.verify(provider, introspectionUri, token, full)
  }

  async #findProvider(domainName: string): Promise<OauthProvider | undefined> {
    const cached = this.#providers.get(domainName)
    if (cached !== undefined) return cached.provider
    const provider = await selectOauthProvider(this.#db, domainName)
    this.#providers.set(domainName, { provider })
    return provider
  }
}
