/**
 * Who vouches for a domain's users by OAuth 2.0: at most one provider a domain. What is done with a
 * token is in mail/auth/bearer; here are the rows.
 */
import type { Database, Statement } from '../postgres/database.ts'
import { decodeBoolean, decodeInt4, decodeText, present } from '../postgres/decode.ts'
import type { RawRow } from '../postgres/raw-connection.ts'

export interface OauthProvider {
  domainId: number
  domainName: string
  /** What tokens must say about who issued them. */
  issuer: string
  /** What tokens must be meant for; undefined: not looked at. */
  audience: string | undefined
  /** One of the two: keys that verify JWTs, or (RFC 7662) whom to ask about any token. */
  jwksUri: string | undefined
  introspectionUri: string | undefined
  clientId: string | undefined
  /** Sealed for `oauth <domainId>`, see base/keyring.ts. */
  clientSecret: Buffer | undefined
  /** The claim that holds the user's address. */
  addressClaim: string
  /** Must be among the token's scopes; undefined: none is asked for. */
  scope: string | undefined
}

/** What an operator sets; the rest is the domain's. */
export type OauthProviderValues = Omit<OauthProvider, 'domainId' | 'domainName'>

// By name, so it cannot name domain_id first, like LOGIN_ACCOUNT.
export const OAUTH_PROVIDER: Statement = {
  name: 'oauth-provider',
  text: `select d.domain_id, d.name, p.issuer, p.audience, p.jwks_uri, p.introspection_uri,
    p.client_id, p.client_secret, p.address_claim, p.scope
  from domains d join oauth_providers p on p.domain_id = d.domain_id
  where d.name = $1::text`,
}

export const OAUTH_USED: Statement = {
  name: 'oauth-used',
  text: 'select exists (select from oauth_providers)',
}

/** @param domainName lower case; @returns undefined if there is no such domain or it has none */
export async function selectOauthProvider(
  db: Database,
  domainName: string,
): Promise<OauthProvider | undefined> {
  const [row] = await db.hotOrBulk(OAUTH_PROVIDER, [domainName])
  if (row === undefined) return undefined
  const clientSecret = row[7]
  return {
    domainId: decodeInt4(present(row, 0)),
    domainName: decodeText(present(row, 1)),
    issuer: decodeText(present(row, 2)),
    audience: optionalText(row, 3),
    jwksUri: optionalText(row, 4),
    introspectionUri: optionalText(row, 5),
    clientId: optionalText(row, 6),
    clientSecret: clientSecret ? Buffer.from(clientSecret) : undefined,
    addressClaim: decodeText(present(row, 8)),
    scope: optionalText(row, 9),
  }
}

/** Whether any domain has a provider: only then OAUTHBEARER and XOAUTH2 are offered. */
export async function existsOauthProvider(db: Database): Promise<boolean> {
  const [row] = await db.hotOrBulk(OAUTH_USED, [])
  return row !== undefined && decodeBoolean(present(row, 0))
}

/** Sets the domain's provider, in place of the one it had. */
export async function upsertOauthProvider(
  db: Database,
  domainId: number,
  values: OauthProviderValues,
): Promise<void> {
  const row = {
    issuer: values.issuer,
    audience: values.audience ?? null,
    jwks_uri: values.jwksUri ?? null,
    introspection_uri: values.introspectionUri ?? null,
    client_id: values.clientId ?? null,
    client_secret: values.clientSecret ?? null,
    address_claim: values.addressClaim,
    scope: values.scope ?? null,
  }
  await db.kysely
    .insertInto('oauth_providers')
    .values({ domain_id: domainId, ...row })
    .onConflict((conflict) => conflict.column('domain_id').doUpdateSet(row))
    .execute()
}

/** @returns whether there was one */
export async function deleteOauthProvider(db: Database, domainId: number): Promise<boolean> {
  const { numDeletedRows } = await db.kysely
    .deleteFrom('oauth_providers')
    .where('domain_id', '=', domainId)
    .executeTakeFirst()
  return numDeletedRows > 0n
}

function optionalText(row: RawRow, index: number): string | undefined {
  const field = row[index]
  return field ? decodeText(field) : undefined
}
