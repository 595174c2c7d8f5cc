/**
 * Bearer tokens against a real OpenID provider: whom it can vouch for, whom it cannot, and what
 * happens when it lies, changes its keys, is away, slow or talks too much.
 */

import { createPublicKey } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { importJWK, type JWTHeaderParameters, SignJWT } from 'jose'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import {
  type NewOauthProvider,
  removeOauthProvider,
  setOauthProvider,
  showOauthProvider,
} from '../../../src/admin/operations/trust/oauth-providers.ts'
import { Keyring } from '../../../src/base/keyring.ts'
import { Secret } from '../../../src/base/secret.ts'
import { BearerCheck } from '../../../src/mail/auth/bearer/bearer-check.ts'
import {
  addDomain,
  openTestDatabase,
  TEST_KEYRING,
  type TestDatabase,
} from '../../support/postgres.ts'
import { AUDIENCE, CLIENT, startProvider, type TestProvider } from './oidc-provider.ts'

const ALICE = { email: 'alice@one.test' }
const VOUCHED = { kind: 'vouched', address: 'alice@one.test' }
const ASKER = { source: '192.0.2.7' }

let database: TestDatabase
let provider: TestProvider

beforeAll(async () => {
  database = await openTestDatabase()
  await addDomain(database.db, 'one.test')
  await addDomain(database.db, 'two.test')
  provider = await startProvider()
})

afterAll(async () => {
  await provider?.close()
  await database?.close()
})

afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
  provider.disturb = undefined
  provider.requests.length = 0
})

type Way = Partial<NewOauthProvider> & { domain?: string; providerTimeoutMs?: number }

/** A node's check, with the provider set for the domain: by keys, or as `way` says. */
async function makeCheck(way: Way = {}): Promise<BearerCheck> {
  const { domain = 'one.test', providerTimeoutMs, ...given } = way
  const fields = {
    issuer: provider.issuer,
    jwksUri: given.introspection === undefined ? provider.jwksUri : undefined,
    introspection: undefined,
    audience: AUDIENCE,
    addressClaim: undefined,
    scope: undefined,
    ...given,
  }
  await setOauthProvider(database.db, domain, fields, TEST_KEYRING)
  const wait = providerTimeoutMs === undefined ? {} : { providerTimeoutMs }
  return new BearerCheck({ db: database.db, keyring: TEST_KEYRING, ...wait })
}

const introspection = () => ({
  introspection: {
    uri: provider.introspectionUri,
    clientId: CLIENT.id,
    clientSecret: new Secret(CLIENT.secret),
  },
})

const verify = (check: BearerCheck, token: Secret, domain = 'one.test') =>
  check.verify(domain, token, ASKER)

const refusal = (reason: string) => ({ kind: 'refused', reason })

/** A token that the provider's own key signs, but whose words are ours. */
async function sign(payload: Record<string, unknown>, header: Partial<JWTHeaderParameters> = {}) {
  const now = Math.floor(Date.now() / 1_000)
  const defaults = { iss: provider.issuer, aud: AUDIENCE, exp: now + 600, ...ALICE }
  // The provider names its key by its thumbprint.
  const token = new SignJWT({ ...defaults, ...payload }).setProtectedHeader({
    alg: 'ES256',
    ...header,
  })
  return new Secret(await token.sign(await importJWK(provider.key, 'ES256')))
}

const seconds = (from: number) => Math.floor(Date.now() / 1_000) + from

/** For the caches, which go by this clock and look at it at most once in a millisecond. */
async function skip(milliseconds: number): Promise<void> {
  vi.spyOn(performance, 'now').mockReturnValue(performance.now() + milliseconds)
  await delay(2)
}

