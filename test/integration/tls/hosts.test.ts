/** Which certificate a host name is shown and which domain it belongs to, and how that changes. */
import { readFileSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Keyring } from '../../../src/base/keyring.ts'
import { Secret } from '../../../src/base/secret.ts'
import { HostCertificates } from '../../../src/server/tls/certificates.ts'
import { certificateUse } from '../../../src/server/tls/kept-key-pair.ts'
import {
  deleteCertificate,
  insertDomainHost,
  putCertificate,
} from '../../../src/storage/certificates.ts'
import { TestAuthority, type TestCertificate } from '../../support/certificates.ts'
import {
  addDomain,
  openTestConnection,
  openTestDatabase,
  TEST_KEYRING,
  type TestDatabase,
} from '../../support/postgres.ts'
import { connectTo, type DoorServer, echo, putFiles, shownTo, startDoor } from './door-server.ts'

let database: TestDatabase
let authority: TestAuthority
let standard: TestCertificate

beforeAll(async () => {
  database = await openTestDatabase()
  authority = await TestAuthority.create()
  standard = await authority.issue(['pop.example'])
})

afterAll(() => database?.close())

const issue = (...names: string[]): Promise<TestCertificate> => authority.issue(names)

/** Names of the certificate that a client is shown who asks for `host`. */
async function shownFor(server: DoorServer, host: string | undefined): Promise<string> {
  const client = await connectTo(server, authority, host)
  return shownTo(client)?.replaceAll('DNS:', '') ?? ''
}

async function putRow(host: string, { cert, key }: TestCertificate, keyring = TEST_KEYRING) {
  const sealed = keyring.seal(certificateUse(host), new Secret(key))
  await putCertificate(database.db, host, cert, sealed)
}

const filesOf = (directory: string, host: string) => ({
  certFile: join(directory, host, 'fullchain.pem'),
  keyFile: join(directory, host, 'privkey.pem'),
})

describe('which certificate', () => {
  test('directory before database, the name before the wildcard, else the standard one', async () => {
    const server = await startDoor(database.db, standard)
    putFiles(server.directory, 'a.which.example', await issue('a.which.example', 'file'))
    putFiles(server.directory, '*.which.example', await issue('*.which.example', 'file'))
    await putRow('a.which.example', await issue('a.which.example', 'row'))
    await putRow('*.rows.example', await issue('*.rows.example', 'row'))
    await putRow('b.rows.example', await issue('b.rows.example', 'row'))
    const wanted = {
      'a.which.example': 'a.which.example, file',
      'A.Which.EXAMPLE': 'a.which.example, file',
      'other.which.example': '*.which.example, file',
      'b.rows.example': 'b.rows.example, row',
      'other.rows.example': '*.rows.example, row',
      // A wildcard is for one label (RFC 9525 §6.3).
      'x.y.rows.example': 'pop.example',
      'rows.example': 'pop.example',
      'unknown.example': 'pop.example',
      'pop.example': 'pop.example',
      standard: 'pop.example',
    }
    for (const [host, names] of Object.entries(wanted))
      expect([host, await shownFor(server, host)]).toEqual([host, names])
    expect(await shownFor(server, undefined)).toBe('pop.example')
  })

  test.each(['..', '../standard', 'a/b', 'under_score.example', '*.which.example', '-a.example'])(
    '%j is no host name: nothing is looked up',
    async (name) => {
      const server = await startDoor(database.db, undefined)
      const hosts = openHosts(server.directory)
      expect((await hosts.find(name)).context).toBeUndefined()
      expect(hosts.counts).toEqual({ hosts: 0, certificates: 0 })
    },
  )

  test('who connects is told the name, if it is ours, and its domain', async () => {
    const server = await startDoor(database.db, standard)
    const domainId = await addDomain(database.db, 'bound.example')
    await insertDomainHost(database.db, domainId, 'pop.bound.example')
    const told = async (host: string | undefined, maxVersion = 'TLSv1.3' as const) => {
      await connectTo(server, authority, host, { maxVersion })
      const { hostName, hostDomain } = await server.encrypted()
      return { hostName, hostDomain }
    }
    expect(await told('POP.bound.example')).toEqual({
      hostName: 'pop.bound.example',
      hostDomain: 'bound.example',
    })
    expect(await told('pop.example')).toEqual({ hostName: 'pop.example' })
    expect(await told('unknown.example')).toEqual({})
    expect(await told(undefined)).toEqual({})
  })
})

