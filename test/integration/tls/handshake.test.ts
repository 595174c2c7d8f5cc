/** Handshakes as clients do them: versions, ALPN, channel binding, client certificates, and bad ones. */
import { createHash, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { connect as connectPlain, type Socket } from 'node:net'
import { connect as tlsConnect } from 'node:tls'
import { sql } from 'kysely'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { TestAuthority, type TestCertificate } from '../../support/certificates.ts'
import { openTestDatabase, type TestDatabase } from '../../support/postgres.ts'
import { connectTo, type DoorServer, echo, sessionOf, startDoor } from './door-server.ts'

let database: TestDatabase
let authority: TestAuthority
let standard: TestCertificate

beforeAll(async () => {
  database = await openTestDatabase()
  authority = await TestAuthority.create()
  standard = await authority.issue(['pop.example'])
})

afterAll(() => database?.close())

const start = (options: Parameters<typeof startDoor>[2] = {}): Promise<DoorServer> =>
  startDoor(database.db, standard, options)

/** A connection without TLS; ends with the test. */
async function connectInPlain({ port }: DoorServer): Promise<Socket> {
  const socket = connectPlain(port, '127.0.0.1')
  onTestFinished(() => void socket.destroy())
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}

describe('versions', () => {
  test.each(['TLSv1.2', 'TLSv1.3'] as const)('%s is spoken', async (version) => {
    const server = await start()
    const client = await connectTo(server, authority, 'pop.example', {
      minVersion: version,
      maxVersion: version,
    })
    expect(client.authorized).toBe(true)
    expect(await echo(client, 'hello')).toBe('hello')
    expect(await server.encrypted()).toMatchObject({ protocol: version, hostName: 'pop.example' })
    if (version === 'TLSv1.2') expect(client.getCipher().name).toMatch(/^ECDHE-.*(GCM|POLY1305)/)
  })

  test('TLS 1.1 is refused with an alert', async () => {
    const server = await start()
    const old = { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1' } as const
    const ciphers = 'DEFAULT@SECLEVEL=0'
    await expect(
      connectTo(server, authority, 'pop.example', { ...old, ciphers }),
    ).rejects.toMatchObject({ code: 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION' })
    expect(await server.arrival()).toMatchObject({ code: 'TLS_HANDSHAKE' })
  })

  test('without forward secrecy, or with CBC, there is nothing in common', async () => {
    const server = await start()
    const maxVersion = 'TLSv1.2'
    for (const ciphers of ['AES128-GCM-SHA256', 'ECDHE-ECDSA-AES128-SHA256'])
      await expect(
        connectTo(server, authority, 'pop.example', { maxVersion, ciphers }),
      ).rejects.toMatchObject({ code: 'ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE' })
  })
})

describe('ciphers', () => {
  const AES = [
    'TLS_AES_256_GCM_SHA384',
    'TLS_AES_128_GCM_SHA256',
    'ECDHE-ECDSA-AES256-GCM-SHA384',
    'ECDHE-ECDSA-AES128-GCM-SHA256',
  ]
  const CHACHA = ['TLS_CHACHA20_POLY1305_SHA256', 'ECDHE-ECDSA-CHACHA20-POLY1305']

  test.each([
    ['AES with 128 bits, whatever is the first', [...AES, ...CHACHA], /AES_128_GCM_SHA256$/],
    ['ChaCha20 for who puts it first', [...CHACHA, ...AES], /CHACHA20_POLY1305_SHA256$/],
  ] as const)('%s', async (_, offered, chosen) => {
    const server = await start()
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      const options = { maxVersion, ciphers: offered.join(':') }
      const client = await connectTo(server, authority, 'pop.example', options)
      expect(client.getCipher().standardName).toMatch(chosen)
    }
  })
})

describe('ALPN', () => {
  test('"pop3" is chosen, and need not be asked for', async () => {
    const server = await start()
    const asking = await connectTo(server, authority, 'pop.example', {
      ALPNProtocols: ['imap', 'pop3'],
    })
    expect(asking.alpnProtocol).toBe('pop3')
    const silent = await connectTo(server, authority, 'pop.example')
    expect(silent.alpnProtocol).toBe(false)
  })

  test.each(['TLSv1.2', 'TLSv1.3'] as const)(
    'a client of another protocol gets an alert (%s)',
    async (maxVersion) => {
      const server = await start()
      const ALPNProtocols = ['http/1.1', 'h2']
      await expect(
        connectTo(server, authority, 'pop.example', { ALPNProtocols, maxVersion }),
      ).rejects.toMatchObject({ code: 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL' })
      expect(await server.arrival()).toMatchObject({ code: 'TLS_HANDSHAKE' })
    },
  )
})

describe('channel binding (RFC 9266)', () => {
  const exported = (client: Awaited<ReturnType<typeof connectTo>>): Buffer =>
    client.exportKeyingMaterial(32, 'EXPORTER-Channel-Binding', Buffer.alloc(0))

  test('is the same at both ends of TLS 1.3, and another for each connection', async () => {
    const server = await start()
    const first = await connectTo(server, authority, 'pop.example')
    const { channelBinding } = await server.encrypted()
    expect(channelBinding).toEqual(exported(first))
    const second = await connectTo(server, authority, 'pop.example')
    expect((await server.encrypted()).channelBinding).toEqual(exported(second))
    expect(exported(second)).not.toEqual(channelBinding)
  })

  test('there is none in TLS 1.2', async () => {
    const server = await start()
    await connectTo(server, authority, 'pop.example', { maxVersion: 'TLSv1.2' })
    expect((await server.encrypted()).channelBinding).toBeUndefined()
  })
})

describe('client certificates', () => {
  const digestOf = (certificate: TestCertificate): Buffer =>
    createHash('sha256').update(new X509Certificate(certificate.cert).raw).digest()

  test.each(['TLSv1.2', 'TLSv1.3'] as const)(
    'whoever signed it, its digest is told, also when the session is resumed (%s)',
    async (maxVersion) => {
      const server = await start({ wantsClientCertificates: true })
      const own = await (await TestAuthority.create('another')).issue(['alice'])
      const options = { maxVersion, cert: own.cert, key: own.key }
      const client = await connectTo(server, authority, 'pop.example', options)
      expect((await server.encrypted()).certificateDigest).toEqual(digestOf(own))
      const session = await sessionOf(client)
      const again = await connectTo(server, authority, 'pop.example', { ...options, session })
      expect(again.isSessionReused()).toBe(true)
      expect((await server.encrypted()).certificateDigest).toEqual(digestOf(own))
    },
  )

  test('none is needed, and one that is not valid today counts as none', async () => {
    const server = await start({ wantsClientCertificates: true })
    await connectTo(server, authority, 'pop.example')
    expect((await server.encrypted()).certificateDigest).toBeUndefined()
    const past = { notBefore: new Date('2020-01-01'), notAfter: new Date('2021-01-01') }
    const future = { notBefore: new Date('2090-01-01'), notAfter: new Date('2091-01-01') }
    for (const dates of [past, future]) {
      await connectTo(server, authority, 'pop.example', await authority.issue(['bob'], dates))
      expect((await server.encrypted()).certificateDigest).toBeUndefined()
    }
  })

  test('nobody is asked for one unless it is wanted', async () => {
    const server = await start()
    await connectTo(server, authority, 'pop.example', await authority.issue(['carol']))
    expect((await server.encrypted()).certificateDigest).toBeUndefined()
  })
})

test('what waits in the plain socket is taken for TLS', async () => {
  const server = await start()
  server.onAccept = async (socket) => {
    // As after STLS: the reader stops, and the client's hello is already there.
    await once(socket, 'readable')
    expect(socket.readableLength).toBeGreaterThan(100)
  }
  const client = await connectTo(server, authority, 'pop.example')
  expect(await echo(client, 'hello')).toBe('hello')
})

describe('bounds', () => {
  test('a handshake that is never finished is cut', async () => {
    const server = await start({ handshakeMs: 50 })
    const silent = await connectInPlain(server)
    silent.resume()
    await once(silent, 'close')
    expect(await server.arrival()).toMatchObject({ code: 'TLS_HANDSHAKE', message: /too long/ })
    expect(server.door.unfinishedCount).toBe(0)
  })

  test('only so many may be unfinished; the others go on when one ends', async () => {
    const server = await start({ unfinishedMax: 2 })
    const silent = [await connectInPlain(server), await connectInPlain(server)]
    const third = await connectInPlain(server)
    third.resume()
    await once(third, 'close')
    expect(await server.arrival()).toMatchObject({ code: 'TLS_OVERLOADED' })
    expect(server.door.unfinishedCount).toBe(2)
    silent[0]?.end() // only its side: that is enough
    expect(await server.arrival()).toMatchObject({ code: 'TLS_HANDSHAKE' })
    const client = await connectTo(server, authority, 'pop.example')
    expect(await echo(client, 'hello')).toBe('hello')
  })

  test('close ends the unfinished and lets the finished go on', async () => {
    const server = await start()
    const client = await connectTo(server, authority, 'pop.example')
    await server.encrypted()
    const silent = await connectInPlain(server)
    await once(silent.resume(), 'close', { signal: closing(server) })
    expect(server.door.isReady).toBe(false)
    expect(await echo(client, 'hello')).toBe('hello')
  })
})

/** Closes the door as soon as a handshake has begun. */
function closing(server: DoorServer): AbortSignal {
  const look = (): void => {
    if (server.door.unfinishedCount === 0) setImmediate(look)
    else server.door.close()
  }
  look()
  return AbortSignal.timeout(10_000)
}

describe('what is no TLS', () => {
  test.each([
    ['POP3', 'CAPA\r\nUSER alice\r\n'],
    ['HTTP', 'GET / HTTP/1.1\r\nHost: pop.example\r\n\r\n'],
    ['octets', Buffer.from('1603010200010001fc0303ff', 'hex')],
  ])('%s fails alone', async (_, octets) => {
    const server = await start()
    const client = await connectInPlain(server)
    client.resume().end(octets)
    expect(await server.arrival()).toMatchObject({ code: 'TLS_HANDSHAKE' })
    if (!client.closed) await once(client, 'close')
  })

  test('after the handshake, it ends the connection', async () => {
    const server = await start()
    const plain = await connectInPlain(server)
    const client = await connectTo(server, authority, 'pop.example', { socket: plain })
    const { socket } = await server.encrypted()
    expect(await echo(client, 'hello')).toBe('hello')
    client.on('error', () => {})
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()))
    plain.write('+OK what is this?\r\n')
    await closed
  })

  test('a peer that goes in the middle is a failure like others', async () => {
    const server = await start()
    const client = await connectInPlain(server)
    client.resetAndDestroy()
    expect(await server.arrival()).toMatchObject({ code: 'TLS_HANDSHAKE' })
  })
})

test('a peer that closed its side before the door heard it is not waited for', async () => {
  const server = await start({ handshakeMs: 600_000 })
  server.onAccept = (socket) => once(socket.resume(), 'end')
  const client = await connectInPlain(server)
  client.resume().end()
  expect(await server.arrival()).toMatchObject({ code: 'TLS_HANDSHAKE', message: /is gone/ })
})

test('a peer that closes its side while its certificate is looked up is not waited for', async () => {
  const server = await start({ handshakeMs: 600_000 })
  const client = await connectInPlain(server)
  client.resume()
  await database.db.kysely.transaction().execute(async (transaction) => {
    await sql`LOCK TABLE domain_hosts`.execute(transaction)
    const tls = tlsConnect({ socket: client, servername: 'slow.example', ca: authority.cert })
    tls.on('error', () => {})
    const waiting = sql`SELECT FROM pg_locks WHERE NOT granted`
    while ((await waiting.execute(transaction)).rows.length === 0);
    await new Promise<void>((resolve) => client.end(resolve))
  })
  expect(await server.arrival()).toMatchObject({ code: 'TLS_HANDSHAKE', message: /is gone/ })
})

test('renegotiation is refused', async () => {
  const server = await start()
  const client = await connectTo(server, authority, 'pop.example', { maxVersion: 'TLSv1.2' })
  client.on('error', () => {})
  const outcome = new Promise((resolve) => {
    client.renegotiate({}, (error) => resolve(error === null ? 'done' : 'refused'))
    client.once('close', () => resolve('refused'))
  })
  expect(await outcome).toBe('refused')
})

test('without a certificate nothing is ready, and who comes is turned away', async () => {
  const server = await startDoor(database.db, undefined)
  expect(server.door.isReady).toBe(false)
  const client = await connectInPlain(server)
  client.resume()
  await once(client, 'close')
  expect(await server.arrival()).toMatchObject({ code: 'TLS_HANDSHAKE' })
})
