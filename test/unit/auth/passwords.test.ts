/** Stored password hashes: argon2id, and the bcrypt that migrations and pgcrypto bring. */
import { hashSync } from 'bcryptjs'
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
import {
  isUsableBcrypt,
  isWholeBcryptPassword,
  verifyBcrypt,
} from '../../../src/mail/auth/legacy-hashes.ts'

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
    ['m=1048576,t=4,p=1', true],
    ['m=1048577,t=1,p=1', false],
    ['m=1048576,t=5,p=1', false],
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
    expect(isUsableArgon2(stored.replace('argon2id', 'argon2i'))).toBe(false)
    expect(isUsableArgon2('$argon2id$v=19$')).toBe(false)
  })
})

describe('bcrypt', () => {
  // Made by crypt(3) of libxcrypt, not by the library under test.
  const VECTORS: [password: string, stored: string][] = [
    ['secret', '$2a$05$/AC3cA11231CcCBaaa11C.d9.sdVOYI6DGvYRHcqceaiNtZ1AY7VS'],
    ['pässwörd', '$2b$05$.cc.311ACBBA.3Caabbcb.r9el8rgKtdXQ89pfyMjXck.vtGjq4si'],
    ['', '$2y$05$C/.3.32./1baab2aab/Bb.4.QsdZ/Gu4390BTaZZf/WLxs8VBp51G'],
    [' between spaces ', '$2b$05$c1c21C2baABaBb3/AaB.C.fwoRyEV3RCMQoWTy/BcOaVfw2WD7OtC'],
  ]
  it.each(VECTORS)('knows the hash of %j', async (password, stored) => {
    expect(isUsableBcrypt(stored)).toBe(true)
    expect(await verifyBcrypt(stored, new Secret(password))).toBe(true)
    expect(await verifyBcrypt(stored, new Secret(`x${password}`))).toBe(false)
  })

  it('looks at 72 octets, as crypt does', async () => {
    const stored = hashSync('x'.repeat(72), 4)
    expect(await verifyBcrypt(stored, new Secret(`${'x'.repeat(72)}more`))).toBe(true)
    expect(await verifyBcrypt(stored, new Secret('x'.repeat(71)))).toBe(false)
    expect(isWholeBcryptPassword(new Secret('é'.repeat(36)))).toBe(true)
    expect(isWholeBcryptPassword(new Secret(`${'é'.repeat(36)}x`))).toBe(false)
  })

  it('refuses octets that it cannot hash unchanged', async () => {
    const latin1 = Buffer.from('caf\xe9', 'latin1')
    const stored = hashSync(latin1.toString('utf8'), 4)
    expect(await verifyBcrypt(stored, new Secret(latin1))).toBe(false)
    const cyclic = hashSync('ab', 4)
    expect(await verifyBcrypt(cyclic, new Secret('ab\0ab'))).toBe(false)
  })

  it.each([
    ['$2a$04$', true],
    ['$2b$16$', true],
    ['$2y$10$', true],
    ['$2x$10$', false],
    ['$2$10$', false],
    ['$2a$17$', false],
    ['$2a$31$', false],
    ['$2a$03$', false],
  ])('takes a stored hash with %s: %s', (head, isUsable) => {
    expect(isUsableBcrypt(head + 'a'.repeat(53))).toBe(isUsable)
    expect(isUsableBcrypt(`${head}${'a'.repeat(52)}`)).toBe(false)
  })

  it('answers many at once, each its own', async () => {
    const stored = hashSync('right', 4)
    const asked = ['right', 'wrong', 'right', 'wrong', 'wrong']
    const answers = await Promise.all(asked.map((word) => verifyBcrypt(stored, new Secret(word))))
    expect(answers).toEqual(asked.map((word) => word === 'right'))
  })
})
