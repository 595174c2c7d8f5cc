/**
 * Session tickets between whole nodes: a client that was at one resumes at the other, on whichever
 * worker it meets, if they have the same secret key.
 */
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect, type SecureVersion, type TLSSocket } from 'node:tls'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { TestAuthority } from '../support/certificates.ts'
import { NodeProcess } from '../support/node-process.ts'
import { openTestDatabase, TEST_SECRET_KEY_HEX, type TestDatabase } from '../support/postgres.ts'
import { servingUrl } from '../support/postgres-setup.ts'

const HOST = 'pop.example'
const GREETING = /^\+OK .*\r\n$/

let database: TestDatabase
let authority: TestAuthority
let directory: string
let nodes: NodeProcess[] = []

beforeAll(async () => {
  database = await openTestDatabase()
  authority = await TestAuthority.create()
  directory = mkdtempSync(join(tmpdir(), 'popgres-resumption-'))
  const { cert, key } = await authority.issue([HOST])
  writeFileSync(join(directory, 'cert.pem'), cert)
  writeFileSync(join(directory, 'key.pem'), key)
})

afterEach(async () => {
  for (const node of nodes) await node.destroy()
  nodes = []
})

afterAll(async () => {
  await database.close()
  rmSync(directory, { recursive: true })
})

async function start(secretKey: string): Promise<string> {
  const env = {
    DATABASE_URL: servingUrl(database.url),
    POPGRES_SECRET_KEY: secretKey,
    POPGRES_TLS_CERT: join(directory, 'cert.pem'),
    POPGRES_TLS_KEY: join(directory, 'key.pem'),
  }
  const node = new NodeProcess({ env })
  nodes.push(node)
  return (await node.addresses()).pop3s
}

/** Greeted, so that the handshake is over on both sides. */
async function greeted(
  address: string,
  version: SecureVersion,
  session?: Buffer,
): Promise<{ socket: TLSSocket; session: Buffer }> {
  const socket = connect({
    host: '127.0.0.1',
    port: Number(address.split(':').at(-1)),
    servername: HOST,
    ca: authority.cert,
    minVersion: version,
    maxVersion: version,
    ALPNProtocols: ['pop3'],
    ...(session && { session }),
  })
  // In TLS 1.3 tickets come after the handshake, in TLS 1.2 in it; who resumes may get none.
  const isLater = version === 'TLSv1.3' && session === undefined
  const ticket = once(socket, isLater ? 'session' : 'secureConnect')
  const [[greeting], [sent]] = await Promise.all([once(socket, 'data'), ticket])
  expect(String(greeting)).toMatch(GREETING)
  expect(socket.authorized).toBe(true)
  return { socket, session: sent ?? socket.getSession() ?? Buffer.alloc(0) }
}

test.each(['TLSv1.2', 'TLSv1.3'] as const)(
  'across two nodes and their workers (%s)',
  async (version) => {
    const [one, two] = await Promise.all([start(TEST_SECRET_KEY_HEX), start(TEST_SECRET_KEY_HEX)])
    const { socket, session } = await greeted(one, version)
    expect(socket.isSessionReused()).toBe(false)
    socket.destroy()
    // The kernel gives each connection to one worker or the other.
    for (const address of [two, one, two, one, two, one]) {
      const again = await greeted(address, version, session)
      expect(again.socket.isSessionReused()).toBe(true)
      again.socket.destroy()
    }
  },
)

test('not at a node with another key: there it is a whole handshake', async () => {
  const [one, other] = await Promise.all([start(TEST_SECRET_KEY_HEX), start('5c'.repeat(32))])
  const { socket, session } = await greeted(one, 'TLSv1.3')
  socket.destroy()
  const again = await greeted(other, 'TLSv1.3', session)
  expect(again.socket.isSessionReused()).toBe(false)
  again.socket.destroy()
})
