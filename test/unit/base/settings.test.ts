import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Failure } from '../../../src/base/failure.ts'
import { formatListenAddress, Networks } from '../../../src/base/network.ts'
import { Secret } from '../../../src/base/secret.ts'
import { parseSettings, SETTINGS } from '../../../src/base/settings.ts'
import { SASL_MECHANISMS } from '../../../src/protocol/pop3/actions.ts'

/** The one line that the start would print. */
function refusalOf(env: Record<string, string>): string {
  try {
    parseSettings(env)
  } catch (error) {
    expect(error).toBeInstanceOf(Failure)
    return (error as Failure).message
  }
  return 'accepted'
}

test('the defaults are valid', () => {
  const settings = parseSettings({})
  expect(settings.DATABASE_URL).toBeUndefined()
  expect(settings.POPGRES_POP3_LISTEN.map(formatListenAddress)).toEqual(['127.0.0.1:1110'])
  expect(settings.POPGRES_AUTOLOGOUT).toBeGreaterThanOrEqual(600)
})

test('an unknown POPGRES_ variable is refused by name, others are not ours', () => {
  expect(refusalOf({ POPGRES_POP_LISTEN: '1' })).toContain('POPGRES_POP_LISTEN')
  expect(refusalOf({ POPGRES_WORKERS_FILE: '/x' })).toContain('POPGRES_WORKERS_FILE')
  expect(refusalOf({ PATH: '/bin', POPGRESS: '1' })).toBe('accepted')
})

test.each([
  ['POPGRES_WORKERS', '0'],
  ['POPGRES_WORKERS', 'two'],
  ['POPGRES_WORKERS', ''],
  ['POPGRES_AUTOLOGOUT', '599'],
  ['POPGRES_POP3_LISTEN', '127.0.0.1'],
  ['POPGRES_POP3_LISTEN', '127.0.0.1:65536'],
  ['POPGRES_LMTP_TRUSTED_NETWORKS', '10.0.0.0/33'],
  ['POPGRES_LMTP_TRUSTED_NETWORKS', 'all'],
  ['POPGRES_PLAINTEXT_AUTH', 'yes'],
  ['POPGRES_HOSTNAME', 'a b'],
  ['POPGRES_SECRET_KEY', 'short'],
  ['POPGRES_LOG_LEVEL', 'loud'],
  ['POPGRES_SASL_MECHANISMS', 'PLAIN CRAM-MD5'],
])('%s=%s is refused in one line that names it', (name, value) => {
  const line = refusalOf({ [name]: value })
  expect(line).toMatch(new RegExp(`^${name}\\b.* must `))
  expect(line).not.toContain('\n')
})

test('a wrong secret is not in the message, and a right one prints as [secret]', () => {
  expect(refusalOf({ POPGRES_SECRET_KEY: 'hunter2' })).not.toContain('hunter2')
  const settings = parseSettings({ DATABASE_URL: 'postgres://u:hunter2@h/d' })
  expect(`${inspect(settings)}${JSON.stringify(settings)}`).not.toContain('hunter2')
  expect(settings.DATABASE_URL?.reveal().toString()).toContain('hunter2')
})

test.each(['mysql://u:hunter2@h/d', 'hunter2', 'postgres:hunter2', 'postgres://hunter2:x:y@[/d'])(
  'DATABASE_URL=%s is refused, and is not in the message',
  (value) => {
    expect(refusalOf({ DATABASE_URL: value })).toBe('DATABASE_URL must be a postgres:// URL')
  },
)

test.each([
  'postgresql://u:p%40@h:1/d?sslmode=require',
  'postgres:///d?host=/run/postgresql',
  'postgres://u@/d?host=/run/postgresql',
  'postgres://u@%2Frun%2Fpostgresql/d',
])('DATABASE_URL=%s is accepted', (value) => {
  expect(refusalOf({ DATABASE_URL: value })).toBe('accepted')
})

test('a refusal says what would do', () => {
  expect(refusalOf({ POPGRES_LOG_LEVEL: 'loud' })).toMatch(/must be one of fatal, .*, silent$/)
  expect(refusalOf({ POPGRES_DEFAULT_DOMAIN: 'a b' })).toMatch(/"a b" but must be a host name$/)
  expect(parseSettings({ POPGRES_DEFAULT_DOMAIN: 'A.Example' }).POPGRES_DEFAULT_DOMAIN).toBe(
    'a.example',
  )
  for (const name of ['POPGRES_POP3_LISTEN', 'POPGRES_LMTP_LISTEN'] as const) {
    expect(SETTINGS[name].unit).toContain('unix:/path')
    expect(parseSettings({ [name]: 'unix:/run/x' })[name]).toEqual([{ path: '/run/x' }])
  }
})

