/** The client of old servers: TLS that is checked, replies of any size, servers that misbehave. */
import { afterEach, beforeAll, expect, test } from 'vitest'
import { Secret } from '../../../src/base/secret.ts'
import { type OldServer, parseOldServer } from '../../../src/remote/old-server.ts'
import { Pop3Client } from '../../../src/remote/pop3-client.ts'
import { TestAuthority, type TestCertificate } from '../../support/certificates.ts'
import { type OldServerOptions, OldServerStub } from '../../support/old-server.ts'

let authority: TestAuthority
let certificate: TestCertificate
let other: TestCertificate
let stub: OldServerStub | undefined
const PASSWORD = new Secret('Old-Horse-77')

beforeAll(async () => {
  authority = await TestAuthority.create()
  certificate = await authority.issue(['localhost'])
  other = await authority.issue(['elsewhere.test'])
})
afterEach(async () => {
  await stub?.stop()
  stub = undefined
})

async function serve(
  options: Partial<OldServerOptions>,
  server: Partial<OldServer> = {},
): Promise<OldServer> {
  stub = await OldServerStub.start({ users: {}, ...options })
  const own = {
    host: 'localhost',
    port: stub.port,
    security: 'none',
    authority: undefined,
  } as const
  return { ...own, ...server }
}

const message = (at: number): string => `Subject: ${at}\r\n\r\n${'.line\r\n'.repeat(at * 1_000)}`

const alice = (count: number) => ({
  alice: {
    password: 'Old-Horse-77',
    messages: Array.from({ length: count }, (_, at) => ({ uniqueId: `u${at}`, text: message(at) })),
  },
})

async function readAll(client: Pop3Client): Promise<string[]> {
  const texts: string[] = []
  for await (const { content } of client.retrieve(await client.list()) as AsyncIterable<{
    content: AsyncIterable<Buffer>
  }>) {
    const chunks: Buffer[] = []
    for await (const chunk of content) chunks.push(chunk)
    texts.push(Buffer.concat(chunks).toString('latin1'))
  }
  return texts
}

test.each(['tls', 'stls'] as const)('%s: reads what is there, pipelined', async (way) => {
  const server = await serve(
    { users: alice(30), tls: { ...certificate, way } },
    { security: way, authority: authority.cert },
  )
  const client = await Pop3Client.connect(server)
  expect(client.isPipelining).toBe(true)
  expect(await client.logIn('alice', PASSWORD)).toEqual({ kind: 'accepted' })
  expect(await readAll(client)).toEqual(Array.from({ length: 30 }, (_, at) => message(at)))
  await client.quit()
  expect(stub?.commands.filter((line) => line === 'STLS')).toHaveLength(way === 'stls' ? 1 : 0)
})

test.each(['tls', 'stls'] as const)(
  '%s: a certificate of another host, or of nobody known, gets no password',
  async (way) => {
    const away = expect.objectContaining({ code: 'OLD_SERVER_AWAY' })
    const known = { security: way, authority: authority.cert }
    const wrong = await serve({ tls: { ...other, way } }, known)
    await expect(Pop3Client.connect(wrong)).rejects.toEqual(away)
    await stub?.stop()
    const unknown = await serve({ tls: { ...certificate, way } }, { security: way })
    await expect(Pop3Client.connect(unknown)).rejects.toEqual(away)
    expect(stub?.commands.filter((line) => line !== 'STLS')).toEqual([])
  },
)

test('what is said before TLS begins is not believed', async () => {
  const reply = (line: string) => (line === 'STLS' ? '+OK\r\n+OK injected' : undefined)
  const server = await serve(
    { tls: { ...certificate, way: 'stls' }, reply },
    { security: 'stls', authority: authority.cert },
  )
  await expect(Pop3Client.connect(server)).rejects.toThrow(/before TLS/)
})

test('a server that refuses STLS gets no password', async () => {
  const server = await serve({ reply: (line) => (line === 'STLS' ? '-ERR no' : undefined) })
  await expect(Pop3Client.connect({ ...server, security: 'stls' })).rejects.toThrow(/STLS/)
  expect(stub?.commands).toEqual(['STLS'])
})

test('one without CAPA, UIDL or pipelining serves too', async () => {
  const reply = (line: string) => (line === 'CAPA' ? '-ERR unknown' : undefined)
  const client = await Pop3Client.connect(await serve({ users: alice(3), hasUidl: false, reply }))
  expect(await client.logIn('alice', PASSWORD)).toEqual({ kind: 'accepted' })
  const listed = await client.list()
  expect(listed.map(({ uniqueId }) => uniqueId)).toEqual([undefined, undefined, undefined])
  expect(await readAll(client)).toHaveLength(3)
  await client.quit()
})

test('a message that is refused, or half read, keeps nothing from the next', async () => {
  const reply = (line: string) => (line === 'RETR 2' ? '-ERR damaged' : undefined)
  const client = await Pop3Client.connect(await serve({ users: alice(4), reply }))
  await client.logIn('alice', PASSWORD)
  const seen: string[] = []
  for await (const found of client.retrieve(await client.list())) {
    if ('refusal' in found) seen.push(found.refusal)
    else if (found.number === 3) seen.push('passed over')
    else for await (const chunk of found.content) seen.push(chunk.toString('latin1').slice(0, 10))
  }
  expect(seen[0]).toBe('Subject: 0')
  expect(seen.slice(1, 3)).toEqual(['-ERR damaged', 'passed over'])
  expect(seen[3]).toBe('Subject: 3')
  await client.quit()
})

test.each([
  ['a line that is too long', `+OK ${'x'.repeat(9_000)}`],
  ['nothing at all', 'cut'],
])('%s is told as one that is away', async (_, text) => {
  const reply = (line: string) => (line === 'CAPA' ? text : undefined)
  await expect(Pop3Client.connect(await serve({ reply }))).rejects.toMatchObject({
    code: 'OLD_SERVER_AWAY',
  })
})

test.each([
  ['pop3s://old.example', { host: 'old.example', port: 995, isTls: true }],
  ['pop3://[2001:db8::1]:1110/', { host: '2001:db8::1', port: 1110, isTls: false }],
  ['pop3://10.0.0.5', { host: '10.0.0.5', port: 110, isTls: false }],
  ['pop3s://user@old.example', undefined],
  ['pop3s://user:secret@old.example', undefined],
  ['pop3s://old.example/path', undefined],
  ['pop3s://', undefined],
  ['imap://old.example', undefined],
  ['old.example', undefined],
])('%s', (text, expected) => {
  expect(parseOldServer(text)).toEqual(expected)
})

test.each(['none', 'tls'] as const)(
  '%s: a connection is over when the old server has closed it, which counts it until then',
  async (security) => {
    const tls = { ...certificate, way: 'tls' as const }
    const events: string[] = []
    const server = await serve(
      {
        ...{ users: alice(1), ...(security === 'tls' && { tls }) },
        // Another one is served meanwhile: the reply to QUIT has arrived long ago.
        beforeClose: async () => {
          const meanwhile = await Pop3Client.connect(server)
          meanwhile.close()
          events.push('closed')
        },
      },
      { security, authority: authority.cert },
    )
    const client = await Pop3Client.connect(server)
    expect(await client.logIn('alice', PASSWORD)).toEqual({ kind: 'accepted' })
    await client.quit()
    events.push('over')
    expect(events).toEqual(['closed', 'over'])
  },
)