describe('changes', () => {
  test('are shown from the next refresh on, and no open session notices', async () => {
    const server = await startDoor(database.db, standard)
    putFiles(server.directory, 'file.change.example', await issue('file.change.example', 'old'))
    await putRow('row.change.example', await issue('row.change.example', 'old'))
    const hosts = ['pop.example', 'file.change.example', 'row.change.example']
    const open = await Promise.all(hosts.map((host) => connectTo(server, authority, host)))
    putFiles(server.directory, 'standard', await issue('pop.example', 'new'))
    putFiles(server.directory, 'file.change.example', await issue('file.change.example', 'new'))
    await putRow('row.change.example', await issue('row.change.example', 'new'))
    await server.door.refresh()
    for (const host of hosts) expect(await shownFor(server, host)).toBe(`${host}, new`)
    for (const client of open) expect(await echo(client, 'still here')).toBe('still here')
  })

  test('are logged for each host, at its first use and when they come', async () => {
    const server = await startDoor(database.db, standard)
    const inUse = () =>
      server.logged
        .splice(0)
        .map((line) => JSON.parse(line))
        .filter(({ msg }) => msg === 'TLS certificate in use')
        .map(({ file, host, expires }) => [file ?? host, Date.parse(expires) > 0])
    const { certFile } = filesOf(server.directory, '*.told.example')
    const isUsed = (what: string) => [what, true]
    expect(inUse()).toEqual([isUsed(filesOf(server.directory, 'standard').certFile)])
    for (const generation of ['old', 'new']) {
      putFiles(server.directory, '*.told.example', await issue('*.told.example', generation))
      await putRow('row.told.test', await issue('row.told.test', generation))
      await server.door.refresh()
      expect(inUse()).toEqual([])
      // At once, and below one wildcard: it is told once.
      const hosts = ['a.told.example', 'b.told.example', 'row.told.test']
      await Promise.all(hosts.map((host) => connectTo(server, authority, host)))
      expect(inUse().toSorted()).toEqual([isUsed(certFile), isUsed('row.told.test')])
      await server.door.refresh()
      for (const host of hosts) await connectTo(server, authority, host)
      expect(inUse()).toEqual([])
    }
  })

  test('what is taken away gives way to what comes after it', async () => {
    const server = await startDoor(database.db, standard)
    putFiles(server.directory, 'gone.example', await issue('gone.example', 'file'))
    await putRow('gone.example', await issue('gone.example', 'row'))
    expect(await shownFor(server, 'gone.example')).toBe('gone.example, file')
    rmSync(join(server.directory, 'gone.example'), { recursive: true })
    await server.door.refresh()
    expect(await shownFor(server, 'gone.example')).toBe('gone.example, row')
    await deleteCertificate(database.db, 'gone.example')
    await server.door.refresh()
    expect(await shownFor(server, 'gone.example')).toBe('pop.example')
  })

  test('a certificate and a binding that are added are found, though the name was unknown', async () => {
    const server = await startDoor(database.db, standard)
    expect(await shownFor(server, 'late.example')).toBe('pop.example')
    await putRow('late.example', await issue('late.example'))
    expect(await shownFor(server, 'late.example')).toBe('pop.example')
    await server.door.refresh()
    expect(await shownFor(server, 'late.example')).toBe('late.example')
  })

  test('files that came late make the door ready', async () => {
    const server = await startDoor(database.db, standard)
    const { door } = await startDoor(database.db, undefined, filesOf(server.directory, 'late'))
    expect(door.isReady).toBe(false)
    putFiles(server.directory, 'late', standard)
    await door.refresh()
    expect(door.isReady).toBe(true)
  })
})