describe('either way to verify', () => {
  const ways = [
    ['by the keys', 'jwt', () => ({})],
    ['by introspection', 'opaque', introspection],
  ] as const
  describe.each(ways)('%s', (_, format, way) => {
    it('vouches for the address, its domain in lower case', async () => {
      const check = await makeCheck(way())
      expect(await verify(check, await provider.issue(ALICE, format))).toEqual(VOUCHED)
      const token = await provider.issue({ email: 'Bob@ONE.Test' }, format)
      expect(await verify(check, token)).toEqual({ kind: 'vouched', address: 'Bob@one.test' })
    })

    it('takes the address from the claim that is set', async () => {
      const check = await makeCheck({ ...way(), addressClaim: 'upn' })
      const token = await provider.issue({ upn: 'carol@one.test', ...ALICE }, format)
      expect(await verify(check, token)).toEqual({ kind: 'vouched', address: 'carol@one.test' })
    })

    it.each([
      [{}, 'token without an address'],
      [{ email: 'alice' }, 'token without an address'],
      [{ email: ['alice@one.test'] }, 'token without an address'],
      [{ email: 'alice@one.test\0' }, 'token without an address'],
      [{ email: 'alice@two.test@one.test' }, 'token without an address'],
      [{ email: 'bob@two.test' }, "token with another domain's address"],
      [{ email: 'alice@sub.one.test' }, "token with another domain's address"],
      [{ ...ALICE, email_verified: false }, 'token with an unverified address'],
      [{ ...ALICE, email_verified: 'false' }, 'token with an unverified address'],
    ])('does not vouch with %j', async (claims, reason) => {
      const check = await makeCheck(way())
      const token = await provider.issue(claims, format)
      expect(await verify(check, token)).toEqual(refusal(reason))
    })

    it('wants the audience, issuer and scope that are set', async () => {
      const token = await provider.issue({ ...ALICE }, format)
      const judge = async (fields: Way) => verify(await makeCheck({ ...way(), ...fields }), token)
      expect(await judge({ audience: undefined })).toEqual(VOUCHED)
      expect(await judge({ audience: 'urn:other' })).toEqual(refusal('token for another audience'))
      expect(await judge({ issuer: 'https://other.test' })).toEqual(
        refusal('token of another issuer'),
      )
      expect(await judge({ scope: 'mail' })).toEqual(refusal('token without the scope'))
      const scoped = await provider.issue(ALICE, format, 'mail')
      expect(await verify(await makeCheck({ ...way(), scope: 'mail' }), scoped)).toEqual(VOUCHED)
      expect(await verify(await makeCheck({ ...way(), scope: 'mai' }), scoped)).toEqual(
        refusal('token without the scope'),
      )
    })

    it('vouches for nobody of a domain that has another provider or none', async () => {
      const check = await makeCheck(way())
      const token = await provider.issue({ email: 'bob@two.test' }, format)
      expect(await verify(check, token, 'two.test')).toEqual(refusal('no OAuth provider'))
      expect(await verify(check, token, 'unknown.test')).toEqual(refusal('no OAuth provider'))
      const other = await startProvider()
      try {
        const { issuer, jwksUri, introspectionUri: uri } = other
        const ask = { introspection: { ...introspection().introspection, uri } }
        const fields = format === 'jwt' ? { jwksUri } : ask
        const second = await makeCheck({ domain: 'two.test', issuer, ...fields })
        const verdict = await verify(second, token, 'two.test')
        expect(verdict).toMatchObject({ kind: 'refused' })
        const theirs = await other.issue({ email: 'bob@two.test' }, format)
        expect(await verify(second, theirs, 'two.test')).toMatchObject({ kind: 'vouched' })
        expect(await verify(second, theirs, 'one.test')).toMatchObject({ kind: 'refused' })
      } finally {
        await other.close()
        await removeOauthProvider(database.db, 'two.test')
      }
    })

    it('refuses what has expired, with half a minute for clocks that differ', async () => {
      const check = await makeCheck({ ...way(), audience: undefined })
      const token = await provider.issue(ALICE, format)
      vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 620_000 })
      const late = format === 'jwt' ? VOUCHED : refusal('inactive token')
      expect(await verify(check, token)).toEqual(late)
      vi.setSystemTime(Date.now() + 15_000)
      expect(await verify(check, token)).toEqual(
        refusal(format === 'jwt' ? 'expired token' : 'inactive token'),
      )
    })

    it.each(['', 'a b', 'a\r\nX: y', 'tökén', 'a'.repeat(16_385)])(
      'does not ask about what cannot be a token (%#)',
      async (text) => {
        const check = await makeCheck(way())
        expect(await verify(check, new Secret(text))).toEqual(refusal('malformed token'))
        expect(provider.requests).toEqual([])
      },
    )

    it('fails for now when the provider is away, refuses us or talks nonsense', async () => {
      const token = await provider.issue(ALICE, format)
      const fail = async (disturb: TestProvider['disturb'], words: RegExp) => {
        const check = await makeCheck({ ...way(), providerTimeoutMs: 300 })
        provider.disturb = disturb
        const error = await verify(check, token).catch((reason: unknown) => reason)
        provider.disturb = undefined
        expect(error).toMatchObject({ code: 'AUTH_PROVIDER_AWAY', isRetryable: true })
        expect(String(error)).toMatch(words)
        expect(String(error)).not.toContain(token.reveal().toString())
        expect(await verify(check, token)).toEqual(VOUCHED)
      }
      await fail((request) => request.socket.destroy(), /socket|other side|ECONN/i)
      await fail((_, response) => response.writeHead(503).end('{"active":false}'), /status 503/)
      await fail((_, response) => response.writeHead(401).end('{}'), /status 401/)
      await fail((_, response) => response.end('<html>'), /not JSON/)
      await fail((_, response) => response.end(' '.repeat(70_000)), /too long/)
      await fail(() => {}, /timeout/)
      await fail((_, response) => void response.writeHead(200).write('{'), /timeout/)
    })

    it('follows no redirect', async () => {
      const thief = await startProvider()
      const token = await provider.issue(ALICE, format)
      const check = await makeCheck(way())
      provider.disturb = (request, response) =>
        response.writeHead(307, { location: `${thief.issuer}${request.url}` }).end()
      await expect(verify(check, token)).rejects.toThrow(/redirect/)
      expect(thief.requests).toEqual([])
      await thief.close()
    })

    it('fails for now when nothing listens', async () => {
      const token = await provider.issue(ALICE, format)
      const free = createServer().listen(0, '127.0.0.1')
      await once(free, 'listening')
      const nobody = `http://127.0.0.1:${(free.address() as AddressInfo).port}/`
      free.close()
      await once(free, 'close')
      const gone = introspection().introspection
      const fields =
        format === 'jwt' ? { jwksUri: nobody } : { introspection: { ...gone, uri: nobody } }
      const check = await makeCheck(fields)
      await expect(verify(check, token)).rejects.toThrow(/ECONNREFUSED/)
    })
  })
})

