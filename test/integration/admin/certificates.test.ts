/** Certificates and host names, through the real program. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generate } from 'selfsigned'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Certificate } from '../../../src/admin/operations/trust/certificates.ts'
import { certificateUse } from '../../../src/server/tls/kept-key-pair.ts'
import { putCertificate } from '../../../src/storage/certificates.ts'
import { TestAuthority, type TestCertificate } from '../../support/certificates.ts'
import {
  addDomain,
  openTestDatabase,
  TEST_KEYRING,
  TEST_SECRET_KEY_HEX,
  type TestDatabase,
} from '../../support/postgres.ts'
import { openProgram, type Program } from './program.ts'

let database: TestDatabase
let authority: TestAuthority
let program: Program
let directory: string
let fileCount = 0

beforeAll(async () => {
  database = await openTestDatabase()
  authority = await TestAuthority.create()
  program = openProgram({ DATABASE_URL: database.url, POPGRES_SECRET_KEY: TEST_SECRET_KEY_HEX })
  directory = mkdtempSync(join(tmpdir(), 'popgres-certificates-'))
})

afterAll(async () => {
  program?.close()
  rmSync(directory, { recursive: true })
  await database?.close()
})

/** `certificate add` with these as files. */
function addArguments(host: string, { cert, key }: TestCertificate): string[] {
  fileCount += 1
  const files = { cert: join(directory, `${fileCount}.cert`), key: join(directory, `${fileCount}`) }
  writeFileSync(files.cert, cert)
  writeFileSync(files.key, key)
  return ['certificate', 'add', host, '--cert', files.cert, '--key', files.key]
}

const storedFor = (host: string) =>
  database.db.kysely
    .selectFrom('certificates')
    .selectAll()
    .where('host_name', '=', host)
    .executeTakeFirst()

describe('certificate add', () => {
  test.concurrent('stores the chain as it is and the key sealed; a second time it replaces', async () => {
    const first = await authority.issue(['pop.add.example'])
    const line = / pop\.add\.example, expires \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ\n$/
    const added = await program.run(addArguments('POP.add.example', first))
    expect(added).toEqual({ status: 0, stdout: expect.stringMatching(line), stderr: '' })
    expect(added.stdout).toMatch(/^added/)
    const second = await authority.issue(['pop.add.example'])
    const replaced = await program.run(addArguments('pop.add.example', second))
    expect(replaced.stdout).toMatch(/^replaced/)
    const row = await storedFor('pop.add.example')
    const sealed = row?.private_key ?? Buffer.alloc(0)
    expect(row?.chain.trim()).toBe(second.cert.trim())
    const opened = TEST_KEYRING.open(certificateUse('pop.add.example'), sealed)
    expect(opened.kind === 'opened' && opened.secret.reveal().toString()).toBe(second.key)
    expect(sealed.includes('PRIVATE KEY')).toBe(false)
  })

  test.concurrent('of one file with everything in it, only certificates are stored as they are', async () => {
    const { cert, key } = await authority.issue(['*.bundle.example'])
    const bundle = `Bag Attributes\n${key}${cert}\n${authority.cert}`
    const { status } = await program.run(
      addArguments('*.bundle.example', { cert: bundle, key: bundle }),
    )
    expect(status).toBe(0)
    const chain = (await storedFor('*.bundle.example'))?.chain ?? ''
    expect(chain.match(/BEGIN CERTIFICATE/g)).toHaveLength(2)
    expect(chain).not.toContain('PRIVATE')
  })

  const past = { notBefore: new Date('2020-01-01'), notAfter: new Date('2021-01-01') }
  const refusals: [string, string, () => Promise<TestCertificate>, RegExp][] = [
    [
      'another name',
      'pop.no.example',
      () => authority.issue(['imap.no.example', 'smtp.no.example']),
      /not for pop\.no\.example but for imap\.no\.example, smtp\.no\.example/,
    ],
    ['a name, for a wildcard', '*.no.example', () => authority.issue(['a.no.example']), /not for/],
    [
      'a wildcard two levels up',
      'a.b.no.example',
      () => authority.issue(['*.no.example']),
      /not for/,
    ],
    [
      'an old one',
      'pop.no.example',
      () => authority.issue(['pop.no.example'], past),
      /has expired/,
    ],
    [
      'the key of another',
      'pop.no.example',
      async () => ({
        cert: (await authority.issue(['pop.no.example'])).cert,
        key: (await authority.issue(['pop.no.example'])).key,
      }),
      /\d+\.cert with \S+\/\d+: the private key is not that of the first certificate/,
    ],
    [
      'an encrypted key',
      'pop.no.example',
      async () => {
        const made = await generate(undefined, { keyType: 'ec', passphrase: 'hunter2' })
        return { cert: made.cert, key: made.private }
      },
      /store it without a passphrase/,
    ],
    ['no PEM', 'pop.no.example', async () => ({ cert: 'x', key: 'y' }), /not one in PEM form/],
    ['no host', 'pop_no.example', () => authority.issue(['pop.no.example']), /not a domain name/],
  ]
  test.concurrent.each(refusals)('%s is refused', async (_, host, make, reason) => {
    const files = await make()
    const { status, stdout, stderr } = await program.run(addArguments(host, files))
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
    expect(stderr).toMatch(reason)
    expect(stderr).toMatch(/^popgres: [^\n]+\n$/)
    expect(await storedFor(host)).toBeUndefined()
  })

  test.concurrent('files that are not there, and a key that is not set', async () => {
    const missing = await program.run([
      'certificate',
      'add',
      'a.example',
      '--cert',
      'x',
      '--key',
      'y',
    ])
    expect(missing).toMatchObject({ status: 1, stderr: 'popgres: x: there is no such file\n' })
    const keyless = openProgram({ DATABASE_URL: database.url })
    const certificate = await authority.issue(['pop.no.example'])
    const { status, stderr } = await keyless.run(addArguments('pop.no.example', certificate))
    keyless.close()
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: expect.stringMatching(/set POPGRES_SECRET_KEY/),
    })
  })
})

