/**
 * Hashes that migrations bring, against what Dovecot and crypt(3) made of the same passwords; and
 * that what is cut, garbled or too dear is refused before anything is computed.
 */
import { hashSync } from 'bcryptjs'
import { describe, expect, it } from 'vitest'
import { Secret } from '../../../src/base/secret.ts'
import { argon2Counts, makeDummyHash, verifyArgon2 } from '../../../src/mail/auth/argon2.ts'
import {
  isWholePassword,
  KNOWN_SCHEMES,
  parseStoredHash,
  plainPasswordOf,
  schemeOf,
  verifyStored,
} from '../../../src/mail/auth/schemes/scheme.ts'
import { STORED_HASHES } from '../../support/stored-hashes.ts'

const isBcrypt = (stored: string): boolean => schemeOf(stored) === 'bcrypt'
const isUtf8 = (octets: Buffer): boolean => Buffer.from(octets.toString()).equals(octets)

/** One for each password: an ASCII one, the empty one, one of UTF-8, one of octets that are not. */
const KINDS = ['736563726574', '-', '70c3a4737377c3b6726420e282ac', '70e4ff8020']

async function isRight(stored: string, password: Buffer | string): Promise<boolean> {
  const hash = parseStoredHash(stored)
  if (hash === undefined) throw new Error(`${stored} is unusable`)
  return hash.verify(new Secret(password))
}

describe('the vectors', () => {
  it('have every scheme with four kinds of passwords', () => {
    const kinds = new Map<string, Set<string>>()
    for (const { stored, password } of STORED_HASHES) {
      const scheme = schemeOf(stored)
      kinds.set(scheme, (kinds.get(scheme) ?? new Set()).add(password.toString('hex') || '-'))
    }
    const aliases = ['sha1', 'clear', 'cleartext'] // of sha and plain
    for (const scheme of KNOWN_SCHEMES.filter((name) => !aliases.includes(name))) {
      const wanted = scheme === 'plain' ? KINDS.filter((kind) => kind !== '-') : KINDS
      expect([...(kinds.get(scheme) ?? [])]).toEqual(expect.arrayContaining(wanted))
    }
  })

  it.each(STORED_HASHES)('$stored', async ({ stored, password }) => {
    // bcryptjs hashes text only: such a user needs a new password.
    expect(await isRight(stored, password)).toBe(!isBcrypt(stored) || isUtf8(password))
    const wrong = [`${password}x`, 'Secret', password.subarray(1), Buffer.alloc(0)]
    for (const octets of wrong.map((typed) => Buffer.from(typed as string)))
      if (!octets.equals(password)) expect(await isRight(stored, octets)).toBe(false)
  })
})

