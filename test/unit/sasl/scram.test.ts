/** SCRAM-SHA-256 and -PLUS: the messages. */
import { beforeAll, describe, expect, it } from 'vitest'
import { Secret } from '../../../src/base/secret.ts'
import {
  deriveScramKeys,
  type ScramKeys,
  verifyScramProof,
} from '../../../src/mail/auth/scram-keys.ts'
import type { Pop3Parameters } from '../../../src/protocol/pop3/actions.ts'
import {
  type SaslExchange,
  type SaslStep,
  startExchange,
} from '../../../src/protocol/sasl/mechanism.ts'
import { ScramClient, type ScramClientOptions } from '../../support/scram-client.ts'
import { PARAMETERS, shown } from './connection.ts'

type Mechanism = 'SCRAM-SHA-256' | 'SCRAM-SHA-256-PLUS'

/** RFC 7677 §3. */
const RFC = {
  clientFirst: 'n,,n=user,r=rOprNGfwEbeRWgbNEkqO',
  nonce: '%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0',
  salt: Buffer.from('W22ZaJ0SNY7soEsUEjb6gQ==', 'base64'),
  serverFirst:
    'r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096',
  withoutProof: 'c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0',
  proof: 'dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=',
  serverFinal: 'v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=',
}
const RFC_FINAL = `${RFC.withoutProof},p=${RFC.proof}`

const BINDING = Buffer.alloc(32, 0xcb)
/** What a connection without TLS 1.3 lists. */
const WITHOUT_PLUS: Pop3Parameters = {
  ...PARAMETERS,
  saslMechanisms: ['SCRAM-SHA-256', 'PLAIN'],
  channelBinding: undefined,
}

let keys: ScramKeys
beforeAll(async () => {
  keys = await deriveScramKeys(new Secret('pencil'), RFC.salt, 4096)
})

const textOf = (step: SaslStep): string => {
  expect(step.kind).toBe('challenge')
  return step.kind === 'challenge' ? step.octets.toString('utf8') : ''
}

const salted = (exchange: SaslExchange): SaslStep | undefined =>
  exchange.salted?.({ salt: RFC.salt, iterations: 4096, nonce: RFC.nonce })

/** The server's part of the RFC's exchange up to its first message. */
function afterFirst(): SaslExchange {
  const exchange = startExchange('SCRAM-SHA-256', PARAMETERS)
  expect(shown(exchange.begin(Buffer.from(RFC.clientFirst)))).toBe('ask-salt user')
  expect(shown(salted(exchange))).toBe(`challenge ${RFC.serverFirst}`)
  return exchange
}

/** A whole login. @returns how it ended */
function login(
  mechanism: Mechanism,
  options: Partial<ScramClientOptions>,
  parameters = PARAMETERS,
): string {
  const client = new ScramClient({ name: 'tim', password: 'pencil', ...options })
  const exchange = startExchange(mechanism, parameters)
  expect(shown(exchange.begin(undefined))).toBe('challenge ')
  const asked = exchange.respond(Buffer.from(client.first()))
  if (asked.kind !== 'ask-salt') return `${asked.kind} at once`
  const serverFirst = textOf(salted(exchange) as SaslStep)
  const proof = exchange.respond(Buffer.from(client.final(serverFirst)))
  if (proof.kind !== 'prove' || proof.attempt.mechanism !== 'scram')
    return `${proof.kind} in the end`
  const signature = verifyScramProof(keys, proof.attempt.authMessage, proof.attempt.clientProof)
  if (signature === undefined) return `wrong proof of ${asked.name}`
  const final = textOf(exchange.proved?.(signature) as SaslStep)
  if (!client.isServer(final)) return 'a server that lies'
  return `${exchange.respond(Buffer.alloc(0)).kind} ${asked.name}`
}

