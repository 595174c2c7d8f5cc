/** What a peer may type as its name, and what becomes of it. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseLoginName } from '../../../src/mail/auth/login-name.ts'

describe('login name', () => {
  it.each([
    ['alice@example.test', 'alice@example.test'],
    ['Alice@EXAMPLE.Test', 'Alice@example.test'],
    ['alice', 'alice@default.test'],
    ["o'hara+news@a-b.example", "o'hara+news@a-b.example"],
    [`${'a'.repeat(64)}@b`, `${'a'.repeat(64)}@b`],
  ])('%j is %s', (typed, address) => {
    expect(parseLoginName(typed, 'default.test')?.address).toBe(address)
  })

  it.each([
    '',
    '@',
    'alice@',
    '@example.test',
    'alice@example..test',
    'alice@-example.test',
    'alice@example.test.',
    'alice@bob@example.test',
    '.alice@example.test',
    'alice.@example.test',
    'a b@example.test',
    'alice@example.test\n',
    'alice\0@example.test',
    'alice@exam\u212ale.test',
    '\ufffdlice@example.test',
    'alíce@example.test',
    `${'a'.repeat(65)}@b`,
    `a@${'b'.repeat(64)}`,
    `a@${'b.'.repeat(127)}b`,
    'a'.repeat(100_000),
  ])('%j is nobody', (typed) => {
    expect(parseLoginName(typed, 'default.test')).toBeUndefined()
  })

  it('knows no bare name without a default domain', () => {
    expect(parseLoginName('alice', '')).toBeUndefined()
    expect(parseLoginName('alice@', '')).toBeUndefined()
  })

  it('gives only printable ASCII of bounded length, whatever is typed', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 400 }), (typed) => {
        const name = parseLoginName(typed, 'default.test')
        if (name === undefined) return
        expect(name.address).toMatch(/^[\x21-\x7e]{3,318}$/)
        expect(name.domainName).toBe(name.domainName.toLowerCase())
      }),
      { verbose: true },
    )
  })
})
