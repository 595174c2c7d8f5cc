/**
 * What a client sends to prove who it is: never in the log, at no level, whatever goes wrong; and
 * of no use to who has recorded it.
 */
import { createHash, X509Certificate } from 'node:crypto'
import { sql } from 'kysely'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { setOauthProvider } from '../../../src/admin/operations/trust/oauth-providers.ts'
import { Secret } from '../../../src/base/secret.ts'
import { BearerCheck } from '../../../src/mail/auth/bearer/bearer-check.ts'
import { deriveSealedKeys } from '../../../src/mail/auth/proofs/scram.ts'
import { TestAuthority, type TestCertificate } from '../../support/certificates.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode } from '../../support/pop3-node.ts'
import {
  addUser,
  openTestDatabase,
  TEST_KEYRING,
  TEST_SECRET_KEY_HEX,
  type TestDatabase,
} from '../../support/postgres.ts'
import { TcpProxy } from '../../support/tcp-proxy.ts'
import { AUDIENCE, startProvider, type TestProvider } from '../auth/oidc-provider.ts'
import { base64, greet, LOGINS, MECHANISMS } from './logins.ts'

const ALICE = 'alice@example.test'
const PASSWORD = 'Right-Horse-77-Battery'
const APOP_SECRET = 'Shared-Staple-19-Battery'

let database: TestDatabase
let provider: TestProvider
let proxy: TcpProxy
let server: TestCertificate
let laptop: TestCertificate
let appPassword: string
let node: TestNode

beforeAll(async () => {
  database = await openTestDatabase()
  const { db } = database
  const ids = await addUser(db, ALICE, { password: PASSWORD, apopSecret: APOP_SECRET })
  const { password_hash: hash } = await db.kysely
    .selectFrom('users')
    .select('password_hash')
    .where('domain_id', '=', ids.domainId)
    .executeTakeFirstOrThrow()
  const owner = { ...ids, localPart: 'alice', domainName: 'example.test', passwordHash: hash ?? '' }
  const keys = await deriveSealedKeys(db, TEST_KEYRING, owner, new Secret(PASSWORD))
  await db.kysely
    .updateTable('users')
    .set({ scram_keys: keys })
    .where('domain_id', '=', ids.domainId)
    .execute()
  const { rows } = await sql<{ made: string }>`
    select add_app_password(${ALICE}, 'phone') as made`.execute(db.kysely)
  appPassword = rows[0]?.made ?? ''
  const authority = await TestAuthority.create()
  server = await authority.issue(['pop.example.test'])
  laptop = await authority.issue(['alice'])
  const digest = createHash('sha256').update(new X509Certificate(laptop.cert).raw).digest()
  await sql`select add_credential(${ALICE}, 'certificate', 'laptop', ${digest})`.execute(db.kysely)
  provider = await startProvider()
  const { issuer, jwksUri } = provider
  const none = { introspection: undefined, addressClaim: undefined, scope: undefined }
  const values = { issuer, jwksUri, audience: AUDIENCE, ...none }
  await setOauthProvider(db, 'example.test', values, undefined)
  proxy = await TcpProxy.open(Number(new URL(database.url).port))
})
afterAll(async () => {
  await proxy?.close()
  await provider?.close()
  await database?.close()
})

beforeEach(async () => {
  const url = new URL(database.url)
  url.hostname = '127.0.0.1'
  url.port = String(proxy.port)
  node = await startTestNode({
    url: url.toString(),
    tls: { ...server, wantsClientCertificates: true },
    isScramOffered: true,
    isApopOffered: true,
    hasBearerProvider: true,
    authenticator: { bearer: new BearerCheck({ db: database.db, keyring: TEST_KEYRING }) },
  })
})
afterEach(async () => {
  vi.restoreAllMocks()
  proxy.heal()
  await node.stop()
})

const connect = async (certificate?: TestCertificate) =>
  greet(await Pop3Client.connectTls(node.tlsAddress, certificate))

/** Lines that clients send from now on. */
function record(): string[] {
  const sent: string[] = []
  const send = Pop3Client.prototype.send
  vi.spyOn(Pop3Client.prototype, 'send').mockImplementation(function (this: Pop3Client, text) {
    sent.push(text)
    send.call(this, text)
  })
  return sent
}