test('secrets may come from files; both at once are refused', () => {
  const directory = mkdtempSync(join(tmpdir(), 'settings-'))
  const file = join(directory, 'url')
  writeFileSync(file, 'postgres://u@h/d\n')
  expect(parseSettings({ DATABASE_URL_FILE: file }).DATABASE_URL?.reveal().toString()).toBe(
    'postgres://u@h/d',
  )
  expect(refusalOf({ DATABASE_URL_FILE: file, DATABASE_URL: 'x' })).toContain('DATABASE_URL_FILE')
  expect(refusalOf({ DATABASE_URL_FILE: join(directory, 'none') })).toContain('none')
  // Else a node would start a database of its own, without the users, and refuse their mail.
  writeFileSync(file, '\n')
  expect(refusalOf({ DATABASE_URL_FILE: file })).toBe(`DATABASE_URL_FILE: ${file} is empty`)
  rmSync(directory, { recursive: true })
})

test('each setting has a unit and a meaning, and its default passes its own check', () => {
  for (const [name, row] of Object.entries(SETTINGS)) {
    expect(row.unit, name).not.toBe('')
    expect(row.meaning.length, name).toBeGreaterThan(10)
    const text = typeof row.default === 'function' ? row.default() : row.default
    expect(row.schema.safeParse(text).success, name).toBe(true)
  }
})

test('networks contain what their prefix says, IPv4 mapped into IPv6 included', () => {
  const networks = new Networks()
  expect(networks.add('10.1.0.0/16')).toBe(true)
  expect(networks.add('fd00::/8')).toBe(true)
  expect(networks.add('192.0.2.7')).toBe(true)
  expect(networks.contains('10.1.255.1')).toBe(true)
  expect(networks.contains('::ffff:10.1.255.1')).toBe(true)
  expect(networks.contains('10.2.0.1')).toBe(false)
  expect(networks.contains('fd12::1')).toBe(true)
  expect(networks.contains('192.0.2.8')).toBe(false)
  expect(networks.contains('not an address')).toBe(false)
})

test('a listen address survives being written and read', () => {
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain()), fc.nat(65_535), (host, port) => {
      const text = formatListenAddress({ host, port })
      const [address] = parseSettings({ POPGRES_POP3_LISTEN: text }).POPGRES_POP3_LISTEN
      expect(address).toEqual({ host, port })
    }),
  )
})

test('a secret shows nothing, however it is printed', () => {
  const secret = new Secret('hunter2')
  const printed = `${secret} ${String(secret)} ${JSON.stringify({ secret })} ${inspect(secret)}`
  expect(printed).not.toContain('hunter2')
  expect(secret.reveal().toString()).toBe('hunter2')
})

test('the mechanisms are those of the protocol, all of them or the chosen ones', () => {
  const mechanismsOf = (text?: string) =>
    parseSettings(text === undefined ? {} : { POPGRES_SASL_MECHANISMS: text })
      .POPGRES_SASL_MECHANISMS
  expect(mechanismsOf()).toEqual({ names: [...SASL_MECHANISMS], areChosen: false })
  expect(mechanismsOf('plain, scram-sha-256')).toEqual({
    names: ['PLAIN', 'SCRAM-SHA-256'],
    areChosen: true,
  })
  expect(mechanismsOf('')).toEqual({ names: [], areChosen: true })
})

test('a certificate and its key belong together', () => {
  expect(refusalOf({ POPGRES_TLS_CERT: '/c.pem' })).toMatch(/POPGRES_TLS_CERT and POPGRES_TLS_KEY/)
  expect(refusalOf({ POPGRES_TLS_CERT: '/c.pem', POPGRES_TLS_KEY: '/k.pem' })).toBe('accepted')
})

test('several secret keys: the first seals', () => {
  const [one, two] = ['1f'.repeat(32), '2e'.repeat(32)]
  const ring = parseSettings({ POPGRES_SECRET_KEY: `${one} ${two}` }).POPGRES_SECRET_KEY
  expect(ring?.keys.map((key) => key.reveal().toString('hex'))).toEqual([one, two])
  expect(refusalOf({ POPGRES_SECRET_KEY: `${one} x` })).toContain('POPGRES_SECRET_KEY')
})