describe('the exchange of RFC 7677 §3', () => {
  it('is had octet for octet', () => {
    const exchange = afterFirst()
    const step = exchange.respond(Buffer.from(RFC_FINAL))
    expect(step).toEqual({
      kind: 'prove',
      attempt: {
        mechanism: 'scram',
        name: 'user',
        authMessage: `${RFC.clientFirst.slice(3)},${RFC.serverFirst},${RFC.withoutProof}`,
        clientProof: Buffer.from(RFC.proof, 'base64'),
      },
    })
    const authMessage =
      step.kind === 'prove' && 'authMessage' in step.attempt ? step.attempt.authMessage : ''
    const signature = verifyScramProof(keys, authMessage, Buffer.from(RFC.proof, 'base64'))
    expect(shown(exchange.proved?.(signature))).toBe(`challenge ${RFC.serverFinal}`)
    expect(shown(exchange.respond(Buffer.alloc(0)))).toBe('accepted')
  })

  it('is what the client of these tests says too', () => {
    const client = new ScramClient({
      name: 'user',
      password: 'pencil',
      nonce: 'rOprNGfwEbeRWgbNEkqO',
    })
    expect(client.first()).toBe(RFC.clientFirst)
    expect(client.final(RFC.serverFirst)).toBe(RFC_FINAL)
    expect(client.isServer(RFC.serverFinal)).toBe(true)
    expect(client.isServer(RFC.serverFinal.replace('6', '7'))).toBe(false)
  })

  it('does not end well if the client answers the signature with anything', () => {
    const exchange = afterFirst()
    exchange.respond(Buffer.from(RFC_FINAL))
    exchange.proved?.(Buffer.alloc(32))
    expect(shown(exchange.respond(Buffer.from('x')))).toBe('malformed')
  })
})

describe('a login', () => {
  it.each<[string, Mechanism, Partial<ScramClientOptions>]>([
    ['without binding', 'SCRAM-SHA-256', { binding: 'n' }],
    ['bound to the channel', 'SCRAM-SHA-256-PLUS', { binding: BINDING }],
    ['for oneself', 'SCRAM-SHA-256', { authzid: 'tim' }],
  ])('succeeds %s', (_, mechanism, options) => {
    expect(login(mechanism, options)).toBe('accepted tim')
  })

  it('succeeds when the client could bind and -PLUS was not listed', () => {
    expect(login('SCRAM-SHA-256', { binding: 'y' }, WITHOUT_PLUS)).toBe('accepted tim')
  })

  it('succeeds with commas and equals signs in the name', () => {
    expect(login('SCRAM-SHA-256', { name: 'a,b=c=2C' })).toBe('accepted a,b=c=2C')
    expect(login('SCRAM-SHA-256', { name: 'a,b', authzid: 'a,b' })).toBe('accepted a,b')
  })

  it.each<[string, Mechanism, Partial<ScramClientOptions>, string]>([
    ['a wrong password', 'SCRAM-SHA-256', { password: 'pen' }, 'wrong proof of tim'],
    [
      'another channel',
      'SCRAM-SHA-256-PLUS',
      { binding: Buffer.alloc(32, 1) },
      'malformed in the end',
    ],
    ['nothing to bind', 'SCRAM-SHA-256-PLUS', { binding: Buffer.alloc(0) }, 'malformed in the end'],
    ['-PLUS without binding', 'SCRAM-SHA-256-PLUS', { binding: 'n' }, 'malformed at once'],
    [
      '-PLUS that says it was not listed',
      'SCRAM-SHA-256-PLUS',
      { binding: 'y' },
      'malformed at once',
    ],
    ['binding without -PLUS', 'SCRAM-SHA-256', { binding: BINDING }, 'malformed at once'],
    ['a downgrade: -PLUS was listed', 'SCRAM-SHA-256', { binding: 'y' }, 'malformed at once'],
    ['to act for another', 'SCRAM-SHA-256', { authzid: 'tom' }, 'malformed at once'],
  ])('fails with %s', (_, mechanism, options, expected) => {
    expect(login(mechanism, options)).toBe(expected)
  })
})

