/** What is set for TLS is looked at before a node starts, and what is wrong is named. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { parseSettings } from '../../../src/base/settings.ts'
import { checkTlsFiles } from '../../../src/cli/serve/tls-files.ts'
import { TestAuthority } from '../../support/certificates.ts'

let directory: string

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'popgres-tls-files-'))
  const authority = await TestAuthority.create()
  const [first, second] = [
    await authority.issue(['a.example']),
    await authority.issue(['b.example']),
  ]
  const encrypted = first.key.replaceAll('PRIVATE KEY', 'ENCRYPTED PRIVATE KEY')
  const damaged = `${first.cert}\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n`
  const files = { cert: first.cert, key: first.key, other: second.key, encrypted, damaged }
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text)
  writeFileSync(join(directory, 'empty'), '')
})

afterAll(() => rmSync(directory, { recursive: true }))

const check = (cert: string, key: string, hosts = '.') =>
  checkTlsFiles(
    parseSettings({
      POPGRES_TLS_CERT: join(directory, cert),
      POPGRES_TLS_KEY: join(directory, key),
      POPGRES_TLS_DIRECTORY: join(directory, hosts),
    }),
  )

test('what fits is used, and nothing need be set', async () => {
  expect(await check('cert', 'key')).toEqual({
    certFile: join(directory, 'cert'),
    keyFile: join(directory, 'key'),
  })
  expect(await checkTlsFiles(parseSettings({}))).toBeUndefined()
})

test.each([
  ['none', 'key', '.', 'CERT', 'none', 'cannot be read (ENOENT)'],
  ['.', 'key', '.', 'CERT', '', 'cannot be read (EISDIR)'],
  ['empty', 'key', '.', 'CERT', 'empty', 'the certificate is not one in PEM form'],
  ['damaged', 'key', '.', 'CERT', 'damaged', /OpenSSL refuses it/],
  ['cert', 'none', '.', 'KEY', 'none', 'cannot be read (ENOENT)'],
  ['cert', 'cert', '.', 'KEY', 'cert', 'the private key is not one in PEM form'],
  ['cert', 'encrypted', '.', 'KEY', 'encrypted', /^the private key is encrypted/],
  ['cert', 'other', '.', 'KEY', 'other', 'the private key is not that of the first certificate'],
  ['cert', 'key', 'none', 'DIRECTORY', 'none', 'cannot be read (ENOENT)'],
  ['cert', 'key', 'key', 'DIRECTORY', 'key', 'it is not a directory'],
])('%s, %s, %s: POPGRES_TLS_%s is named', async (cert, key, hosts, setting, file, what) => {
  const error: Error = await check(cert, key, hosts).then(
    () => new Error('accepted'),
    (thrown) => thrown,
  )
  const named = `POPGRES_TLS_${setting}: ${join(directory, file).replace(/\/$/, '')}`
  expect(error).toMatchObject({ code: 'SETTINGS_INVALID' })
  expect(error.message.slice(0, named.length + 2)).toBe(`${named}: `)
  expect(error.message.slice(named.length + 2)).toEqual(
    typeof what === 'string' ? what : expect.stringMatching(what),
  )
})
