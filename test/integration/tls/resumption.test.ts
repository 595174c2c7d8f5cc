/** Session tickets: who resumes where. A door stands for a worker, of this node or of another. */
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Keyring } from '../../../src/base/keyring.ts'
import { TestAuthority, type TestCertificate } from '../../support/certificates.ts'
import { openTestDatabase, TEST_KEYRING, type TestDatabase } from '../../support/postgres.ts'
import { connectTo, type DoorServer, putFiles, sessionOf, startDoor } from './door-server.ts'

let database: TestDatabase
let authority: TestAuthority
let standard: TestCertificate
let other: TestCertificate

const VERSIONS = ['TLSv1.2', 'TLSv1.3'] as const
type Version = (typeof VERSIONS)[number]
const MORNING = Date.parse('2026-05-01T08:00:00Z')
const EVENING = Date.parse('2026-05-01T20:00:00Z')

beforeAll(async () => {
  database = await openTestDatabase()
  authority = await TestAuthority.create()
  standard = await authority.issue(['pop.example'])
  other = await authority.issue(['pop.other.example'])
})

afterAll(() => database?.close())

async function start(options: Parameters<typeof startDoor>[2] = {}): Promise<DoorServer> {
  const server = await startDoor(database.db, standard, { clock: () => MORNING, ...options })
  putFiles(server.directory, 'pop.other.example', other)
  return server
}

/** Whether a session begun at `first` goes on at `second`. */
async function doesResume(
  first: DoorServer,
  second: DoorServer,
  version: Version,
  host = 'pop.example',
): Promise<boolean> {
  const options = { minVersion: version, maxVersion: version }
  const begun = await connectTo(first, authority, host, options)
  const session = await sessionOf(begun)
  const again = await connectTo(second, authority, host, { ...options, session })
  // A whole handshake, if it must be; never a failed one.
  expect(again.authorized).toBe(true)
  expect(await second.encrypted()).toMatchObject({ hostName: host, protocol: version })
  return again.isSessionReused()
}

test.each(VERSIONS)('on the same door (%s)', async (version) => {
  const server = await start()
  const begun = await connectTo(server, authority, 'pop.example', { maxVersion: version })
  await server.encrypted()
  const session = await sessionOf(begun)
  const again = await connectTo(server, authority, 'pop.example', { maxVersion: version, session })
  expect(again.isSessionReused()).toBe(true)
})

test.each(VERSIONS)('on every door with the same secret key (%s)', async (version) => {
  expect(await doesResume(await start(), await start(), version)).toBe(true)
})

test.each(VERSIONS)('also on a host with a certificate of its own (%s)', async (version) => {
  expect(await doesResume(await start(), await start(), version, 'pop.other.example')).toBe(true)
})

test.each(VERSIONS)('not on a door with another secret key (%s)', async (version) => {
  expect(await doesResume(await start(), await start({ keyring: Keyring.random() }), version)).toBe(
    false,
  )
})

test.each(VERSIONS)(
  'without a secret key, where the same keys were handed out (%s)',
  async (version) => {
    const keys = { keyring: undefined, ticketKeys: randomBytes(48) }
    expect(await doesResume(await start(keys), await start(keys), version)).toBe(true)
    const own = { keyring: undefined }
    expect(await doesResume(await start(own), await start(own), version)).toBe(false)
  },
)

test.each(VERSIONS)('not beyond the period of a ticket key (%s)', async (version) => {
  let now = MORNING
  const server = await start({ clock: () => now, keyring: TEST_KEYRING })
  const before = await start()
  const after = await start({ clock: () => EVENING })
  expect(await doesResume(before, server, version)).toBe(true)
  now = EVENING
  await server.door.refresh()
  expect(await doesResume(before, server, version)).toBe(false)
  expect(await doesResume(after, server, version)).toBe(true)
})
