/** SASLprep (RFC 4013) of names and passwords. */
import { describe, expect, it } from 'vitest'
import { Secret } from '../../../src/base/secret.ts'
import { passwordForms, preparedName } from '../../../src/protocol/sasl/text.ts'

const forms = (password: string | Buffer): string[] =>
  passwordForms(new Secret(password)).map((form) => form.reveal().toString('utf8'))

describe('names', () => {
  it.each([
    ['a soft hyphen', 'I\u00adX', 'IX'],
    ['nothing to do', 'user', 'user'],
    ['case is kept', 'USER', 'USER'],
    ['compatibility', '\u00aa', 'a'],
    ['compatibility of one sign', '\u2168', 'IX'],
  ])('RFC 4013 §3: %s', (_, name, expected) => {
    expect(preparedName(name)).toBe(expected)
  })

  it.each([
    ['RFC 4013 §3: a control', '\x07'],
    ['RFC 4013 §3: both directions', '\u06271'],
    ['nothing', ''],
    ['nothing that is left', '\u00ad'],
    ['unassigned in Unicode 3.2', '\u{1f600}'],
    ['half a surrogate pair', '\ud800'],
    ['more than 318 octets', '\u00e9'.repeat(160)],
  ])('are refused: %s', (_, name) => {
    expect(preparedName(name)).toBeUndefined()
  })
})

describe('passwords', () => {
  it.each([
    ['ASCII', 'pass word'],
    ['what is prepared already', 'p\u00e4ss'],
    ['what cannot be prepared', 'p\u{1f600}e\u0301'],
    ['a control', 'a\x07b'],
    ['nothing', ''],
  ])('have one form: %s', (_, password) => {
    expect(forms(password)).toEqual([password])
  })

  it.each([
    ['decomposed', 'pa\u0308ss', 'p\u00e4ss'],
    ['a no-break space', 'a\u00a0b', 'a b'],
    ['a ligature', 'o\ufb03ce', 'office'],
  ])('have two forms, the prepared one first: %s', (_, password, expected) => {
    expect(forms(password)).toEqual([expected, password])
  })

  it('that are not UTF-8 are as they are', () => {
    const octets = Buffer.from('p\xe4ss', 'latin1')
    expect(passwordForms(new Secret(octets)).map((form) => form.reveal())).toEqual([octets])
  })
})