describe('JWTs', () => {
  it('are verified without asking for the keys again', async () => {
    const check = await makeCheck()
    const tokens = await Promise.all([provider.issue(ALICE), provider.issue(ALICE)])
    provider.requests.length = 0
    await Promise.all(tokens.map((token) => verify(check, token)))
    await verify(check, await sign({}))
    expect(provider.requests).toEqual(['/jwks'])
  })

  it('need an end, and are not taken before their time', async () => {
    const check = await makeCheck()
    expect(await verify(check, await sign({}))).toEqual(VOUCHED)
    expect(await verify(check, await sign({ exp: undefined }))).toEqual(refusal('malformed token'))
    expect(await verify(check, await sign({ exp: seconds(-31) }))).toEqual(refusal('expired token'))
    expect(await verify(check, await sign({ nbf: seconds(25) }))).toEqual(VOUCHED)
    expect(await verify(check, await sign({ nbf: seconds(40) }))).toEqual(
      refusal('token not yet valid'),
    )
    expect(await verify(check, await sign({ iss: undefined }))).toEqual(
      refusal('token of another issuer'),
    )
    expect(await verify(check, await sign({ aud: undefined }))).toEqual(
      refusal('token for another audience'),
    )
    expect(await verify(check, await sign({ aud: ['urn:x', AUDIENCE] }))).toEqual(VOUCHED)
  })

  it('may tell their scopes in any of the usual ways', async () => {
    const check = await makeCheck({ scope: 'pop' })
    for (const claims of [{ scope: 'imap pop' }, { scp: 'imap pop' }, { scp: ['imap', 'pop'] }])
      expect(await verify(check, await sign(claims))).toEqual(VOUCHED)
    for (const claims of [{ scope: 'pop3' }, { scp: [] }, { scope: { pop: true } }])
      expect(await verify(check, await sign(claims))).toEqual(refusal('token without the scope'))
  })

  it('that are bound to a key of the client are no bearer tokens', async () => {
    const check = await makeCheck()
    const token = await sign({ cnf: { jkt: '0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I' } })
    expect(await verify(check, token)).toEqual(refusal('token bound to a key'))
  })

  it('cannot be forged with "none", nor with the public key as a secret', async () => {
    const check = await makeCheck()
    const encode = (json: object) => Buffer.from(JSON.stringify(json)).toString('base64url')
    const payload = { iss: provider.issuer, aud: AUDIENCE, exp: seconds(600), ...ALICE }
    for (const alg of ['none', 'None', '']) {
      const token = new Secret(`${encode({ alg })}.${encode(payload)}.`)
      expect(await verify(check, token)).toMatchObject({ kind: 'refused' })
    }
    const { d: _private, ...publicJwk } = provider.key
    const pem = createPublicKey({ key: publicJwk, format: 'jwk' })
      .export({ format: 'pem', type: 'spki' })
      .toString()
    for (const secret of [pem, JSON.stringify(publicJwk), publicJwk.x ?? '']) {
      const forged = new SignJWT(payload).setProtectedHeader({ alg: 'HS256' })
      const token = new Secret(await forged.sign(Buffer.from(secret.padEnd(32))))
      expect(await verify(check, token)).toEqual(refusal('token with a forbidden algorithm'))
    }
    expect(provider.requests).toEqual([])
  })

  it('cannot be forged with a key that the token brings along or points to', async () => {
    const check = await makeCheck()
    const thief = await startProvider()
    const { d: _private, ...jwk } = thief.key
    const payload = { iss: provider.issuer, aud: AUDIENCE, exp: seconds(600), ...ALICE }
    for (const header of [{ jwk }, { jku: thief.jwksUri }, {}]) {
      const forged = new SignJWT(payload).setProtectedHeader({ alg: 'ES256', ...header })
      const token = new Secret(await forged.sign(await importJWK(thief.key, 'ES256')))
      expect(await verify(check, token)).toEqual(refusal('token with a wrong signature'))
    }
    expect(thief.requests).toEqual([])
    await thief.close()
  })

  it('are refused when a letter of them was changed', async () => {
    const check = await makeCheck()
    const [head, body, signature] = (await sign({ email: 'mallory@one.test' }))
      .reveal()
      .toString()
      .split('.')
    const changed = Buffer.from(body ?? '', 'base64url')
      .toString()
      .replace('mallory', 'alice')
    const token = `${head}.${Buffer.from(changed).toString('base64url')}.${signature}`
    expect(await verify(check, new Secret(token))).toEqual(refusal('token with a wrong signature'))
    expect(await verify(check, new Secret(`${head}.${body}`))).toEqual(refusal('malformed token'))
  })

  it('of new keys verify when the old keys are ten seconds old; those of old keys do not', async () => {
    const check = await makeCheck()
    const old = await provider.issue(ALICE)
    expect(await verify(check, old)).toEqual(VOUCHED)
    await provider.rotateKeys()
    const fresh = await provider.issue(ALICE)
    provider.requests.length = 0
    expect(await verify(check, fresh)).toEqual(refusal('token of an unknown key'))
    expect(provider.requests).toEqual([])
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 11_000 })
    expect(await verify(check, fresh)).toEqual(VOUCHED)
    expect(await verify(check, old)).toEqual(refusal('token of an unknown key'))
    expect(provider.requests).toEqual(['/jwks'])
  })

  it('fail for now if there is no key set at the address of the keys', async () => {
    const check = await makeCheck({
      jwksUri: `${provider.issuer}/.well-known/openid-configuration`,
    })
    await expect(verify(check, await sign({}))).rejects.toMatchObject({
      code: 'AUTH_PROVIDER_AWAY',
    })
  })
})