describe('the log', () => {
  let sent: string[]
  beforeEach(() => {
    sent = record()
  })

  /** Nothing that was sent is in the log, nor what it is the base64 of, but names and keywords. */
  const expectNothingSent = (): void => {
    const words = sent.flatMap((text) => text.split(/[\s]+/))
    const inside = words.flatMap((word) => partsOf(Buffer.from(word, 'base64').toString('latin1')))
    const secrets = [
      PASSWORD,
      APOP_SECRET,
      appPassword,
      TEST_SECRET_KEY_HEX,
      laptop.key,
      server.key,
    ]
    const all = [...words, ...inside, ...secrets, ...secrets.map(base64)]
    const looked = new Set(all.filter((word) => word.length >= 8 && !isPublic(word)))
    expect(looked.size).toBeGreaterThan(10)
    const log = node.logged.join('')
    expect([...looked].filter((word) => log.includes(word))).toEqual([])
  }

  const partsOf = (text: string): string[] => text.split(/[^\x21-\x7e]|[,=]/)
  const isPublic = (word: string): boolean =>
    /^(SCRAM-SHA-256|OAUTHBEARER|EXTERNAL|CAPA|\w*@[\w.]*)$/i.test(word)

  const secretFor = async (mechanism: string): Promise<string> => {
    if (mechanism === 'APOP') return APOP_SECRET
    if (!/OAUTH/.test(mechanism)) return PASSWORD
    return (await provider.issue({ email: ALICE })).reveal().toString()
  }

  test.each(MECHANISMS)('holds no proof that was right: %s', async (mechanism, login) => {
    const client = await connect(laptop)
    expect(await login(client, ALICE, await secretFor(mechanism))).toMatch(/^\+OK/)
    await client.ask('QUIT')
    await client.closed
    await node.untilLogged('"connection closed"')
    expectNothingSent()
  })

  test('holds no app password', async () => {
    for (const mechanism of ['USER and PASS', 'PLAIN', 'LOGIN'] as const) {
      const client = await connect()
      expect(await LOGINS[mechanism](client, ALICE, appPassword)).toMatch(/^\+OK/)
      await client.ask('QUIT')
      await client.closed
    }
    expectNothingSent()
  })

  test.each(MECHANISMS)('holds no proof that was wrong: %s', async (mechanism, login) => {
    const secret = await secretFor(mechanism)
    const client = await connect()
    for (const name of [ALICE, 'nobody@example.test', 'alice@nowhere.test', 'a@b@c'])
      await login(client, name, `${secret}X`)
    // Typed into the wrong field.
    await login(await connect(), secret, 'alice@example.test')
    client.socket.destroy()
    await node.untilLogged('"connection closed"')
    expectNothingSent()
  })

  test.each(MECHANISMS)('nor while the database breaks off: %s', async (mechanism, login) => {
    const secret = await secretFor(mechanism)
    const client = await connect(laptop)
    proxy.cut(true)
    expect(await login(client, ALICE, secret)).toMatch(/^-ERR \[(SYS\/TEMP|AUTH)\]/)
    await node.untilLogged('a command failed')
    client.socket.destroy()
    expectNothingSent()
  })
})

describe('who has recorded a login', () => {
  test('gets nowhere with its APOP digest: the timestamp is another', async () => {
    const digests = record()
    const client = await connect()
    expect(await LOGINS.APOP(client, ALICE, APOP_SECRET)).toMatch(/^\+OK/)
    await client.ask('QUIT')
    await client.closed
    const thief = await connect()
    expect(await thief.ask(String(digests[0]).trim())).toMatch(/^-ERR \[AUTH\]/)
    thief.socket.destroy()
  })

  test('gets nowhere with its SCRAM messages: the nonce is another', async () => {
    const lines = record()
    const client = await connect()
    expect(await LOGINS['SCRAM-SHA-256'](client, ALICE, PASSWORD)).toMatch(/^\+OK/)
    await client.ask('QUIT')
    await client.closed
    const [first = '', final = ''] = lines.splice(0).map((line) => line.trim())
    const thief = await connect()
    expect(await thief.ask(first)).toMatch(/^\+ /)
    expect(await thief.ask(final)).toMatch(/^-ERR/)
    thief.socket.destroy()
  })
})
