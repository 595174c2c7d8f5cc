import { afterEach, expect, test, vi } from 'vitest'
import { chooseNamed, UnknownName } from '../../../bench/chosen.ts'

const servers = ['popgres', 'dovecot sha512', 'dovecot argon2id'].map((name) => ({ name }))
const isNamed = (name: string, word: string): boolean => name.startsWith(word)

afterEach(() => vi.unstubAllEnvs())

test('names choose in the order of what there is, and none choose everything', () => {
  vi.stubEnv('BENCH_SERVERS', ' dovecot, popgres,')
  expect(chooseNamed('BENCH_SERVERS', servers, isNamed)).toEqual(servers)
  expect(chooseNamed('BENCH_WORKLOADS', servers)).toEqual(servers)
  vi.stubEnv('BENCH_WORKLOADS', 'dovecot sha512')
  expect(chooseNamed('BENCH_WORKLOADS', servers)).toEqual([{ name: 'dovecot sha512' }])
})

test('a name that is none is refused with those that are', () => {
  vi.stubEnv('BENCH_SERVERS', 'popgres,courier')
  const choose = () => chooseNamed('BENCH_SERVERS', servers, isNamed)
  expect(choose).toThrow(UnknownName)
  expect(choose).toThrow(
    'BENCH_SERVERS: courier is none of popgres, dovecot sha512, dovecot argon2id',
  )
})
