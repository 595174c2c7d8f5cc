/** The OAuth provider of a domain: what an operator sets, and what is refused. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import {
  type NewOauthProvider,
  removeOauthProvider,
  setOauthProvider,
  showOauthProvider,
} from '../../../src/admin/operations/trust/oauth-providers.ts'
import { Secret } from '../../../src/base/secret.ts'
import { existsOauthProvider } from '../../../src/storage/tenants/oauth-providers.ts'
import {
  addDomain,
  openTestDatabase,
  TEST_KEYRING,
  TEST_SECRET_KEY_HEX,
  type TestDatabase,
} from '../../support/postgres.ts'
import { CLIENT, startProvider, type TestProvider } from '../auth/oidc-provider.ts'
import { openProgram, type Program } from './program.ts'

let database: TestDatabase
let provider: TestProvider
let program: Program

beforeAll(async () => {
  database = await openTestDatabase()
  await addDomain(database.db, 'one.test')
  provider = await startProvider()
  program = openProgram({
    DATABASE_URL: database.url,
    POPGRES_SECRET_KEY: TEST_SECRET_KEY_HEX,
  })
})

beforeEach(async () => {
  await database.db.kysely.deleteFrom('oauth_providers').execute()
})

afterAll(async () => {
  program?.close()
  await provider?.close()
  await database?.close()
})

const introspection = () => ({
  uri: provider.introspectionUri,
  clientId: CLIENT.id,
  clientSecret: new Secret(CLIENT.secret),
})

function set(fields: Partial<NewOauthProvider>, domain = 'one.test', keyring = [TEST_KEYRING]) {
  const none = { audience: undefined, addressClaim: undefined, scope: undefined }
  const { issuer, jwksUri } = provider
  const all = { issuer, jwksUri, introspection: undefined, ...none, ...fields }
  return setOauthProvider(database.db, domain, all, keyring[0])
}

const shownKeys = () => ({
  domain: 'one.test',
  issuer: provider.issuer,
  audience: null,
  jwksUri: provider.jwksUri,
  introspectionUri: null,
  clientId: null,
  addressClaim: 'email',
  scope: null,
})

test('the keys are found where the issuer says', async () => {
  expect(await existsOauthProvider(database.db)).toBe(false)
  const shown = await set({ jwksUri: undefined }, 'ONE.test')
  expect(shown).toEqual(shownKeys())
  expect(await showOauthProvider(database.db, 'one.test')).toEqual(shown)
  expect(await existsOauthProvider(database.db)).toBe(true)
})

test('an issuer that calls itself otherwise is refused, with its own name for itself', async () => {
  const issuer = provider.issuer.replace('127.0.0.1', 'localhost')
  await expect(set({ issuer, jwksUri: undefined })).rejects.toThrow(provider.issuer)
})

test.each([
  [{ issuer: 'http://id.example.com' }, 'begins with https://'],
  [{ issuer: 'id.example.com' }, 'begins with https://'],
  [{ jwksUri: 'http://id.example.com/keys' }, 'begins with https://'],
  [{ jwksUri: 'http://127.0.0.1.example.com/keys' }, 'begins with https://'],
  [{ jwksUri: 'file:///etc/passwd' }, 'begins with https://'],
  [{ jwksUri: 'https://me:secret@id.example.com/' }, 'must not hold a password'],
  [{ scope: 'two words' }, 'one word'],
])('%j is refused', async (fields, words) => {
  const error = await set(fields).catch((reason: unknown) => reason)
  expect(error).toMatchObject({ code: 'OPERATION_REFUSED' })
  expect(String(error)).toContain(words)
})

test('an unknown domain, and one without a provider, are refused', async () => {
  await expect(set({}, 'no.test')).rejects.toThrow('there is no domain no.test')
  await expect(showOauthProvider(database.db, 'one.test')).rejects.toThrow('no OAuth provider')
  await expect(removeOauthProvider(database.db, 'one.test')).rejects.toThrow('no OAuth provider')
})

test('a client secret is kept sealed, and needs a key for it', async () => {
  const fields = { introspection: introspection(), jwksUri: undefined }
  await expect(set(fields, 'one.test', [])).rejects.toThrow('set POPGRES_SECRET_KEY first')
  expect(JSON.stringify(await set(fields))).not.toContain(CLIENT.secret)
  const row = await database.db.kysely
    .selectFrom('oauth_providers')
    .select('client_secret')
    .executeTakeFirstOrThrow()
  expect(row.client_secret?.includes(CLIENT.secret)).toBe(false)
  await expect(
    set({ ...fields, introspection: { ...introspection(), clientSecret: new Secret('') } }),
  ).rejects.toThrow('1 to 512 octets')
})

test('the program sets, shows and removes; a secret comes from standard input', async () => {
  const { issuer, introspectionUri } = provider
  const found = await program.run(['oauth', 'set', 'one.test', '--issuer', issuer])
  expect(found).toMatchObject({ status: 0, stderr: expect.stringContaining('without --audience') })
  expect(await program.json(['oauth', 'show', 'one.test'])).toEqual(shownKeys())

  const words = ['oauth', 'set', 'one.test', '--issuer', issuer, '--audience', 'mail']
  const asking = [...words, '--introspection-uri', introspectionUri, '--client-id', CLIENT.id]
  const full = [...asking, '--client-secret-stdin', '--claim', 'username', '--scope', 'pop']
  const { status, stdout, stderr } = await program.run(full, `${CLIENT.secret}\n`)
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  expect(stdout).toMatch(/^set the OAuth provider of one\.test\n/)
  expect(stdout).not.toContain(CLIENT.secret)
  expect(await program.json(['oauth', 'show', 'one.test'])).toEqual({
    ...shownKeys(),
    audience: 'mail',
    jwksUri: null,
    introspectionUri,
    clientId: CLIENT.id,
    addressClaim: 'username',
    scope: 'pop',
  })

  expect(await program.run(['oauth', 'remove', 'one.test'])).toMatchObject({ status: 0 })
  expect(await program.run(['oauth', 'show', 'one.test'])).toMatchObject({ status: 1 })
})

test('the program wants introspection whole, and one way only', async () => {
  const words = ['oauth', 'set', 'one.test', '--issuer', provider.issuer]
  const half = await program.run([...words, '--introspection-uri', provider.introspectionUri])
  expect(half).toMatchObject({ status: 2, stderr: expect.stringContaining('go together') })
  const both = ['--jwks-uri', provider.jwksUri, '--introspection-uri', provider.introspectionUri]
  expect(await program.run([...words, ...both])).toMatchObject({ status: 2 })
  expect(await existsOauthProvider(database.db)).toBe(false)
})