describe('what cannot be used', () => {
  const broken: [string, (server: DoorServer, host: string) => Promise<void>, RegExp][] = [
    [
      'a key of another certificate',
      async ({ directory }, host) => {
        const { key } = await issue('else.example')
        writeFileSync(join(directory, host, 'privkey.pem'), key)
      },
      /private key is not that of the first certificate/,
    ],
    [
      'a file cut short',
      async ({ directory }, host) => {
        const file = join(directory, host, 'fullchain.pem')
        writeFileSync(file, readFileSync(file, 'utf8').slice(0, 300))
      },
      /not one in PEM form/,
    ],
    [
      'a key that is missing',
      async ({ directory }, host) => rmSync(join(directory, host, 'privkey.pem')),
      /ENOENT/,
    ],
  ]

  test.each(broken)('%s: the one before stays, told once', async (_, damage, reason) => {
    const server = await startDoor(database.db, standard)
    putFiles(server.directory, 'kept.example', await issue('kept.example'))
    expect(await shownFor(server, 'kept.example')).toBe('kept.example')
    for (const host of ['standard', 'kept.example']) await damage(server, host)
    for (const _ of [1, 2, 3]) {
      await server.door.refresh()
      expect(await shownFor(server, 'pop.example')).toBe('pop.example')
      expect(await shownFor(server, 'kept.example')).toBe('kept.example')
    }
    const told = server.logged.filter((line) => /cannot be used, the one before/.test(line))
    expect(told).toHaveLength(2)
    for (const line of told) expect(line).toMatch(reason)
    // What was in use outlives even a new ticket key; what was put right is taken.
    for (const host of ['standard', 'kept.example'])
      putFiles(server.directory, host, await issue('right.example'))
    await server.door.refresh()
    expect(await shownFor(server, 'pop.example')).toBe('right.example')
    expect(await shownFor(server, 'kept.example')).toBe('right.example')
  })

  test('where there was none before, none is said to stay', async () => {
    const server = await startDoor(database.db, standard)
    putFiles(server.directory, 'never.example', { cert: 'nothing', key: 'nothing' })
    const never = filesOf(server.directory, 'never.example')
    const { logged } = await startDoor(database.db, undefined, never)
    expect(await shownFor(server, 'never.example')).toBe('pop.example')
    for (const lines of [server.logged, logged]) {
      expect(lines.join('')).toMatch(/a TLS certificate cannot be used: put it right/)
      expect(lines.join('')).not.toContain('stays')
    }
  })

  test('a broken standard certificate outlives the ticket keys of its time', async () => {
    let now = 0
    const server = await startDoor(database.db, standard, { clock: () => now })
    writeFileSync(join(server.directory, 'standard', 'fullchain.pem'), 'nothing')
    now = 43_200_000
    await server.door.refresh()
    expect(await shownFor(server, 'pop.example')).toBe('pop.example')
  })

  test.each([
    ['without a keyring', undefined, /set POPGRES_SECRET_KEY/],
    ['with another key', Keyring.random(), /a POPGRES_SECRET_KEY that this node does not have/],
  ])('a stored key %s', async (_, keyring, reason) => {
    const server = await startDoor(database.db, standard, { keyring })
    await putRow('sealed.example', await issue('sealed.example'))
    expect(await shownFor(server, 'sealed.example')).toBe('pop.example')
    expect(server.logged.filter((line) => reason.test(line))).toHaveLength(1)
  })

  test('a stored key that was copied to another host', async () => {
    const server = await startDoor(database.db, standard)
    const { cert, key } = await issue('copied.example')
    const sealed = TEST_KEYRING.seal(certificateUse('origin.example'), new Secret(key))
    await putCertificate(database.db, 'copied.example', cert, sealed)
    expect(await shownFor(server, 'copied.example')).toBe('pop.example')
    expect(server.logged.join('')).toMatch(/is damaged/)
  })

  test('no line of the log has a private key in it', async () => {
    const server = await startDoor(database.db, standard)
    const { cert, key } = await issue('log.example')
    putFiles(server.directory, 'log.example', { cert: key, key: cert })
    expect(await shownFor(server, 'log.example')).toBe('pop.example')
    const [, secretLine = ''] = key.split('\n')
    expect(server.logged.join('')).toMatch(/log\.example/)
    expect(server.logged.join('')).not.toContain(secretLine)
  })

  test('an old certificate is used, with a warning', async () => {
    const old = await authority.issue(['pop.example'], {
      notBefore: new Date('2020-01-01'),
      notAfter: new Date('2021-01-01'),
    })
    const { door, logged } = await startDoor(database.db, old)
    expect(door.isReady).toBe(true)
    expect(logged.join('')).toMatch(/has expired/)
  })

  test('a swap of files by renaming, of the same size and time, is noticed', async () => {
    const server = await startDoor(database.db, standard)
    const file = join(server.directory, 'standard', 'fullchain.pem')
    const time = new Date('2026-01-01')
    utimesSync(file, time, time)
    await server.door.refresh()
    const before = server.logged.length
    writeFileSync(`${file}.new`, readFileSync(file))
    utimesSync(`${file}.new`, time, time)
    renameSync(`${file}.new`, file)
    await server.door.refresh()
    expect(server.logged.length).toBeGreaterThan(before)
  })
})

