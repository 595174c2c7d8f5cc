/**
 * A real OpenID provider on loopback, for tests: a user is a client of its own that asks for a token
 * with its credentials, and `email` and whatever else is in `claims` comes along in the token. The
 * address stays the same when the keys change, and the way to it can be disturbed.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { exportJWK, generateKeyPair, type JWK } from 'jose'
import { Provider } from 'oidc-provider'
import { Secret } from '../../../src/base/secret.ts'

// It warns about what is not meant for production, once for each provider.
for (const method of ['info', 'warn'] as const) console[method] = () => {}

export const AUDIENCE = 'urn:mail'
/** With characters that must be encoded before they go into an Authorization header. */
export const CLIENT = { id: 'popgres:mail', secret: 'Geheim: % + Wort&"' }

export interface TestProvider {
  issuer: string
  jwksUri: string
  introspectionUri: string
  /** Requests that came, by path. */
  requests: string[]
  /** Private JWK of the key that signs now. */
  key: JWK
  /** A token of the kind that `format` says, issued by the token endpoint. */
  issue(claims?: object, format?: 'jwt' | 'opaque', scope?: string): Promise<Secret>
  /** New keys in place of the old ones, whose tokens no longer verify. */
  rotateKeys(): Promise<void>
  /** Answers instead of the provider, until it is set to undefined. */
  disturb: ((request: IncomingMessage, response: ServerResponse) => void) | undefined
  revoke(token: Secret): Promise<void>
  close(): Promise<void>
}

/** @param ttlSeconds of its tokens */
export async function startProvider(ttlSeconds = 600): Promise<TestProvider> {
  let answer: ReturnType<Provider['callback']>
  let claims: object = {}
  const server = createServer((request, response) => {
    provider.requests.push(request.url ?? '')
    if (provider.disturb !== undefined) provider.disturb(request, response)
    else answer(request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`

  const post = async (path: string, form: Record<string, string>): Promise<Response> =>
    fetch(`${issuer}${path}`, {
      method: 'POST',
      headers: { authorization: basic(CLIENT.id, CLIENT.secret) },
      body: new URLSearchParams(form),
    })
  const provider: TestProvider = {
    issuer,
    jwksUri: `${issuer}/jwks`,
    introspectionUri: `${issuer}/token/introspection`,
    requests: [],
    key: {},
    disturb: undefined,
    async issue(given = {}, format = 'jwt', scope = '') {
      claims = given
      const form = { grant_type: 'client_credentials', resource: `urn:${format}` }
      const response = await post('/token', scope === '' ? form : { ...form, scope })
      if (!response.ok) throw new Error(await response.text())
      const { access_token: token } = (await response.json()) as { access_token: string }
      return new Secret(token)
    },
    async rotateKeys() {
      const { privateKey } = await generateKeyPair('ES256', { extractable: true })
      provider.key = { ...(await exportJWK(privateKey)), use: 'sig', alg: 'ES256' }
      answer = makeProvider(issuer, provider.key, ttlSeconds, () => claims).callback()
    },
    async revoke(token) {
      const response = await post('/token/revocation', { token: token.reveal().toString() })
      if (!response.ok) throw new Error(await response.text())
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
  await provider.rotateKeys()
  return provider
}

function makeProvider(
  issuer: string,
  key: JWK,
  ttlSeconds: number,
  readClaims: () => object,
): Provider {
  return new Provider(issuer, {
    jwks: { keys: [key] },
    clients: [
      {
        client_id: CLIENT.id,
        client_secret: CLIENT.secret,
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
        id_token_signed_response_alg: 'ES256',
      },
    ],
    enabledJWA: { idTokenSigningAlgValues: ['ES256'] },
    extraTokenClaims: () => ({ ...readClaims() }),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_context, resource) => ({
          scope: 'mail',
          audience: AUDIENCE,
          accessTokenFormat: resource === 'urn:jwt' ? 'jwt' : 'opaque',
          accessTokenTTL: ttlSeconds,
          jwt: { sign: { alg: 'ES256' } },
        }),
      },
    },
  })
}

function basic(id: string, secret: string): string {
  const pair = [id, secret].map(encodeURIComponent).join(':')
  return `Basic ${Buffer.from(pair).toString('base64')}`
}
