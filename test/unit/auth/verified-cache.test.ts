/** The cache of verified passwords: no two different logins are one entry, and it is bounded. */
import fc from 'fast-check'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { Secret } from '../../../src/base/secret.ts'
import { isVerifiedAgainst, VerifiedCache } from '../../../src/mail/auth/verified-cache.ts'

type Login = [address: string, hash: string, password: string]

const ENTITLEMENT = { domainId: 1, userId: 2, fingerprint: '3', credentialId: undefined }

const add = (cache: VerifiedCache, [address, hash, password]: Login): void =>
  cache.add(cache.recall(address, new Secret(password)), ENTITLEMENT, hash)

const has = (cache: VerifiedCache, [address, hash, password]: Login): boolean =>
  isVerifiedAgainst(cache.recall(address, new Secret(password)), hash)

describe('a verified password', () => {
  afterEach(() => {
    vi.restoreAllMocks()
    vi.useRealTimers()
  })

  it('is known again with whom to expect, and to another process is not', () => {
    const cache = new VerifiedCache()
    add(cache, ['a@b.test', '$2b$', 'secret'])
    expect(has(cache, ['a@b.test', '$2b$', 'secret'])).toBe(true)
    const { verified } = cache.recall('a@b.test', new Secret('secret'))
    expect(verified?.entitlement).toEqual(ENTITLEMENT)
    expect(has(new VerifiedCache(), ['a@b.test', '$2b$', 'secret'])).toBe(false)
  })

  it('that is an app password is verified against no hash', () => {
    const cache = new VerifiedCache()
    const recollection = cache.recall('a@b.test', new Secret('secret'))
    cache.add(recollection, { ...ENTITLEMENT, credentialId: 'phone' }, undefined)
    expect(cache.recall('a@b.test', new Secret('secret')).verified?.entitlement.credentialId).toBe(
      'phone',
    )
    expect(has(cache, ['a@b.test', '', 'secret'])).toBe(false)
  })

  it.each<[Login, Login]>([
    [
      ['a@b.test', 'h', 'p'],
      ['b@b.test', 'h', 'p'],
    ],
    [
      ['a@b.test', 'h', 'p'],
      ['a@b.tes', 'h', 'tp'],
    ],
    [
      ['a@b.test', 'h', 'p'],
      ['a@b.test', 'h', 'P'],
    ],
    [
      ['a@b.test', 'h', '\0p'],
      ['a@b.test', 'h', 'p'],
    ],
    [
      ['a@b.test', 'h', 'p'],
      ['a@b.test', 'i', 'p'],
    ],
  ])('%j is not %j', (one, other) => {
    const cache = new VerifiedCache()
    add(cache, one)
    expect(has(cache, other)).toBe(false)
  })

  it('is only itself, whatever the parts are', () => {
    const part = fc.string({ maxLength: 4 })
    const address = part.map((text) => text.replaceAll('\0', ''))
    const login = fc.tuple(address, part, part)
    fc.assert(
      fc.property(login, login, (one, other) => {
        const cache = new VerifiedCache()
        add(cache, one)
        expect(has(cache, other)).toBe(JSON.stringify(one) === JSON.stringify(other))
      }),
    )
  })

  it('is forgotten after an hour, used, replaced or not', () => {
    let now = performance.now()
    // The cache looks at the clock at most once a millisecond, and has a timer for that.
    vi.useFakeTimers({ toFake: ['setTimeout'] })
    vi.spyOn(performance, 'now').mockImplementation(() => now)
    const wait = (ms: number): void => {
      now += ms
      vi.advanceTimersByTime(ms)
    }
    const cache = new VerifiedCache()
    add(cache, ['a@b.test', 'h', 'p'])
    wait(3_590_000)
    expect(has(cache, ['a@b.test', 'h', 'p'])).toBe(true)
    add(cache, ['a@b.test', 'h', 'p'])
    wait(11_000)
    expect(has(cache, ['a@b.test', 'h', 'p'])).toBe(false)
  })

  it('gives way when there are 50,000 later ones', () => {
    const cache = new VerifiedCache()
    for (let user = 1; user <= 50_001; user++) add(cache, [`${user}@b.test`, 'h', 'p'])
    const kept = [1, 2].map((user) => has(cache, [`${user}@b.test`, 'h', 'p']))
    expect(kept).toEqual([false, true])
  })
})
