/** How passwords are hashed: argon2id. What migrations bring is in schemes.test.ts. */
import { describe, expect, it } from 'vitest'
import { Secret } from '../../../src/base/secret.ts'
import {
  argon2Counts,
  hashPassword,
  isCurrentArgon2,
  isUsableArgon2,
  makeDummyHash,
  verifyArgon2,
} from '../../../src/mail/auth/argon2.ts'

const EIGHT_BIT = Buffer.from([0x70, 0xe4, 0xff, 0x00, 0x80, 0x20])

// "secret" by the command `argon2` of the reference implementation.
const REFERENCE =
  '$argon2id$v=19$m=4096,t=3,p=2$c2FsdHNhbHRzYWx0$U6N4zi1ZdRFb4wC3QrUB+0ZfncoeTXGKW9dp1Z7lhLg'

describe('argon2id', () => {
  it('knows the password it hashed, and salts', async () => {
    const [one, two] = [
      await hashPassword(new Secret('a b')),
      await hashPassword(new Secret('a b')),
    ]
    expect(one).not.toBe(two)
    expect(await verifyArgon2(one, new Secret('a b'))).toBe(true)
    expect(await verifyArgon2(one, new Secret('a b '))).toBe(false)
    expect(await verifyArgon2(one, new Secret('a'))).toBe(false)
  })

  it('takes any octets as they are', async () => {
    const stored = await hashPassword(new Secret(EIGHT_BIT))
    expect(await verifyArgon2(stored, new Secret(EIGHT_BIT))).toBe(true)
    const decoded = new Secret(EIGHT_BIT.toString('utf8'))
    expect(await verifyArgon2(stored, decoded)).toBe(false)
    expect(await verifyArgon2(stored, new Secret(EIGHT_BIT.subarray(0, 3)))).toBe(false)
  })

  it('hashes with 19456 KiB, two passes, one lane, and knows that form', async () => {
    const stored = await hashPassword(new Secret('x'))
    expect(stored).toMatch(/^\$argon2id\$v=19\$m=19456,t=2,p=1\$/)
    expect(isCurrentArgon2(stored) && isUsableArgon2(stored)).toBe(true)
    expect(isCurrentArgon2(stored.replace('t=2', 't=3'))).toBe(false)
    expect(isCurrentArgon2(stored.replace('argon2id', 'argon2i'))).toBe(false)
  })

  it('reads what the reference implementation wrote', async () => {
    expect(await verifyArgon2(REFERENCE, new Secret('secret'))).toBe(true)
    expect(await verifyArgon2(REFERENCE, new Secret('Secret'))).toBe(false)
  })

  it('has a dummy of the same form, different each time', async () => {
    const dummy = makeDummyHash()
    expect(isCurrentArgon2(dummy) && isUsableArgon2(dummy)).toBe(true)
    expect(dummy).not.toBe(makeDummyHash())
    expect(dummy.length).toBe((await hashPassword(new Secret('x'))).length)
    expect(await verifyArgon2(dummy, new Secret(''))).toBe(false)
  })

  it('counts what it computes', async () => {
    const before = argon2Counts()
    await verifyArgon2(await hashPassword(new Secret('x')), new Secret('y'))
    const after = argon2Counts()
    expect([after.hashed - before.hashed, after.verified - before.verified]).toEqual([1, 1])
  })

  const tail = `${'a'.repeat(22)}$${'b'.repeat(43)}`
  it.each([
    ['m=131072,t=2,p=1', true],
    ['m=131073,t=1,p=1', false],
    ['m=131072,t=3,p=1', false],
    ['m=65536,t=4,p=1', true],
    ['m=65536,t=5,p=1', false],
    ['m=99999999,t=1,p=1', false],
    ['m=4294967296,t=1,p=1', false],
    ['m=65536,t=3,p=4', true],
    ['m=19456,p=1,t=2', true],
    ['m=19456,t=2', false],
    ['m=19456,t=2,p=1,t=2', false],
    ['m=8,t=9999,p=1', true],
    ['m=8,t=1,p=2', false],
    ['m=65536,t=1,p=17', false],
    ['m=0,t=1,p=1', false],
    ['m=65536,t=0,p=1', false],
    ['m=65536,t=1,p=1,data=eA', false],
    ['m=065536,t=1,p=1', false],
  ])('takes a stored hash with %s: %s', (parameters, isUsable) => {
    expect(isUsableArgon2(`$argon2id$v=19$${parameters}$${tail}`)).toBe(isUsable)
  })

  it('does not take a hash that is cut or garbled', () => {
    const stored = makeDummyHash()
    expect(isUsableArgon2(stored.slice(0, -30))).toBe(false)
    expect(isUsableArgon2(`${stored}\n`)).toBe(false)
    expect(isUsableArgon2(stored.replace('argon2id', 'argon2d'))).toBe(false)
    expect(isUsableArgon2('$argon2id$v=19$')).toBe(false)
  })
})
