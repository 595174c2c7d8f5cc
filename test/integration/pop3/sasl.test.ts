/** AUTH (RFC 5034) over real sockets, from the mechanism in CAPA to the maildrop. */
import { createHash, X509Certificate } from 'node:crypto'
import type { TLSSocket } from 'node:tls'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { Secret } from '../../../src/base/secret.ts'
import { deriveSealedKeys } from '../../../src/mail/auth/proofs/scram.ts'
import { TestAuthority, type TestCertificate } from '../../support/certificates.ts'
import { Pop3Client } from '../../support/pop3-client.ts'
import { startTestNode, type TestNode, type TestNodeOptions } from '../../support/pop3-node.ts'
import {
  addUser,
  openTestDatabase,
  TEST_KEYRING,
  type TestDatabase,
} from '../../support/postgres.ts'
import { ScramClient, type ScramClientOptions } from '../../support/scram-client.ts'

const ADDRESS = 'alice@example.test'
const PLAIN = base64(`\0${ADDRESS}\0secret`)
const WRONG = base64(`\0${ADDRESS}\0wrong`)

let database: TestDatabase
let certificate: TestCertificate
let clientCertificate: TestCertificate
let node: TestNode

beforeAll(async () => {
  database = await openTestDatabase()
  const authority = await TestAuthority.create()
  certificate = await authority.issue(['pop.example.test'])
  clientCertificate = await authority.issue(['alice'])
  const ids = await addUser(database.db, ADDRESS, { password: 'secret' })
  await addScramKeys(ids)
  await database.db.kysely
    .insertInto('credentials')
    .values({
      domain_id: ids.domainId,
      user_id: ids.userId,
      kind: 'certificate',
      name: 'laptop',
      digest: createHash('sha256').update(new X509Certificate(clientCertificate.cert).raw).digest(),
    })
    .execute()
})
afterAll(() => database.close())
afterEach(() => node.stop())

async function addScramKeys(ids: { domainId: number; userId: number }): Promise<void> {
  const users = database.db.kysely.selectFrom('users').select('password_hash')
  const { password_hash: passwordHash } = await users.executeTakeFirstOrThrow()
  const owner = { ...ids, localPart: 'alice', domainName: 'example.test' }
  const keys = await deriveSealedKeys(
    database.db,
    TEST_KEYRING,
    { ...owner, passwordHash: passwordHash ?? '' },
    new Secret('secret'),
  )
  await database.db.kysely
    .updateTable('users')
    .set({ scram_keys: keys })
    .where('domain_id', '=', ids.domainId)
    .execute()
}

function base64(text: string): string {
  return Buffer.from(text, 'latin1').toString('base64')
}

const start = async (options: Partial<TestNodeOptions> = {}) => {
  const tls = { ...certificate, wantsClientCertificates: true }
  node = await startTestNode({ url: database.url, tls, isScramOffered: true, ...options })
}

const greeted = async (): Promise<Pop3Client> => {
  const client = await Pop3Client.connect(node.address)
  await client.line()
  return client
}

const encrypted = async (options = {}): Promise<Pop3Client> => {
  const client = await Pop3Client.connectTls(node.tlsAddress, options)
  await client.line()
  return client
}

const mechanisms = async (client: Pop3Client): Promise<string> => {
  const capabilities = (await client.askMulti('CAPA')).raw.toString().split('\r\n')
  return capabilities.find((line) => line.startsWith('SASL')) ?? ''
}

const expectMaildrop = async (client: Pop3Client): Promise<void> => {
  expect(await client.ask('STAT')).toBe('+OK 0 0')
  expect(await client.ask('QUIT')).toMatch(/^\+OK/)
  await client.closed
}

/** @returns the reply to the whole exchange */
async function scram(
  client: Pop3Client,
  mechanism: string,
  options: Partial<ScramClientOptions> = {},
): Promise<string> {
  const exchange = new ScramClient({ name: ADDRESS, password: 'secret', ...options })
  const first = await client.ask(`AUTH ${mechanism} ${base64(exchange.first())}`)
  if (!first.startsWith('+ ')) return first
  const second = await client.ask(base64(exchange.final(text(first))))
  if (!second.startsWith('+ ')) return second
  expect(exchange.isServer(text(second))).toBe(true)
  return client.ask('')
}

const text = (challenge: string): string => Buffer.from(challenge.slice(2), 'base64').toString()

test('what is listed is what can work: in the clear, after STLS, with a certificate', async () => {
  await start({ plaintextAuth: 'never' })
  const client = await greeted()
  expect(await mechanisms(client)).toBe('SASL SCRAM-SHA-256')
  expect(await client.ask(`AUTH PLAIN ${PLAIN}`)).toMatch(/^-ERR/)
  await client.startTls()
  expect(await mechanisms(client)).toBe('SASL SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN')
  const older = await encrypted({ maxVersion: 'TLSv1.2' })
  expect(await mechanisms(older)).toBe('SASL SCRAM-SHA-256 PLAIN LOGIN')
  const certified = await encrypted(clientCertificate)
  expect(await mechanisms(certified)).toContain(' EXTERNAL ')
  for (const each of [client, older, certified]) each.socket.destroy()
})

test('what the settings leave out, or no user could use, is not listed', async () => {
  await start({ saslMechanisms: ['LOGIN', 'SCRAM-SHA-256'], isScramOffered: false })
  const client = await encrypted()
  expect(await mechanisms(client)).toBe('SASL LOGIN')
  expect(await client.ask(`AUTH PLAIN ${PLAIN}`)).toMatch(/^-ERR/)
  client.socket.destroy()
  await node.stop()
  await start({ hasBearerProvider: true, plaintextAuth: 'never' })
  expect(await mechanisms(await greeted())).not.toMatch(/OAUTH/)
  expect(await mechanisms(await encrypted())).toMatch(/ OAUTHBEARER XOAUTH2 /)
})

