/** OAUTHBEARER and XOAUTH2: the messages. */
import { describe, expect, it } from 'vitest'
import { startExchange } from '../../../src/protocol/sasl/mechanism.ts'
import { PARAMETERS, shown } from './connection.ts'

type Mechanism = 'OAUTHBEARER' | 'XOAUTH2'

/** ^A is written so here, to be seen. */
const octetsOf = (message: string): Buffer => Buffer.from(message.replaceAll('^A', '\x01'))

const begin = (mechanism: Mechanism, message: string): string =>
  shown(startExchange(mechanism, PARAMETERS).begin(octetsOf(message)))

/** RFC 7628 §4.1. */
const TOKEN = 'vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=='
const OAUTHBEARER = `n,a=user@example.com,^Ahost=server.example.com^Aport=143^Aauth=Bearer ${TOKEN}^A^A`
const XOAUTH2 = `user=user@example.com^Aauth=Bearer ${TOKEN}^A^A`

const long = 'a'.repeat(12_000)

describe('OAUTHBEARER', () => {
  it.each([
    ['RFC 7628 §4.1', OAUTHBEARER, `bearer user@example.com ${TOKEN}`],
    ['nobody named', 'n,,^Aauth=Bearer abc^A^A', 'bearer  abc'],
    ['a client that could bind', 'y,,^Aauth=Bearer abc^A^A', 'bearer  abc'],
    ['the scheme in any case', 'n,,^Aauth=bEARER  abc^A^A', 'bearer  abc'],
    ['keys that mean nothing here', 'n,,^Aqs=a=b&c^Aauth=Bearer abc^Ax=^A^A', 'bearer  abc'],
    ['an escaped name', 'n,a=a=2Cb=3Dc,^Aauth=Bearer abc^A^A', 'bearer a,b=c abc'],
    ['a long token', `n,,^Aauth=Bearer ${long}^A^A`, `bearer  ${long}`],
  ])('takes %s', (_, message, expected) => {
    expect(begin('OAUTHBEARER', message)).toBe(expected)
  })

  it.each([
    ['nothing', ''],
    ['the answer to an error', '^A'],
    ['no header', '^Aauth=Bearer abc^A^A'],
    ['half a header', 'n,^Aauth=Bearer abc^A^A'],
    ['something after the header', 'n,,x^Aauth=Bearer abc^A^A'],
    ['a binding', 'p=tls-exporter,,^Aauth=Bearer abc^A^A'],
    ['a bad name', 'n,a=a=b,^Aauth=Bearer abc^A^A'],
    ['a name that is too long', `n,a=${'a'.repeat(319)},^Aauth=Bearer abc^A^A`],
    ['no auth', 'n,,^Ahost=a^A^A'],
    ['auth twice', 'n,,^Aauth=Bearer abc^Aauth=Bearer abc^A^A'],
    ['another scheme', 'n,,^Aauth=Basic abc^A^A'],
    ['a scheme without a token', 'n,,^Aauth=Bearer ^A^A'],
    ['a token of two words', 'n,,^Aauth=Bearer abc def^A^A'],
    ['a token beyond its alphabet', 'n,,^Aauth=Bearer a"c^A^A'],
    ['a key without a value', 'n,,^Ahost^Aauth=Bearer abc^A^A'],
    ['an empty pair', 'n,,^A^Aauth=Bearer abc^A^A'],
    ['one ^A at the end', 'n,,^Aauth=Bearer abc^A'],
    ['no ^A at the end', 'n,,^Aauth=Bearer abc'],
    ['something after the end', 'n,,^Aauth=Bearer abc^A^Ax'],
    ['a NUL in a value', 'n,,^Ahost=\0^Aauth=Bearer abc^A^A'],
    ['too many octets', `n,,^Aauth=Bearer ${long.repeat(2)}^A^A`],
  ])('refuses %s', (_, message) => {
    expect(begin('OAUTHBEARER', message)).toBe('malformed')
  })

  it('tells what was wrong with a token, and then waits for the end (RFC 7628 §3.2.3)', () => {
    const exchange = startExchange('OAUTHBEARER', PARAMETERS)
    exchange.begin(octetsOf(OAUTHBEARER))
    expect(shown(exchange.refused?.())).toBe('challenge {"status":"invalid_token"}')
    expect(shown(exchange.respond(octetsOf(OAUTHBEARER)))).toBe('malformed')
  })

  it('tells the same to a client that has no token (RFC 7628 §4.3)', () => {
    const exchange = startExchange('OAUTHBEARER', PARAMETERS)
    const step = exchange.begin(octetsOf('n,a=user@example.com,^Aauth=^A^A'))
    expect(shown(step)).toBe('challenge {"status":"invalid_token"}')
    expect(shown(exchange.respond(octetsOf(OAUTHBEARER)))).toBe('malformed')
  })
})

describe('XOAUTH2', () => {
  it('takes a name and a token, with AUTH or after it', () => {
    expect(begin('XOAUTH2', XOAUTH2)).toBe(`bearer user@example.com ${TOKEN}`)
    const exchange = startExchange('XOAUTH2', PARAMETERS)
    expect(shown(exchange.begin(undefined))).toBe('challenge ')
    expect(shown(exchange.respond(octetsOf(XOAUTH2)))).toBe(`bearer user@example.com ${TOKEN}`)
  })

  it.each([
    ['nothing', ''],
    ['no name', 'user=^Aauth=Bearer abc^A^A'],
    ['a GS2 header', OAUTHBEARER],
    ['a name that is too long', `user=${'a'.repeat(319)}^Aauth=Bearer abc^A^A`],
    ['another scheme', 'user=a^Aauth=Basic abc^A^A'],
    ['one ^A at the end', 'user=a^Aauth=Bearer abc^A'],
  ])('refuses %s', (_, message) => {
    expect(begin('XOAUTH2', message)).toBe('malformed')
  })

  it('tells that a token does not do, in its own form', () => {
    const exchange = startExchange('XOAUTH2', PARAMETERS)
    exchange.begin(octetsOf(XOAUTH2))
    expect(shown(exchange.refused?.())).toBe('challenge {"status":"401","schemes":"bearer"}')
    expect(shown(exchange.respond(Buffer.alloc(0)))).toBe('malformed')
  })
})
