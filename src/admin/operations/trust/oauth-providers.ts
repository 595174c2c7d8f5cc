/**
 * What an operator does with a domain's OAuth 2.0 provider: who it is, and how its tokens are
 * verified. Values in, values out, OPERATION_REFUSED with a line that says what to do.
 */
import type { Keyring } from '../../../base/keyring.ts'
import { isLoopback } from '../../../base/network.ts'
import type { Secret } from '../../../base/secret.ts'
import { oauthUse } from '../../../mail/auth/bearer/introspection.ts'
import { fetchJson } from '../../../mail/auth/bearer/provider-fetch.ts'
import type { Database } from '../../../storage/postgres/database.ts'
import {
  deleteOauthProvider,
  type OauthProviderValues,
  selectOauthProvider,
  upsertOauthProvider,
} from '../../../storage/tenants/oauth-providers.ts'
import { refused } from '../../refusal.ts'
import { requireDomain } from '../domains.ts'

/** As it is shown: the client secret is not. */
export interface OauthProvider {
  domain: string
  issuer: string
  audience: string | null
  jwksUri: string | null
  introspectionUri: string | null
  clientId: string | null
  addressClaim: string
  scope: string | null
}

export interface NewOauthProvider {
  issuer: string
  audience: string | undefined
  addressClaim: string | undefined
  scope: string | undefined
  /** Neither of the two: the issuer is asked where its keys are. */
  jwksUri: string | undefined
  introspection: { uri: string; clientId: string; clientSecret: Secret } | undefined
}

/** LIMIT: a secret that is longer is a mistake. */
const CLIENT_SECRET_MAX_OCTETS = 512

/** The scope-token of RFC 6749 §3.3. */
const SCOPE = /^[\x21\x23-\x5b\x5d-\x7e]+$/

/**
 * Sets the domain's provider, in place of the one it had; nodes see it within 10 seconds.
 * @throws {Failure} OPERATION_REFUSED, or AUTH_PROVIDER_AWAY if the issuer had to be asked
 */
export async function setOauthProvider(
  db: Database,
  domainName: string,
  provider: NewOauthProvider,
  keyring: Keyring | undefined,
): Promise<OauthProvider> {
  const { issuer, introspection, scope } = provider
  checkUrl('the issuer', issuer)
  if (provider.jwksUri !== undefined) checkUrl('the key set', provider.jwksUri)
  if (introspection !== undefined) checkUrl('the introspection', introspection.uri)
  if (scope !== undefined && !SCOPE.test(scope)) throw refused('a scope is one word')
  const { domainId, name } = await requireDomain(db, domainName)
  const clientSecret = introspection && sealSecret(domainId, introspection.clientSecret, keyring)
  const isToldWhere = provider.jwksUri !== undefined || introspection !== undefined
  const values: OauthProviderValues = {
    issuer,
    audience: provider.audience,
    jwksUri: isToldWhere ? provider.jwksUri : await discoverKeys(issuer),
    introspectionUri: introspection?.uri,
    clientId: introspection?.clientId,
    clientSecret,
    addressClaim: provider.addressClaim ?? 'email',
    scope,
  }
  await upsertOauthProvider(db, domainId, values)
  return toShown(name, values)
}

/** @throws {Failure} OPERATION_REFUSED if the domain has none */
export async function showOauthProvider(db: Database, domainName: string): Promise<OauthProvider> {
  const { name } = await requireDomain(db, domainName)
  const found = await selectOauthProvider(db, name)
  if (found === undefined) throw noProvider(name)
  return toShown(name, found)
}

/** Its tokens are refused within 10 seconds; sessions that are open go on. */
export async function removeOauthProvider(db: Database, domainName: string): Promise<void> {
  const { domainId, name } = await requireDomain(db, domainName)
  if (!(await deleteOauthProvider(db, domainId))) throw noProvider(name)
}

/** OpenID Connect Discovery §4: what the issuer says of itself. */
async function discoverKeys(issuer: string): Promise<string> {
  const url = `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`
  const { issuer: said, jwks_uri: jwksUri } = Object(await fetchJson(url))
  if (said !== issuer)
    throw refused(`${url} is about the issuer ${JSON.stringify(said)}: give exactly that`)
  if (typeof jwksUri !== 'string') throw refused(`${url} names no jwks_uri: give --jwks-uri`)
  checkUrl('the key set', jwksUri)
  return jwksUri
}

/** Tokens and keys go over TLS, or do not leave the machine. */
function checkUrl(what: string, text: string): void {
  const url = URL.canParse(text) ? new URL(text) : undefined
  const host = url?.hostname.replace(/^\[|\]$/g, '') ?? ''
  const isPrivate = host === 'localhost' || isLoopback(host)
  if (url?.protocol !== 'https:' && !(url?.protocol === 'http:' && isPrivate))
    throw refused(`the address of ${what} begins with https:// (http:// on this machine only)`)
  if (url.username !== '' || url.password !== '')
    throw refused(`the address of ${what} must not hold a password`)
}

function sealSecret(domainId: number, secret: Secret, keyring: Keyring | undefined): Buffer {
  if (keyring === undefined)
    throw refused('a client secret is stored encrypted: set POPGRES_SECRET_KEY first')
  const { length } = secret.reveal()
  if (length === 0 || length > CLIENT_SECRET_MAX_OCTETS)
    throw refused(`a client secret has 1 to ${CLIENT_SECRET_MAX_OCTETS} octets`)
  return keyring.seal(oauthUse(domainId), secret)
}

function noProvider(domain: string): Error {
  return refused(`${domain} has no OAuth provider: see popgres oauth set --help`)
}

function toShown(domain: string, values: OauthProviderValues): OauthProvider {
  return {
    domain,
    issuer: values.issuer,
    audience: values.audience ?? null,
    jwksUri: values.jwksUri ?? null,
    introspectionUri: values.introspectionUri ?? null,
    clientId: values.clientId ?? null,
    addressClaim: values.addressClaim,
    scope: values.scope ?? null,
  }
}