describe('while the database is away', () => {
  test('what is known holds, the standard name is served, others break off', async () => {
    const db = openTestConnection(database.url)
    const server = await startDoor(db, standard)
    const domainId = await addDomain(database.db, 'away.example')
    await insertDomainHost(database.db, domainId, 'pop.away.example')
    await putRow('pop.away.example', await issue('pop.away.example'))
    putFiles(server.directory, 'file.away.example', await issue('file.away.example'))
    await connectTo(server, authority, 'pop.away.example')
    expect(await server.encrypted()).toMatchObject({ hostDomain: 'away.example' })
    await db.close()
    await server.door.refresh()
    const client = await connectTo(server, authority, 'pop.away.example')
    expect(shownTo(client)).toBe('DNS:pop.away.example')
    expect(await server.encrypted()).toMatchObject({ hostDomain: 'away.example' })
    expect(await shownFor(server, 'pop.example')).toBe('pop.example')
    expect(await shownFor(server, 'file.away.example')).toBe('file.away.example')
    expect(await shownFor(server, undefined)).toBe('pop.example')
    for (const _ of [1, 2, 3]) await server.encrypted()
    await expect(connectTo(server, authority, 'new.away.example')).rejects.toThrow()
    expect(await server.arrival()).toMatchObject({ code: 'STORAGE_UNAVAILABLE' })
  })
})

function openHosts(directory: string): HostCertificates {
  return new HostCertificates({
    db: database.db,
    log: pino({ level: 'silent' }),
    keyring: TEST_KEYRING,
    certFile: undefined,
    keyFile: undefined,
    directory,
    ticketKeys: () => Buffer.alloc(48),
  })
}

describe('bounds', () => {
  test('names that nobody has do not pile up', async () => {
    const server = await startDoor(database.db, standard)
    const hosts = openHosts(server.directory)
    for (let batch = 0; batch < 110; batch++)
      await Promise.all(
        Array.from({ length: 100 }, (_, i) => hosts.find(`x${batch * 100 + i}.random.example`)),
      )
    expect(hosts.counts).toEqual({ hosts: 10_000, certificates: 0 })
  })

  test('names below one wildcard share its certificate, and fewer of them are kept', async () => {
    const server = await startDoor(database.db, standard)
    putFiles(server.directory, '*.many.example', await issue('*.many.example'))
    const hosts = openHosts(server.directory)
    const contexts = new Set<unknown>()
    await hosts.find('first.many.example')
    for (let batch = 0; batch < 11; batch++) {
      const found = await Promise.all(
        Array.from({ length: 100 }, (_, i) => hosts.find(`x${batch * 100 + i}.many.example`)),
      )
      for (const { context } of found) contexts.add(context)
    }
    expect(contexts.size).toBe(1)
    expect(hosts.counts).toEqual({ hosts: 1_000, certificates: 1 })
  })

  test('many who ask for one name at once are one question', async () => {
    const server = await startDoor(database.db, standard)
    await putRow('once.example', await issue('once.example'))
    const hosts = openHosts(server.directory)
    const found = await Promise.all(Array.from({ length: 50 }, () => hosts.find('once.example')))
    expect(new Set(found.map(({ context }) => context)).size).toBe(1)
    expect(new Set(found).size).toBe(1)
  })
})