describe('a first message', () => {
  const first = (message: string | Buffer): string =>
    shown(startExchange('SCRAM-SHA-256', PARAMETERS).begin(Buffer.from(message as string)))

  it.each([
    ['a name to prepare', 'n,,n=t\u00adim,r=abc', 'ask-salt tim'],
    ['extensions', 'n,,n=tim,r=abc,x=1,y=2=3', 'ask-salt tim'],
    ['the longest name, escaped', `n,,n=${'=3D'.repeat(318)},r=abc`, `ask-salt ${'='.repeat(318)}`],
  ])('may have %s', (_, message, expected) => {
    expect(first(message)).toBe(expected)
  })

  it.each([
    ['nothing', ''],
    ['no header', 'n=user,r=abc'],
    ['a header alone', 'n,,'],
    ['an unknown flag', 'x,,n=user,r=abc'],
    ['a flag of two letters', 'nn,,n=user,r=abc'],
    ['another binding', 'p=tls-unique,,n=user,r=abc'],
    ['a nonstandard flag', 'F,n,,n=user,r=abc'],
    ['an empty authorization identity', 'n,a=,n=user,r=abc'],
    ['a mandatory extension in front', 'n,,m=x,n=user,r=abc'],
    ['a mandatory extension at the end', 'n,,n=user,r=abc,m=x'],
    ['an extension without a value', 'n,,n=user,r=abc,x='],
    ['no name', 'n,,r=abc'],
    ['an empty name', 'n,,n=,r=abc'],
    ['a name with a bare "="', 'n,,n=us=er,r=abc'],
    ['a name with an unknown escape', 'n,,n=us=2Fer,r=abc'],
    ['a name with an escape in lower case', 'n,,n=us=2cer,r=abc'],
    ['a NUL in the name', 'n,,n=us\0er,r=abc'],
    ['a name that is too long', `n,,n=${'u'.repeat(319)},r=abc`],
    ['no nonce', 'n,,n=user'],
    ['an empty nonce', 'n,,n=user,r='],
    ['a space in the nonce', 'n,,n=user,r=a b'],
    ['a nonce beyond ASCII', 'n,,n=user,r=\u00e9'],
    ['a nonce that is too long', `n,,n=user,r=${'a'.repeat(257)}`],
    ['a line end', 'n,,n=user,r=abc\n'],
    ['the name after the nonce', 'n,,r=abc,n=user'],
    ['an extension that is not UTF-8', Buffer.from('n,,n=user,r=abc,x=\xe9', 'latin1')],
    ['octets that are not UTF-8', Buffer.from('n,,n=us\xe9r,r=abc', 'latin1')],
    ['too many octets', `n,,n=user,r=abc,x=${'1'.repeat(4096)}`],
  ])('must not have %s', (_, message) => {
    expect(first(message)).toBe('malformed')
  })
})

describe('a final message', () => {
  const whole = `r=rOprNGfwEbeRWgbNEkqO${RFC.nonce}`

  it('may have extensions, which the proof covers', () => {
    const step = afterFirst().respond(Buffer.from(`${RFC.withoutProof},x=1,p=${RFC.proof}`))
    expect(step).toMatchObject({ kind: 'prove' })
    expect(JSON.stringify(step)).toContain(`${RFC.withoutProof},x=1"`)
  })

  it.each([
    ['nothing', ''],
    ['no proof', RFC.withoutProof],
    ['no binding', `${whole},p=${RFC.proof}`],
    ['another header bound', `c=eSws,${whole},p=${RFC.proof}`],
    ['more bound than the header', `c=biwsAA==,${whole},p=${RFC.proof}`],
    ['the nonce of the client alone', `c=biws,r=rOprNGfwEbeRWgbNEkqO,p=${RFC.proof}`],
    ['the nonce of the server alone', `c=biws,r=${RFC.nonce},p=${RFC.proof}`],
    ['a nonce that goes on', `c=biws,${whole}x,p=${RFC.proof}`],
    ['a nonce in other case', `c=biws,${whole.toLowerCase()},p=${RFC.proof}`],
    ['a mandatory extension', `${RFC.withoutProof},m=1,p=${RFC.proof}`],
    ['something after the proof', `${RFC_FINAL},x=1`],
    ['a line end', `${RFC_FINAL}\n`],
    ['a short proof', `${RFC.withoutProof},p=AAAA`],
    ['a long proof', `${RFC.withoutProof},p=${Buffer.alloc(33).toString('base64')}`],
    ['a proof without padding', RFC_FINAL.slice(0, -1)],
    ['a proof with bits that mean nothing', RFC_FINAL.replace('VQ=', 'VR=')],
    ['the parts in other order', `${whole},c=biws,p=${RFC.proof}`],
    ['too many octets', `${RFC.withoutProof},x=${'1'.repeat(4096)},p=${RFC.proof}`],
  ])('must not have %s', (_, message) => {
    expect(shown(afterFirst().respond(Buffer.from(message)))).toBe('malformed')
  })
})
