import { inspect } from 'node:util'
import { expect, test } from 'vitest'
import { parseDatabaseUrl } from '../../../src/base/database-url.ts'

function hostsOf(text: string): { name: string; url: string }[] {
  const parsed = parseDatabaseUrl(text)
  if ('wrong' in parsed) throw new Error(parsed.wrong)
  return [...parsed.hosts]
}

test.each([
  'postgres://u:p@h/d',
  'postgres:///d?host=/run/postgresql',
  'postgres://u@/d?host=/run/postgresql&sslmode=no-verify',
  'postgresql://u:p%40@[::1]:1/d?target_session_attrs=read-write',
])('one host is left to pg as it is: %s', (text) => {
  expect(hostsOf(text).map(({ url }) => url)).toEqual([text])
})

test('several hosts are a URL each, with what they have in common', () => {
  const text = 'postgres://u:p,@a:5432,b:5433,[::1],%2Frun%2Fpg:5434/d?sslmode=no-verify'
  expect(hostsOf(`${text}&target_session_attrs=primary`)).toEqual([
    { name: 'a:5432', url: 'postgres://u:p,@a:5432/d?sslmode=no-verify' },
    { name: 'b:5433', url: 'postgres://u:p,@b:5433/d?sslmode=no-verify' },
    { name: '[::1]', url: 'postgres://u:p,@[::1]/d?sslmode=no-verify' },
    { name: '/run/pg:5434', url: 'postgres://u:p,@%2Frun%2Fpg:5434/d?sslmode=no-verify' },
  ])
})

test('hosts may stand in the query, with a port for all or one for each', () => {
  const common = 'postgres://u:p@/d?host=/run/pg,b'
  expect(hostsOf(`${common}&port=1,2`).map(({ url }) => url)).toEqual([
    'postgres://u:p@%2Frun%2Fpg:1/d',
    'postgres://u:p@b:2/d',
  ])
  expect(hostsOf(`${common}&port=3`).map(({ name }) => name)).toEqual(['/run/pg:3', 'b:3'])
  expect(hostsOf(common).map(({ name }) => name)).toEqual(['/run/pg', 'b'])
})

test.each([
  ['postgres://u:hunter2@a,b/d', true],
  ['postgres://u:hunter2@a/d?target_session_attrs=read-write', true],
  ['postgres://u:hunter2@a/d', false],
])('%s: must it be writable? %s', (text, mustBeWritable) => {
  expect(parseDatabaseUrl(text)).toMatchObject({ mustBeWritable })
})

test('people are shown hosts and database, never the password', () => {
  for (const [text, description] of [
    ['postgres://u:hunter2@a:1,%2Frun%2Fpg/d?sslmode=disable', 'a:1,/run/pg/d'],
    ['postgres://u:hunter2@a/d', 'a/d'],
    ['postgres:///d?host=/run/pg&user=u&password=hunter2', '/run/pg/d'],
  ])
    expect(parseDatabaseUrl(text ?? '')).toMatchObject({ description })
})

test.each(['/hunter2', '12/hunter2', '5?hunter2', '5#hunter2', '/h,unter2'])(
  'a password is not taken for a port and a database: %s',
  (password) => {
    const parsed = parseDatabaseUrl(`postgres://u:${password}@h/d`)
    expect(parsed).toEqual({ wrong: expect.stringContaining('percent-encoded') })
    expect(inspect(parsed)).not.toContain('unter2')
  },
)

test('an @ elsewhere is none of a password', () => {
  const text = 'postgres://u@h/d?application_name=a@b'
  expect(hostsOf(text)).toEqual([{ name: 'h', url: text }])
})

test('a host that is named twice is one', () => {
  expect(hostsOf('postgres://u@a,b:1,a/d').map(({ name }) => name)).toEqual(['a', 'b:1'])
  expect(hostsOf('postgres://u@a,a/d')).toEqual([{ name: 'a', url: 'postgres://u@a/d' }])
})

test.each([
  ['postgres://u:hunter2@a,,b/d', /postgres:\/\/ URL/],
  ['postgres://u:hunter2@a:x,b/d', /postgres:\/\/ URL/],
  ['postgres://u:hunter2@/d?host=a,b,c&port=1,2', /as many ports as hosts/],
  ['postgres://u:hunter2@a,b/d?port=1,2', /in one place/],
  ['postgres://u:hunter2@a,b/d?host=c', /in one place/],
  [`postgres://u:hunter2@${'h,'.repeat(8)}h/d`, /8 hosts at most/],
  ['postgres://u:hunter2@a,b/d?target_session_attrs=any', /target_session_attrs=read-write/],
  ['postgres://u:hunter2@a/d?target_session_attrs=standby', /target_session_attrs=read-write/],
])('%s is refused, and not shown', (text, why) => {
  const parsed = parseDatabaseUrl(text)
  expect(parsed).toEqual({ wrong: expect.stringMatching(why) })
  expect(inspect(parsed)).not.toContain('hunter2')
})
