/** What operators write: addresses, sizes, passwords, CSV columns; and subjects of messages. */
import { describe, expect, test } from 'vitest'
import { formatAddress, parseAddress, parseDomainName } from '../../../src/admin/address.ts'
import { formatOctets, parseOctets } from '../../../src/admin/octets.ts'
import { checkPassword, generatePassword } from '../../../src/admin/password.ts'
import { readSubject } from '../../../src/admin/subject.ts'
import { Secret } from '../../../src/base/secret.ts'
import { parseHeader } from '../../../src/cli/admin/user-import-command.ts'

describe('addresses', () => {
  test('the domain is kept in lower case, the local part as written', () => {
    expect(parseAddress('Alice.B+x@Example.COM')).toEqual({
      localPart: 'Alice.B+x',
      domainName: 'example.com',
    })
  })

  test('a domain in another script is kept in its ASCII form', () => {
    expect(parseDomainName('BÜCHER.example')).toBe('xn--bcher-kva.example')
  })

  test.each([
    '',
    '@',
    'alice',
    '@example.com',
    'alice@',
    '.a@b.c',
    'a.@b.c',
    'a..b@b.c',
    'a b@b.c',
  ])('%j is refused', (text) => expect(() => parseAddress(text)).toThrow(/like|before the @/))

  test.each(['"a"@b.c', 'a@b@c', 'ü@b.c', `${'a'.repeat(65)}@b.c`, 'a@-b.c', 'a@b_c', 'a@b.c.'])(
    '%j is refused',
    (text) => expect(() => parseAddress(text)).toThrow(),
  )

  test('the longest local part and domain go', () => {
    const text = `${'a'.repeat(64)}@${`${'b'.repeat(49)}.`.repeat(5)}com`
    expect(formatAddress(parseAddress(text))).toBe(text)
  })
})

describe('sizes', () => {
  test.each([
    ['0', 0],
    ['1', 1],
    ['1k', 1024],
    ['500M', 524_288_000],
    ['1.5G', 1_610_612_736],
    ['2T', 2_199_023_255_552],
  ])('%s', (text, octets) => expect(parseOctets(text)).toBe(octets))

  test.each(['', '-1', '1.5', '1 G', '1GB', 'G', '1e3', '0x10', '9999999T', '１'])(
    '%j is no size',
    (text) => expect(parseOctets(text)).toBeUndefined(),
  )

  test.each([
    [0, '0'],
    [1023, '1023'],
    [1024, '1.0K'],
    [1_048_575, '1.0M'],
    [1_610_612_736, '1.5G'],
    [2 ** 50, '1024.0T'],
  ])('%s is shown as %s', (octets, text) => expect(formatOctets(octets)).toBe(text))
})

describe('passwords', () => {
  const set = (text: string) => () => checkPassword('password', new Secret(text))

  test('blanks and letters of any script may be in them', () => {
    expect(set(' two  words ')).not.toThrow()
    expect(set('пароль')).not.toThrow()
  })

  test.each([
    ['an empty one', ''],
    ['one longer than a POP3 line takes', 'x'.repeat(249)],
    ['a line end', 'a\nb'],
    ['NUL', 'a\0b'],
  ])('%s is refused', (_, text) => expect(set(text)).toThrow(/empty|longer|control/))

  test('a refusal does not hold the password', () => {
    expect(set('hunter2\x07')).toThrow(expect.not.stringContaining('hunter2'))
  })

  test('a generated one can be set, read aloud, and is another each time', () => {
    const made = Array.from({ length: 50 }, generatePassword)
    for (const password of made) {
      expect(() => checkPassword('password', password)).not.toThrow()
      expect(password.reveal().toString()).toMatch(/^[A-Za-z0-9]{20}$/)
      expect(password.reveal().toString()).not.toMatch(/[0O1lI]/)
    }
    expect(new Set(made.map((password) => password.reveal().toString())).size).toBe(50)
  })
})

describe('columns of a CSV file', () => {
  const header = (...fields: string[]) => parseHeader({ line: 1, fields })

  test('in any order, in any case', () => {
    expect([...header('Quota', ' HASH ', 'address')]).toEqual([
      ['quota', 0],
      ['hash', 1],
      ['address', 2],
    ])
  })

  test.each([
    [['address'], /must name/],
    [['password', 'quota'], /must name/],
    [['address', 'password', 'name'], /"name"/],
    [['address', 'hash', 'hash'], /twice/],
    [['alice@example.com', 'secret'], /names a column/],
  ])('%j is refused', (fields, why) => expect(() => header(...fields)).toThrow(why))

  test.each([
    [['alice@example.com', 'hunter2'], /names a column that there is not/],
    [['alice', 'hunter2!'], /names a column that there is not/],
    [['hunter2'.repeat(5)], /names a column that there is not/],
    [['alice@example.com:{SSHA}hunter2'], /Dovecot passwd file/],
    [['alice:$6$hunter2:1000:1000::/home/alice'], /Dovecot passwd file/],
    [['alice:{ARGON2ID}$argon2id$v=19$m=65536', 't=3', 'p=1$hunter2'], /Dovecot passwd file/],
  ])('%j is refused without being repeated', (fields, why) => {
    expect(() => header(...fields)).toThrow(why)
    expect(() => header(...fields)).toThrow(expect.not.stringMatching(/hunter2|alice/))
  })
})

describe('subjects', () => {
  const subject = (...lines: string[]) => readSubject(Buffer.from(lines.join('\r\n')))

  test.each([
    ['plain', ['From: a', 'Subject: hello world', '', 'body'], 'hello world'],
    ['folded', ['SUBJECT: a', '\tb', ' c', 'To: x', '', ''], 'a b c'],
    ['only in the body', ['To: x', '', 'Subject: no'], ''],
    ['none', ['To: x'], ''],
    ['not a part of another field', ['X-Subject: no', 'Subject: yes', ''], 'yes'],
    ['encoded, base64', ['Subject: =?UTF-8?B?R3LDvMOfZQ==?=', ''], 'Grüße'],
    ['encoded, quoted', ['Subject: =?iso-8859-1?q?Gr=FC=DFe_an?= alle', ''], 'Grüße an alle'],
    ['two words joined', ['Subject: =?utf-8?q?a?=', ' =?utf-8?q?b?=', ''], 'ab'],
    ['unknown charset', ['Subject: =?x-none?q?a?=', ''], '=?x-none?q?a?='],
    ['raw UTF-8', ['Subject: Grüße', ''], 'Grüße'],
  ])('%s', (_, lines, wanted) => expect(subject(...lines)).toBe(wanted))
})
