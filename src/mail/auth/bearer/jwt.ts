/**
 * Tokens that are JWTs (RFC 7519, RFC 9068), verified with the keys that the provider publishes.
 * The token names its key and algorithm, we say which are allowed: public keys of the provider's
 * own set only, so neither "none" nor a secret that everybody can make from a public key (RFC 8725
 * §3.1). The work is jose's.
 */
import { createRemoteJWKSet, customFetch, errors, jwtVerify } from 'jose'
import { LRUCache } from 'lru-cache'
import { Failure } from '../../../base/failure.ts'
import type { OauthProvider } from '../../../storage/tenants/oauth-providers.ts'
import {
  type BearerReason,
  type BearerVerdict,
  judgeClaims,
  LEEWAY_SECONDS,
  refused,
} from './claims.ts'
import { fetchJson } from './provider-fetch.ts'

const ALGORITHMS = [
  ...['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'],
  ...['ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'],
]

/** A token of an unknown key makes us look for new ones, but no oftener than this. */
const KEYS_COOLDOWN_MS = 10_000
/** So long a key is trusted that the provider has withdrawn. */
const KEYS_MAX_AGE_MS = 600_000
/** LIMIT: of 64 KiB each at most. */
const KEY_SETS_MAX = 1_000

type KeySet = ReturnType<typeof createRemoteJWKSet>

export class JwtCheck {
  readonly #timeoutMs: number | undefined
  readonly #keySets = new LRUCache<string, KeySet>({ max: KEY_SETS_MAX })

  constructor(timeoutMs: number | undefined) {
    this.#timeoutMs = timeoutMs
  }

  /** @throws {Failure} AUTH_PROVIDER_AWAY if the keys are needed and cannot be had */
  async verify(provider: OauthProvider, jwksUri: string, token: string): Promise<BearerVerdict> {
    const { issuer, audience } = provider
    try {
      const { payload } = await jwtVerify(token, this.#keySet(jwksUri), {
        issuer,
        ...(audience === undefined ? {} : { audience }),
        algorithms: ALGORITHMS,
        clockTolerance: LEEWAY_SECONDS,
        requiredClaims: ['exp'],
      })
      return judgeClaims(provider, payload)
    } catch (error) {
      if (error instanceof errors.JWKSInvalid)
        throw new Failure('AUTH_PROVIDER_AWAY', `${jwksUri} has no key set (RFC 7517)`, error)
      if (error instanceof errors.JOSEError) return refused(reasonOf(error))
      throw error
    }
  }

  /** Logins that need the keys at the same time wait for one request. */
  #keySet(jwksUri: string): KeySet {
    const known = this.#keySets.get(jwksUri)
    if (known !== undefined) return known
    const keySet = createRemoteJWKSet(new URL(jwksUri), {
      cooldownDuration: KEYS_COOLDOWN_MS,
      cacheMaxAge: KEYS_MAX_AGE_MS,
      [customFetch]: async (url, { headers }) =>
        Response.json(await fetchJson(url, { headers }, this.#timeoutMs)),
    })
    this.#keySets.set(jwksUri, keySet)
    return keySet
  }
}

function reasonOf(error: errors.JOSEError): BearerReason {
  if (error instanceof errors.JWTExpired) return 'expired token'
  if (error instanceof errors.JWTClaimValidationFailed) return reasonOfClaim(error.claim)
  if (error instanceof errors.JWSSignatureVerificationFailed) return 'token with a wrong signature'
  if (error instanceof errors.JOSEAlgNotAllowed) return 'token with a forbidden algorithm'
  // RFC 7515 §4.1.4: a set of several keys wants a token that names one.
  if (error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JWKSMultipleMatchingKeys)
    return 'token of an unknown key'
  return 'malformed token'
}

function reasonOfClaim(claim: string): BearerReason {
  if (claim === 'iss') return 'token of another issuer'
  if (claim === 'aud') return 'token for another audience'
  if (claim === 'nbf') return 'token not yet valid'
  return 'malformed token'
}
