/** A login by token over POP3S, from the words of the client to the open maildrop. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { setOauthProvider } from '../../../src/admin/operations/trust/oauth-providers.ts'
import type { Secret } from '../../../src/base/secret.ts'
import { BearerCheck } from '../../../src/mail/auth/bearer/bearer-check.ts'
import { TestAuthority } from '../../support/certificates.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import {
  addUser,
  openTestDatabase,
  TEST_KEYRING,
  type TestDatabase,
} from '../../support/postgres.ts'
import { AUDIENCE, startProvider, type TestProvider } from './oidc-provider.ts'

const ALICE = 'alice@one.test'

let database: TestDatabase
let provider: TestProvider
let node: TestNode

beforeAll(async () => {
  database = await openTestDatabase()
  const { db } = database
  for (const address of [ALICE, 'bob@one.test', 'alice@two.test']) await addUser(db, address)
  provider = await startProvider()
  const { issuer, jwksUri } = provider
  const none = { introspection: undefined, addressClaim: undefined, scope: undefined }
  await setOauthProvider(
    db,
    'one.test',
    { issuer, jwksUri, audience: AUDIENCE, ...none },
    undefined,
  )
  node = await startNode()
})

afterAll(async () => {
  await node?.stop()
  await provider?.close()
  await database?.close()
})

afterEach(() => {
  provider.disturb = undefined
  node.logged.length = 0
})

async function startNode(): Promise<TestNode> {
  return startTestNode({
    url: database.url,
    hasBearerProvider: true,
    defaultDomain: 'one.test',
    tls: await (await TestAuthority.create()).issue(['pop.one.test']),
    authenticator: { bearer: new BearerCheck({ db: database.db, keyring: TEST_KEYRING }) },
  })
}

async function open(): Promise<Pop3Client> {
  const client = await Pop3Client.connectTls(node.tlsAddress)
  await client.line()
  return client
}

const base64 = (text: string) => Buffer.from(text).toString('base64')

const words = {
  OAUTHBEARER: (name: string, token: Secret) =>
    base64(
      `n,${name && `a=${name}`},\x01host=pop.one.test\x01port=995\x01` +
        `auth=Bearer ${token.reveal()}\x01\x01`,
    ),
  XOAUTH2: (name: string, token: Secret) =>
    base64(`user=${name}\x01auth=Bearer ${token.reveal()}\x01\x01`),
}

const tokenOf = (email: string) => provider.issue({ email })

/** What the client reads of the refusal, and after it has answered that. */
async function refusal(client: Pop3Client, command: string, dummy: string) {
  const challenge = await client.ask(command)
  expect(challenge).toMatch(/^\+ /)
  const said = JSON.parse(Buffer.from(challenge.slice(2), 'base64').toString())
  return { said, reply: await client.ask(dummy) }
}

describe.each(['OAUTHBEARER', 'XOAUTH2'] as const)('%s', (mechanism) => {
  const say = words[mechanism]

  test('is offered, and logs in on one line and on two', async () => {
    const token = await tokenOf(ALICE)
    const client = await open()
    const capabilities = (await client.askMulti('CAPA')).raw.toString()
    expect(capabilities).toMatch(new RegExp(`^SASL .*\\b${mechanism}\\b`, 'm'))
    expect(await client.ask(`AUTH ${mechanism} ${say(ALICE, token)}`)).toMatch(/^\+OK /)
    expect(await client.ask('STAT')).toBe('+OK 0 0')
    expect(await client.ask('QUIT')).toMatch(/^\+OK/)
    await client.closed

    const second = await open()
    expect(await second.ask(`AUTH ${mechanism}`)).toBe('+ ')
    expect(await second.ask(say('Alice@ONE.test', token))).toMatch(/^\+OK /)
    await second.ask('QUIT')
    await second.closed
    expect(node.logged.join('')).not.toContain(token.reveal().toString())
  })

  test('takes a token of four kilobytes', async () => {
    const token = await provider.issue({ email: ALICE, roles: 'x'.repeat(3_000) })
    expect(token.reveal().length).toBeGreaterThan(4_000)
    const client = await open()
    expect(await client.ask(`AUTH ${mechanism} ${say(ALICE, token)}`)).toMatch(/^\+OK /)
    await client.ask('QUIT')
    await client.closed
  })

  test("another user's token is refused with the mechanism's JSON, then with [AUTH]", async () => {
    const client = await open()
    const token = await tokenOf('bob@one.test')
    const command = `AUTH ${mechanism} ${say(ALICE, token)}`
    const { said, reply } = await refusal(client, command, base64('\x01'))
    expect(said.status).toBe(mechanism === 'XOAUTH2' ? '401' : 'invalid_token')
    expect(reply).toMatch(/^-ERR \[AUTH\] /)
    // XOAUTH2 clients answer with an empty line.
    expect((await refusal(client, command, '')).reply).toBe(reply)
    client.socket.destroy()
  })

  test('an unknown user, and one of a domain without a provider, read the same', async () => {
    const client = await open()
    const wrong = await tokenOf('bob@one.test')
    const replies = new Set<string>()
    for (const name of [ALICE, 'nobody@one.test', 'alice@two.test', 'alice@no.test']) {
      const command = `AUTH ${mechanism} ${say(name, wrong)}`
      replies.add(JSON.stringify(await refusal(client, command, base64('\x01'))))
    }
    expect(replies.size).toBe(1)
    client.socket.destroy()
  })

  test("a tenant's provider does not open another tenant's maildrop", async () => {
    const client = await open()
    const token = await tokenOf('alice@two.test')
    for (const name of ['alice@two.test', ALICE]) {
      const command = `AUTH ${mechanism} ${say(name, token)}`
      expect((await refusal(client, command, base64('\x01'))).reply).toMatch(/^-ERR \[AUTH\]/)
    }
    client.socket.destroy()
  })

  test('a provider that is away is [SYS/TEMP], and no failure of the client', async () => {
    const token = await tokenOf(ALICE)
    const other = await startNode() // one that has no keys yet
    provider.disturb = (request) => request.socket.destroy()
    const client = await Pop3Client.connectTls(other.tlsAddress)
    await client.line()
    for (let attempt = 0; attempt < 6; attempt++)
      expect(await client.ask(`AUTH ${mechanism} ${say(ALICE, token)}`)).toMatch(
        /^-ERR \[SYS\/TEMP\] /,
      )
    expect(other.logged.join('')).toContain('AUTH_PROVIDER_AWAY')
    provider.disturb = undefined
    expect(await client.ask(`AUTH ${mechanism} ${say(ALICE, token)}`)).toMatch(/^\+OK /)
    await other.stop()
  })
})

test('OAUTHBEARER without a name logs in whom the token names', async () => {
  const client = await open()
  const command = `AUTH OAUTHBEARER ${words.OAUTHBEARER('', await tokenOf('bob@one.test'))}`
  expect(await client.ask(command)).toMatch(/^\+OK bob/)
  await client.ask('QUIT')
  await client.closed
})
