/** What the generator takes out of a session is nothing that resuming needs. */
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { type ConnectionOptions, connect, createServer, type TLSSocket } from 'node:tls'
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest'
import { withoutCertificate } from '../../../bench/load/tls-session.ts'
import { TestAuthority } from '../../support/certificates.ts'

const server = createServer((socket) => socket.end('+OK\r\n'))
let certificate: string

beforeAll(async () => {
  const issued = await (await TestAuthority.create()).issue(['pop.example'])
  certificate = issued.cert
  server.setSecureContext(issued)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
})

afterAll(() => void server.close())

function connectWith(options: ConnectionOptions): TLSSocket {
  const { port } = server.address() as AddressInfo
  const client = connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ...options })
  onTestFinished(() => void client.destroy())
  return client.resume()
}

/** Within its DER there is this much of the certificate's. */
const partOf = (pem: string): Buffer =>
  Buffer.from(pem.replace(/-----[A-Z ]+-----/g, ''), 'base64').subarray(100, 200)

describe.each(['TLSv1.2', 'TLSv1.3'] as const)('a session of %s without the certificate', (max) => {
  test('is resumed', async () => {
    const first = connectWith({ maxVersion: max })
    const [session] = (await once(first, 'session')) as [Buffer]
    const stripped = withoutCertificate(session)
    expect(session.includes(partOf(certificate))).toBe(true)
    expect(stripped.includes(partOf(certificate))).toBe(false)
    const again = connectWith({ maxVersion: max, session: stripped })
    await once(again, 'secureConnect')
    expect(again.isSessionReused()).toBe(true)
  })
})

test('where there is none, it stays as it is', () => {
  const session = Buffer.from('\0no certificate')
  expect(withoutCertificate(session)).toBe(session)
})
