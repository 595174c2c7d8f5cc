import { describe, expect, test } from 'vitest'
import { parseLoginName } from '../../../src/mail/auth/login-name.ts'
import { judgeCount, throttleKeys } from '../../../src/mail/auth/throttle.ts'

const refuse = { kind: 'refuse' }
const go = (delayMs: number) => ({ kind: 'go', delayMs })

describe('failures cost nothing, then a growing delay, then a refusal', () => {
  test.each([
    ['user', [0, 0, 0, 0, 1, 2, 4, 8, 8, 8], 10],
    ['known', [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 4, 4, 4, 8], 20],
  ] as const)('of a %s', (kind, seconds, refusedFrom) => {
    for (const [count, delay] of seconds.entries())
      expect(judgeCount(kind, count)).toEqual(go(delay * 1_000))
    expect(judgeCount(kind, refusedFrom - 1)).toEqual(go(8_000))
    expect(judgeCount(kind, refusedFrom)).toEqual(refuse)
  })

  test('of a network later: many people may share an address', () => {
    expect(judgeCount('network', 10)).toEqual(go(0))
    expect(judgeCount('network', 11)).toEqual(go(1_000))
    expect(judgeCount('network', 49)).toEqual(go(8_000))
    expect(judgeCount('network', 50)).toEqual(refuse)
  })

  test('of a domain never a refusal', () => {
    expect(judgeCount('domain', 100)).toEqual(go(0))
    expect(judgeCount('domain', 101)).toEqual(go(1_000))
    expect(judgeCount('domain', 1_000_000)).toEqual(go(8_000))
  })
})

describe('keys', () => {
  const keysOf = (client: string, name: string) =>
    Object.values(throttleKeys(client, parseLoginName(name, 'default.test')))

  test('are the network, the user in lower case, the domain, and the user there', () => {
    expect(keysOf('192.0.2.7', 'Ada.L@Example.TEST')).toEqual([
      'network 192.0.2.7',
      'user ada.l@example.test',
      'domain example.test',
      'known 192.0.2.7 ada.l@example.test',
    ])
    expect(keysOf('192.0.2.7', 'ada')).toContain('user ada@default.test')
  })

  test('take all of an IPv6 /64 for one network', () => {
    expect(keysOf('2001:db8:1:2::a', 'ada')).toEqual(keysOf('2001:db8:1:2:ffff:1:2:3', 'ada'))
    expect(keysOf('2001:db8:1:3::a', 'ada')).not.toEqual(keysOf('2001:db8:1:2::a', 'ada'))
  })

  test('of what cannot be an address are the network alone', () => {
    expect(keysOf('192.0.2.7', 'a b')).toEqual(['network 192.0.2.7'])
  })
})
