/** PLAIN, LOGIN and EXTERNAL: what they take, and what they do not. */
import { describe, expect, it } from 'vitest'
import { startExchange } from '../../../src/protocol/sasl/mechanism.ts'
import { PARAMETERS, shown } from './connection.ts'

const begin = (mechanism: 'PLAIN' | 'LOGIN' | 'EXTERNAL', initial: string | Buffer): string =>
  shown(startExchange(mechanism, PARAMETERS).begin(Buffer.from(initial as string)))

describe('PLAIN', () => {
  it.each([
    ['RFC 4616 §4, first example', '\0tim\0tanstaaftanstaaf', 'password tim tanstaaftanstaaf'],
    ['the authorization identity named too', 'tim\0tim\0secret', 'password tim secret'],
    ['whatever is prepared to the same name', 'ⓣim\0tim\0secret', 'password tim secret'],
    ['a name prepared by SASLprep', '\0t\u00adim@example.com\0s', 'password tim@example.com s'],
    ['a password as it was sent', '\0tim\0e\u0301\u00ad ', 'password tim e\u0301\u00ad '],
    ['the longest name', `\0${'n'.repeat(318)}\0s`, `password ${'n'.repeat(318)} s`],
    ['the longest password', `\0n\0${'s'.repeat(1024)}`, `password n ${'s'.repeat(1024)}`],
  ])('takes %s', (_, message, expected) => {
    expect(begin('PLAIN', message)).toBe(expected)
  })

  it.each([
    ['RFC 4616 §4, second example: to act for another', 'Ursel\0Kurt\0xipj3plmq'],
    ['nothing', ''],
    ['no NUL', 'tim'],
    ['one NUL', 'tim\0secret'],
    ['three NULs', '\0tim\0secret\0'],
    ['no name', '\0\0secret'],
    ['no password', '\0tim\0'],
    ['a name of which nothing is left', '\0\u00ad\0secret'],
    ['a control in the name', '\0ti\x07m\0secret'],
    ['a name that is too long', `\0${'n'.repeat(319)}\0secret`],
    ['an authorization identity that is too long', `${'n'.repeat(319)}\0tim\0secret`],
    ['a password that is too long', `\0tim\0${'s'.repeat(1025)}`],
    ['a name that is not UTF-8', Buffer.from('\0t\xefm\0secret', 'latin1')],
    ['an authorization identity that is not UTF-8', Buffer.from('\xef\0tim\0secret', 'latin1')],
  ])('refuses %s', (_, message) => {
    expect(begin('PLAIN', message)).toBe('malformed')
  })

  it('takes a password that is not UTF-8, octet for octet', () => {
    const step = startExchange('PLAIN', PARAMETERS).begin(Buffer.from('\0tim\0s\xe9', 'latin1'))
    expect(step).toMatchObject({ kind: 'prove', attempt: { mechanism: 'password', name: 'tim' } })
    const password =
      step.kind === 'prove' && 'password' in step.attempt ? step.attempt.password : undefined
    expect(password?.reveal()).toEqual(Buffer.from('s\xe9', 'latin1'))
  })

  it('keeps its own copy of the password', () => {
    const octets = Buffer.from('\0tim\0secret')
    const step = startExchange('PLAIN', PARAMETERS).begin(octets)
    octets.fill(0x78)
    expect(shown(step)).toBe('password tim secret')
  })

  it('waits for the message when it did not come with AUTH', () => {
    const exchange = startExchange('PLAIN', PARAMETERS)
    expect(shown(exchange.begin(undefined))).toBe('challenge ')
    expect(shown(exchange.respond(Buffer.from('\0tim\0secret')))).toBe('password tim secret')
  })
})

describe('LOGIN', () => {
  it('asks for name and password', () => {
    const exchange = startExchange('LOGIN', PARAMETERS)
    expect(shown(exchange.begin(undefined))).toBe('challenge Username:')
    expect(shown(exchange.respond(Buffer.from('t\u00adim')))).toBe('challenge Password:')
    expect(shown(exchange.respond(Buffer.from('a b')))).toBe('password tim a b')
  })

  it('asks for the password alone when the name came with AUTH', () => {
    const exchange = startExchange('LOGIN', PARAMETERS)
    expect(shown(exchange.begin(Buffer.from('tim')))).toBe('challenge Password:')
    expect(shown(exchange.respond(Buffer.from('secret')))).toBe('password tim secret')
  })

  it.each(['', '\u00ad', 'a\0b', 'n'.repeat(319)])('refuses the name %j', (name) => {
    expect(begin('LOGIN', name)).toBe('malformed')
  })

  it.each(['', 's'.repeat(1025)])('refuses the password %j', (password) => {
    const exchange = startExchange('LOGIN', PARAMETERS)
    exchange.begin(Buffer.from('tim'))
    expect(shown(exchange.respond(Buffer.from(password)))).toBe('malformed')
  })
})

describe('EXTERNAL', () => {
  it.each([
    ['', 'external '],
    ['fred@example.com', 'external fred@example.com'],
  ])('proves %j', (authzid, expected) => {
    expect(begin('EXTERNAL', authzid)).toBe(expected)
    const exchange = startExchange('EXTERNAL', PARAMETERS)
    expect(shown(exchange.begin(undefined))).toBe('challenge ')
    expect(shown(exchange.respond(Buffer.from(authzid)))).toBe(expected)
  })

  it.each(['a\0b', '\u00ad', 'n'.repeat(319), Buffer.of(0xff)])('refuses %j', (authzid) => {
    expect(begin('EXTERNAL', authzid)).toBe('malformed')
  })
})