describe('a provider', () => {
  it('is seen to be removed within ten seconds', async () => {
    const check = await makeCheck()
    const token = await sign({})
    expect(await verify(check, token)).toEqual(VOUCHED)
    await removeOauthProvider(database.db, 'one.test')
    await expect(removeOauthProvider(database.db, 'one.test')).rejects.toThrow('no OAuth provider')
    await skip(10_001)
    expect(await verify(check, token)).toEqual(refusal('no OAuth provider'))
  })
})

describe('introspection', () => {
  it('is remembered for a minute, a refusal for ten seconds', async () => {
    const check = await makeCheck(introspection())
    const token = await provider.issue(ALICE, 'opaque')
    provider.requests.length = 0
    expect(await verify(check, token)).toEqual(VOUCHED)
    await provider.revoke(token)
    provider.requests.length = 0
    expect(await verify(check, token)).toEqual(VOUCHED)
    expect(provider.requests).toEqual([])
    await skip(61_000)
    expect(await verify(check, token)).toEqual(refusal('inactive token'))
    expect(await verify(check, token)).toEqual(refusal('inactive token'))
    expect(provider.requests).toHaveLength(1)
    await skip(11_000)
    expect(await verify(check, token)).toEqual(refusal('inactive token'))
    expect(provider.requests).toHaveLength(2)
  })

  it('is not remembered beyond the end of the token', async () => {
    const brief = await startProvider(20)
    const { issuer, introspectionUri: uri } = brief
    const client = { ...introspection().introspection, uri }
    const check = await makeCheck({ issuer, introspection: client })
    const token = await brief.issue(ALICE, 'opaque')
    expect(await verify(check, token)).toEqual(VOUCHED)
    await skip(21_000)
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 21_000 })
    expect(await verify(check, token)).toEqual(refusal('inactive token'))
    await brief.close()
  })

  it.each([
    [{ active: false }, 'inactive token'],
    [{ active: 'true' }, 'inactive token'],
    [{ active: 1 }, 'inactive token'],
    [{}, 'inactive token'],
    [null, 'inactive token'],
    [[{ active: true }], 'inactive token'],
    [{ active: true, exp: seconds(-31) }, 'expired token'],
    [{ active: true, nbf: seconds(60) }, 'token not yet valid'],
    [{ active: true, iss: 'https://other.test' }, 'token of another issuer'],
    [{ active: true, aud: undefined }, 'token for another audience'],
    [{ active: true, aud: `${AUDIENCE}/x` }, 'token for another audience'],
    [{ active: true, cnf: {} }, 'token bound to a key'],
    [{ active: true }, undefined],
    [{ active: true, aud: ['urn:x', AUDIENCE], iss: undefined, exp: undefined }, undefined],
  ])('that answers %j', async (answer, reason) => {
    const check = await makeCheck(introspection())
    const usual = { iss: provider.issuer, aud: AUDIENCE, exp: seconds(60), ...ALICE }
    const isObject = answer !== null && !Array.isArray(answer)
    const body = JSON.stringify(isObject ? { ...usual, ...answer } : answer)
    provider.disturb = (_, response) => response.end(body)
    const verdict = await verify(check, new Secret('token'))
    expect(verdict).toEqual(reason === undefined ? VOUCHED : refusal(reason))
  })

  it('is asked anew when the provider is set anew', async () => {
    const token = await provider.issue(ALICE, 'opaque')
    const check = await makeCheck(introspection())
    expect(await verify(check, token)).toEqual(VOUCHED)
    await setOauthProvider(
      database.db,
      'one.test',
      { ...(await fieldsOf()), audience: 'urn:else' },
      TEST_KEYRING,
    )
    await skip(11_000)
    expect(await verify(check, token)).toEqual(refusal('token for another audience'))
  })

  it('holds at most 16 requests at a time; whoever waits too long is turned away', async () => {
    const check = await makeCheck({ ...introspection(), providerTimeoutMs: 60_000 })
    let held: (() => void)[] = []
    let fill = () => {}
    const isFull = new Promise<void>((resolve) => {
      fill = resolve
    })
    provider.disturb = (_, response) => {
      held.push(() => response.end(JSON.stringify({ active: true, aud: AUDIENCE, ...ALICE })))
      if (held.length === 16) fill()
    }
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    const asked = Array.from({ length: 20 }, (_, n) => verify(check, new Secret(`token${n}`)))
    const outcomes = Promise.allSettled(asked)
    await isFull
    await verifyQueueIsFull(check)
    vi.advanceTimersByTime(5_001)
    vi.useRealTimers()
    for (const answer of held) answer()
    held = []
    const kinds = (await outcomes).map((outcome) =>
      outcome.status === 'fulfilled' ? outcome.value.kind : outcome.reason.code,
    )
    expect(kinds.filter((kind) => kind === 'vouched')).toHaveLength(16)
    expect(kinds.filter((kind) => kind === 'AUTH_OVERLOADED')).toHaveLength(4)
    expect(provider.requests).toHaveLength(16)
  })

  it('fails for now without the key that the client secret is sealed under', async () => {
    await makeCheck(introspection())
    const token = await provider.issue(ALICE, 'opaque')
    for (const keyring of [undefined, Keyring.random()]) {
      const check = new BearerCheck({ db: database.db, keyring })
      await expect(verify(check, token)).rejects.toThrow(/POPGRES_SECRET_KEY/)
    }
  })
})

/** A peer that has gone is not waited for, and asks nobody. */
async function verifyQueueIsFull(check: BearerCheck): Promise<void> {
  const gone = { source: '192.0.2.8', signal: AbortSignal.abort() }
  await expect(check.verify('one.test', new Secret('gone'), gone)).rejects.toThrow('left')
}

async function fieldsOf(): Promise<NewOauthProvider> {
  const { issuer } = await showOauthProvider(database.db, 'one.test')
  const none = { audience: undefined, addressClaim: undefined, scope: undefined }
  return { issuer, jwksUri: undefined, ...none, ...introspection() }
}