test('PLAIN, in one line and in two', async () => {
  await start()
  const first = await greeted()
  expect(await first.ask(`AUTH PLAIN ${PLAIN}`)).toMatch(/^\+OK/)
  await expectMaildrop(first)
  const second = await greeted()
  expect(await second.ask('AUTH PLAIN')).toBe('+ ')
  expect(await second.ask(WRONG)).toMatch(/^-ERR \[AUTH\]/)
  expect(await second.ask('AUTH PLAIN')).toBe('+ ')
  expect(await second.ask(PLAIN)).toMatch(/^\+OK/)
  await expectMaildrop(second)
})

test('LOGIN', async () => {
  await start()
  const client = await greeted()
  expect(text(await client.ask('AUTH LOGIN'))).toBe('Username:')
  expect(text(await client.ask(base64(ADDRESS)))).toBe('Password:')
  expect(await client.ask(base64('secret'))).toMatch(/^\+OK/)
  await expectMaildrop(client)
})

test('SCRAM-SHA-256, without TLS too; a wrong password and an unknown user look alike', async () => {
  await start({ plaintextAuth: 'never' })
  const client = await greeted()
  const wrong = await scram(client, 'SCRAM-SHA-256', { password: 'wrong' })
  expect(wrong).toMatch(/^-ERR \[AUTH\]/)
  const nobody = await scram(client, 'SCRAM-SHA-256', { name: 'nobody@example.test' })
  expect(nobody).toBe(wrong)
  expect(await scram(client, 'SCRAM-SHA-256')).toMatch(/^\+OK/)
  await expectMaildrop(client)
})

test('SCRAM-SHA-256-PLUS, bound to this connection and to no other', async () => {
  await start()
  const bindingOf = ({ socket }: Pop3Client) =>
    (socket as TLSSocket).exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0))
  const other = await encrypted()
  const client = await encrypted()
  const stolen = await scram(client, 'SCRAM-SHA-256-PLUS', { binding: bindingOf(other) })
  expect(stolen).toMatch(/^-ERR/)
  // Who could bind, and was told by somebody in between that we cannot.
  expect(await scram(client, 'SCRAM-SHA-256', { binding: 'y' })).toMatch(/^-ERR/)
  const bound = await scram(client, 'SCRAM-SHA-256-PLUS', { binding: bindingOf(client) })
  expect(bound).toMatch(/^\+OK/)
  await expectMaildrop(client)
  other.socket.destroy()
})

test('after STLS the channel is bound as it is on POP3S', async () => {
  await start()
  const client = await greeted()
  const socket = await client.startTls()
  const binding = socket.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0))
  expect(await scram(client, 'SCRAM-SHA-256-PLUS', { binding })).toMatch(/^\+OK/)
  await expectMaildrop(client)
})

test('EXTERNAL: who the client certificate belongs to', async () => {
  await start()
  const stranger = await encrypted(certificate)
  expect(await stranger.ask('AUTH EXTERNAL =')).toMatch(/^-ERR \[AUTH\]/)
  stranger.socket.destroy()
  const client = await encrypted(clientCertificate)
  expect(await client.ask(`AUTH EXTERNAL ${base64('bob@example.test')}`)).toMatch(/^-ERR \[AUTH\]/)
  expect(await client.ask('AUTH EXTERNAL =')).toMatch(/^\+OK/)
  await expectMaildrop(client)
  const login = JSON.parse(await node.untilLogged('"msg":"login"'))
  expect(login).toMatchObject({ user: ADDRESS, mechanism: 'external', tls: 'TLSv1.3' })
  expect(login.credential).toMatch(/^[0-9a-f-]{36}$/)
})

test('what was begun and given up leaves the connection as it was', async () => {
  await start()
  const client = await greeted()
  for (const line of ['AUTH PLAIN', 'AUTH LOGIN']) {
    expect(await client.ask(line)).toMatch(/^\+ /)
    expect(await client.ask('*')).toMatch(/^-ERR/)
  }
  expect(await client.ask(`AUTH PLAIN ${PLAIN}`)).toMatch(/^\+OK/)
  await expectMaildrop(client)
})

test('a SCRAM that is given up after its proof leaves no maildrop open', async () => {
  await start()
  const client = await Pop3Client.connect(node.address, true)
  await client.line()
  const exchange = new ScramClient({ name: ADDRESS, password: 'secret' })
  const first = await client.ask(`AUTH SCRAM-SHA-256 ${base64(exchange.first())}`)
  expect(await client.ask(base64(exchange.final(text(first))))).toMatch(/^\+ /)
  expect(await client.ask('*')).toMatch(/^-ERR/)
  const sessions = database.db.kysely.selectFrom('sessions').selectAll()
  while ((await sessions.execute()).length > 0);
  expect(node.logged.join('')).not.toContain('connection closed')
  client.socket.destroy()
})

test('a client that leaves between salt and proof leaves nothing', async () => {
  await start()
  const client = await greeted()
  const exchange = new ScramClient({ name: ADDRESS, password: 'secret' })
  await client.ask(`AUTH SCRAM-SHA-256 ${base64(exchange.first())}`)
  client.socket.destroy()
  await node.untilLogged('"connection closed"')
  expect(await database.db.kysely.selectFrom('sessions').selectAll().execute()).toEqual([])
})
