/** The cache of verified passwords: no two different logins are one entry, and it is bounded. */
import fc from 'fast-check'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { Secret } from '../../../src/base/secret.ts'
import { VerifiedCache } from '../../../src/mail/auth/verified-cache.ts'

type Login = [domainId: number, userId: number, hash: string, password: string]

const add = (cache: VerifiedCache, [domainId, userId, hash, password]: Login): void =>
  cache.add({ domainId, userId }, hash, new Secret(password))

const has = (cache: VerifiedCache, [domainId, userId, hash, password]: Login): boolean =>
  cache.has({ domainId, userId }, hash, new Secret(password))

describe('a verified password', () => {
  afterEach(() => {
    vi.restoreAllMocks()
    vi.useRealTimers()
  })

  it('is known again, and to another process is not', () => {
    const cache = new VerifiedCache()
    add(cache, [1, 2, '$2b$', 'secret'])
    expect(has(cache, [1, 2, '$2b$', 'secret'])).toBe(true)
    expect(has(new VerifiedCache(), [1, 2, '$2b$', 'secret'])).toBe(false)
  })

  it.each<[Login, Login]>([
    [
      [1, 23, 'h', 'p'],
      [12, 3, 'h', 'p'],
    ],
    [
      [1, 2, 'ha', 'b'],
      [1, 2, 'h', 'ab'],
    ],
    [
      [1, 2, 'h', 'p'],
      [1, 2, 'h', 'P'],
    ],
    [
      [1, 2, '', '\0p'],
      [1, 2, '', 'p'],
    ],
  ])('%j is not %j', (one, other) => {
    const cache = new VerifiedCache()
    add(cache, one)
    expect(has(cache, other)).toBe(false)
  })

  it('is only itself, whatever the parts are', () => {
    const id = fc.integer({ min: 1, max: 30 })
    const hash = fc.string({ maxLength: 4 }).map((text) => text.replaceAll('\0', ''))
    const login = fc.tuple(id, id, hash, fc.string({ maxLength: 4 }))
    fc.assert(
      fc.property(login, login, (one, other) => {
        const cache = new VerifiedCache()
        add(cache, one)
        expect(has(cache, other)).toBe(JSON.stringify(one) === JSON.stringify(other))
      }),
    )
  })

  it('is forgotten after an hour, used or not', () => {
    let now = performance.now()
    // The cache looks at the clock at most once a millisecond, and has a timer for that.
    vi.useFakeTimers({ toFake: ['setTimeout'] })
    vi.spyOn(performance, 'now').mockImplementation(() => now)
    const wait = (ms: number): void => {
      now += ms
      vi.advanceTimersByTime(ms)
    }
    const cache = new VerifiedCache()
    add(cache, [1, 2, 'h', 'p'])
    wait(3_590_000)
    expect(has(cache, [1, 2, 'h', 'p'])).toBe(true)
    wait(11_000)
    expect(has(cache, [1, 2, 'h', 'p'])).toBe(false)
  })

  it('gives way when there are 50,000 later ones', () => {
    const cache = new VerifiedCache()
    for (let userId = 1; userId <= 50_001; userId++) add(cache, [1, userId, 'h', 'p'])
    expect([has(cache, [1, 1, 'h', 'p']), has(cache, [1, 2, 'h', 'p'])]).toEqual([false, true])
  })
})