describe('a stored hash', () => {
  const [SHA256, SHA512] = ['a'.repeat(43), 'b'.repeat(86)]
  it.each([
    [`$5$rounds=100000$salt$${SHA256}`, true],
    [`$5$rounds=100001$salt$${SHA256}`, false],
    [`$6$rounds=999999999$salt$${SHA512}`, false],
    [`$6$rounds=999$salt$${SHA512}`, false],
    [`$6$rounds=05000$salt$${SHA512}`, false],
    [`$6$rounds=1000$rounds=2000$${SHA512}`, false],
    [`$6$12345678901234567$${SHA512}`, false],
    [`$6$salt$${SHA256}`, false],
    [`$5$salt$${SHA512}`, false],
    [`$6$salt$${SHA512}x`, false],
    [`$6$${SHA512}`, false],
    [`$6$sa:lt$${SHA512}`, false],
    ['$6$', false],
    [`$1$12345678$${'a'.repeat(22)}`, true],
    [`$1$123456789$${'a'.repeat(22)}`, false],
    [`$1$salt$${'a'.repeat(21)}`, false],
    [`$apr1$salt$${'a'.repeat(22)}`, false],
    [`$2a$04$${'a'.repeat(53)}`, true],
    [`$2b$12$${'a'.repeat(53)}`, true],
    [`$2y$13$${'a'.repeat(53)}`, false],
    [`$2a$31$${'a'.repeat(53)}`, false],
    [`$2a$03$${'a'.repeat(53)}`, false],
    [`$2x$10$${'a'.repeat(53)}`, false],
    [`$2$10$${'a'.repeat(53)}`, false],
    [`$2b$10$${'a'.repeat(52)}`, false],
    [`{BLF-CRYPT}$2y$31$${'a'.repeat(53)}`, false],
    [`{CRYPT}$6$rounds=99999999$salt$${SHA512}`, false],
    ['{CRYPT}abJnggxhB/yWI', false],
    [`{PBKDF2}$1$salt$500000$${'0f'.repeat(20)}`, true],
    [`{PBKDF2}$1$salt$500001$${'0f'.repeat(20)}`, false],
    [`{PBKDF2}$1$salt$0$${'0f'.repeat(20)}`, false],
    [`{PBKDF2}$1$salt$5000$${'0f'.repeat(19)}`, false],
    [`{PBKDF2}$1$$5000$${'0f'.repeat(20)}`, false],
    [`{ARGON2I}$argon2i$v=19$m=131073,t=1,p=1$${'a'.repeat(22)}$${SHA256}`, false],
    [`{ARGON2ID}$argon2id$v=19$m=65536,t=5,p=1$${'a'.repeat(22)}$${SHA256}`, false],
    [`{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$${'a'.repeat(22)}$`, false],
    [`$argon2d$v=19$m=19456,t=2,p=1$${'a'.repeat(22)}$${SHA256}`, false],
    [`{SHA}${Buffer.alloc(20).toString('base64')}`, true],
    [`{SHA}${Buffer.alloc(20).toString('hex')}`, true],
    [`{SHA}${Buffer.alloc(19).toString('base64')}`, false],
    [`{SHA}${Buffer.alloc(21).toString('base64')}`, false],
    [`{SSHA}${Buffer.alloc(20).toString('base64')}`, false],
    [`{SSHA}${Buffer.alloc(21).toString('base64')}`, true],
    [`{SSHA512}${Buffer.alloc(64).toString('base64')}`, false],
    [`{SSHA512}*${Buffer.alloc(72).toString('base64')}`, false],
    [`{SSHA.HEX}${'0f'.repeat(24)}0`, false],
    [`{ssha}${Buffer.alloc(24).toString('base64')}`, true],
    ['{PLAIN}x', true],
    ['{PLAIN}', false],
    ['{PLAIN.B64}=', false],
    ['{PLAIN.ROT13}x', false],
    ['{CRAM-MD5}9186d855e11eba527a7a52ca82b313e180d62234f0acc9051b527243d41e2740', false],
    ['{NOPE}x', false],
    ['5f4dcc3b5aa765d61d8327deb882cf99', false],
    ['x', false],
    ['', false],
  ])('%s is usable: %s', (stored, isUsable) => {
    expect(parseStoredHash(stored) !== undefined).toBe(isUsable)
  })

  it('that is unusable costs nothing', () => {
    const before = argon2Counts()
    const stored = `$2a$31$${'a'.repeat(53)}`
    const asker = { source: '', domain: '' }
    expect(verifyStored(stored, new Secret('x'), makeDummyHash(), asker)).toBeUndefined()
    expect(argon2Counts()).toEqual(before)
  })

  it.each([
    ['bcrypt', `$2b$12$${'a'.repeat(53)}`],
    ['argon2id', `$argon2id$v=19$m=65536,t=4,p=1$${'a'.repeat(22)}$${'b'.repeat(43)}`],
  ])('that is slow, of %s, does not keep waiting who has one of today', async (_, stored) => {
    const answered: string[] = []
    const [secret, dummy] = [new Secret('x'), makeDummyHash()]
    const of = (name: string) => ({ source: name, domain: name })
    const slow = ['1', '2', '3'].map((name) =>
      verifyStored(stored, secret, dummy, of('slow'))?.then(() => answered.push(name)),
    )
    const other = verifyArgon2(dummy, secret, of('other')).then(() => answered.push('other'))
    await Promise.all([...slow, other])
    // They take their turns one by one.
    expect(answered).toEqual(['other', '1', '2', '3'])
  })

  it.each([
    ['$argon2id$v=19$m=65536,t=3,p=1$…', 'argon2id'],
    ['{ARGON2I}$argon2i$', 'argon2i'],
    ['$2y$', 'bcrypt'],
    ['{CRYPT}$1$', 'md5-crypt'],
    ['{PBKDF2}$1$', 'pbkdf2'],
    ['{PLAIN}$6$', 'plain'],
    ['{SSHA512.HEX}', 'ssha512'],
    ['{CRYPT}', 'crypt'],
    ['', 'unknown'],
  ])('that begins %s is called %s', (head, name) => expect(schemeOf(head)).toBe(name))

  it('of {PLAIN} tells the password, others do not', () => {
    const plain = (stored: string) => plainPasswordOf(stored)?.reveal().toString()
    expect(plain('{PLAIN}p$ss')).toBe('p$ss')
    expect(plain('{CLEARTEXT.HEX}6162')).toBe('ab')
    expect(plain('{PLAIN.HEX}616')).toBeUndefined()
    expect(plain(`{SHA}${Buffer.alloc(20).toString('base64')}`)).toBeUndefined()
  })
})

describe('bcrypt', () => {
  it('looks at 72 octets, as crypt does', async () => {
    const stored = hashSync('x'.repeat(72), 4)
    expect(await isRight(stored, `${'x'.repeat(72)}more`)).toBe(true)
    expect(await isRight(stored, 'x'.repeat(71))).toBe(false)
    for (const text of [stored, `{BLF-CRYPT}${stored}`]) {
      expect(isWholePassword(text, new Secret('é'.repeat(36)))).toBe(true)
      expect(isWholePassword(text, new Secret(`${'é'.repeat(36)}x`))).toBe(false)
    }
    expect(isWholePassword('{PLAIN}x', new Secret('x'.repeat(500)))).toBe(true)
  })

  it('refuses octets that it cannot hash unchanged', async () => {
    const latin1 = Buffer.from('caf\xe9', 'latin1')
    expect(await isRight(hashSync(latin1.toString('utf8'), 4), latin1)).toBe(false)
    expect(await isRight(hashSync('ab', 4), 'ab\0ab')).toBe(false)
  })
})

describe('the thread', () => {
  it('answers many at once, each its own', async () => {
    const stored = hashSync('right', 4)
    const asked = ['right', 'wrong', 'right', 'wrong', 'wrong']
    const answers = await Promise.all(asked.map((word) => isRight(stored, word)))
    expect(answers).toEqual(asked.map((word) => word === 'right'))
  })

  it('takes no password that is longer than crypt(3) takes', async () => {
    const stored = STORED_HASHES.find((vector) => vector.stored.startsWith('$6$'))?.stored ?? ''
    expect(await isRight(stored, Buffer.alloc(50_000_000))).toBe(false)
  })
})