test.concurrent('certificate list tells what expires when; remove takes it away', async () => {
  const now = await authority.issue(['now.list.example'])
  const old = await authority.issue(['old.list.example'], {
    notBefore: new Date('2020-01-01'),
    notAfter: new Date('2021-02-03T04:05:06Z'),
  })
  expect((await program.run(addArguments('now.list.example', now))).status).toBe(0)
  await putCertificate(database.db, 'old.list.example', old.cert, Buffer.from('sealed'))
  const listed = await program.json<Certificate[]>(['certificate', 'list'])
  const expiries = listed.filter(({ hostName }) => hostName.endsWith('.list.example'))
  expect(expiries).toMatchObject([
    { hostName: 'now.list.example', isExpired: false },
    { hostName: 'old.list.example', isExpired: true, expiresAt: '2021-02-03T04:05:06.000Z' },
  ])
  const { stdout } = await program.run(['certificate', 'list'])
  expect(stdout).toMatch(/^old\.list\.example +2021-02-03 04:05:06Z \(expired\) +\d/m)
  expect(await program.run(['certificate', 'remove', 'OLD.list.example'])).toEqual({
    status: 0,
    stdout: 'removed old.list.example\n',
    stderr: '',
  })
  const again = await program.run(['certificate', 'remove', 'old.list.example'])
  expect(again).toMatchObject({
    status: 1,
    stderr:
      'popgres: there is no certificate for old.list.example: see "popgres certificate list"\n',
  })
})

test.concurrent('a host name belongs to one domain, until it is removed', async () => {
  await addDomain(database.db, 'one.host.example')
  await addDomain(database.db, 'two.host.example')
  const host = 'pop.host.example'
  expect(await program.run(['host', 'add', 'One.host.example', 'POP.host.example'])).toEqual({
    status: 0,
    stdout: `added ${host} to one.host.example\n`,
    stderr: '',
  })
  for (const domain of ['one.host.example', 'two.host.example']) {
    const { status, stderr } = await program.run(['host', 'add', domain, host])
    expect(status).toBe(1)
    expect(stderr).toMatch(/^popgres: this host name belongs to (a|the) domain already[^\n]*\n$/)
  }
  expect(await program.json(['host', 'list'])).toEqual([
    { hostName: host, domainName: 'one.host.example' },
  ])
  expect((await program.run(['host', 'list'])).stdout).toMatch(/^pop\.host\.example +one\.host/m)
  const wrong = await program.run(['host', 'remove', 'two.host.example', host])
  expect(wrong.stderr).toBe(
    `popgres: ${host} is no host name of two.host.example: see "popgres host list"\n`,
  )
  expect((await program.run(['host', 'remove', 'one.host.example', host])).status).toBe(0)
  expect(await program.json(['host', 'list'])).toEqual([])
  const none = await program.run(['host', 'add', 'none.host.example', host])
  expect(none.stderr).toMatch(/there is no domain none\.host\.example/)
})
