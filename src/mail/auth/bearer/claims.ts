/**
 * From what a provider says of a token to the address that it vouches for. That the token is the
 * provider's own, meant for us and in its time was found out before: jwt.ts, introspection.ts.
 */
import type { OauthProvider } from '../../../storage/tenants/oauth-providers.ts'
import { parseLoginName } from '../login-name.ts'

/** Claims of a JWT (RFC 7519 §4) or of an introspection (RFC 7662 §2.2): anybody's JSON. */
export type Claims = Readonly<Record<string, unknown>>

/** Why a token is refused, as the log says it. */
export type BearerReason =
  | 'no OAuth provider'
  | 'malformed token'
  | 'inactive token'
  | 'expired token'
  | 'token not yet valid'
  | 'token with a wrong signature'
  | 'token of an unknown key'
  | 'token with a forbidden algorithm'
  | 'token of another issuer'
  | 'token for another audience'
  | 'token bound to a key'
  | 'token without the scope'
  | 'token without an address'
  | 'token with an unverified address'
  | "token with another domain's address"

export type BearerVerdict =
  /** `address`: the domain in lower case, the local part as the provider writes it. */
  { kind: 'vouched'; address: string } | { kind: 'refused'; reason: BearerReason }

/** How far the provider's clock may be from ours. */
export const LEEWAY_SECONDS = 30

export function judgeClaims(provider: OauthProvider, claims: Claims): BearerVerdict {
  // RFC 7800 §3: worth nothing without a proof that no mail client can give here.
  if (claims.cnf !== undefined) return refused('token bound to a key')
  if (provider.scope !== undefined && !scopesOf(claims).includes(provider.scope))
    return refused('token without the scope')
  const claimed = claims[provider.addressClaim]
  const name = typeof claimed === 'string' ? parseLoginName(claimed, '') : undefined
  if (name === undefined) return refused('token without an address')
  // OpenID Connect Core §5.1; some providers write it as text.
  if (provider.addressClaim === 'email' && String(claims.email_verified) === 'false')
    return refused('token with an unverified address')
  if (name.domainName !== provider.domainName) return refused("token with another domain's address")
  return { kind: 'vouched', address: name.address }
}

export function refused(reason: BearerReason): BearerVerdict {
  return { kind: 'refused', reason }
}

/** RFC 8693 §4.2: text with spaces; `scp`, a text or a list, is what some providers write. */
function scopesOf({ scope, scp }: Claims): unknown[] {
  const scopes = scope ?? scp
  return typeof scopes === 'string' ? scopes.split(' ') : Array.isArray(scopes) ? scopes : []
}
