/** The certificate that a node makes for itself. */
import { X509Certificate } from 'node:crypto'
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generate } from 'selfsigned'
import { beforeEach, expect, onTestFinished, test, vi } from 'vitest'
import { openLog } from '../../../src/base/log.ts'
import { Secret } from '../../../src/base/secret.ts'
import { ensureSelfSigned, keepSelfSigned } from '../../../src/cli/quickstart/self-signed.ts'
import { openKeyPair } from '../../../src/server/tls/key-pair.ts'

const DAY_MS = 86_400_000
let directory: string

beforeEach(() => {
  const parent = mkdtempSync(join(tmpdir(), 'popgres-self-signed-'))
  directory = join(parent, 'tls')
  onTestFinished(() => rmSync(parent, { recursive: true }))
})

const ensure = async (hostname: string) => {
  const { certFile, keyFile } = await ensureSelfSigned(directory, hostname)
  return {
    certFile,
    keyFile,
    cert: readFileSync(certFile, 'utf8'),
    key: readFileSync(keyFile, 'utf8'),
  }
}

test('is for the host, for localhost and loopback, and private', async () => {
  const { certFile, keyFile, cert, key } = await ensure('Mail.home.example')
  const { certificate } = openKeyPair({ chain: cert, key: new Secret(key) })
  for (const name of ['mail.home.example', 'localhost'])
    expect([name, certificate.checkHost(name)]).toEqual([name, name])
  for (const address of ['127.0.0.1', '::1']) expect(certificate.checkIP(address)).toBe(address)
  expect(certificate.publicKey.asymmetricKeyDetails).toMatchObject({ namedCurve: 'prime256v1' })
  expect(certificate.ca).toBe(false)
  for (const file of [certFile, keyFile]) expect(statSync(file).mode & 0o777).toBe(0o600)
})

test('is kept from start to start', async () => {
  expect(await ensure('mail.home.example')).toEqual(await ensure('mail.home.example'))
})

test('is made anew for another host, and where a file is damaged or missing', async () => {
  const first = await ensure('mail.home.example')
  const second = await ensure('other.home.example')
  expect(new X509Certificate(second.cert).checkHost('other.home.example')).toBeDefined()
  expect(second.key).not.toBe(first.key)
  writeFileSync(second.certFile, 'nothing')
  const third = await ensure('other.home.example')
  expect(third.cert).toMatch(/BEGIN CERTIFICATE/)
  // Between the two files the power failed.
  writeFileSync(third.keyFile, first.key)
  const fourth = await ensure('other.home.example')
  expect(() => openKeyPair({ chain: fourth.cert, key: new Secret(fourth.key) })).not.toThrow()
  rmSync(fourth.keyFile)
  expect((await ensure('other.home.example')).key).toMatch(/PRIVATE KEY/)
})

test.each([
  [29, true],
  [31, false],
])('with %i days left: renewed %s', async (days, isRenewed) => {
  const { certFile, keyFile } = await ensure('mail.home.example')
  const made = await generate([{ name: 'commonName', value: 'mail.home.example' }], {
    keyType: 'ec',
    algorithm: 'sha256',
    notAfterDate: new Date(Date.now() + days * DAY_MS),
  })
  writeFileSync(certFile, made.cert)
  writeFileSync(keyFile, made.private)
  expect((await ensure('mail.home.example')).cert !== made.cert).toBe(isRenewed)
})

test('a node that runs looks each day, until it ends', async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
  onTestFinished(() => void vi.useRealTimers())
  const { files, stop } = await keepSelfSigned(directory, 'mail.home.example', openLog('silent'))
  for (const _ of ['first day', 'second day']) {
    rmSync(files.certFile)
    vi.advanceTimersByTime(DAY_MS)
    await vi.waitUntil(() => existsSync(files.certFile))
  }
  stop()
  expect(vi.getTimerCount()).toBe(0)
})

test('a long host name is in it whole', async () => {
  const hostname = `${'a'.repeat(60)}.${'b'.repeat(60)}.example`
  const { cert } = await ensure(hostname)
  expect(new X509Certificate(cert).checkHost(hostname)).toBe(hostname)
})

test('a link in place of a file is not followed, and told', async () => {
  const { keyFile } = await ensure('mail.home.example')
  rmSync(keyFile)
  // A link, as another account could lay it out.
  symlinkSync('/etc/hostname', keyFile)
  await expect(ensureSelfSigned(directory, 'mail.home.example')).rejects.toMatchObject({
    code: 'EMBEDDED_POSTGRES',
  })
})
