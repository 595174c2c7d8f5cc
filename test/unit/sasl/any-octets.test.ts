/** Whatever a client sends, in whatever order: no exchange throws, and none accepts by itself. */
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { SASL_MECHANISMS, type SaslMechanismName } from '../../../src/protocol/pop3/actions.ts'
import {
  type SaslExchange,
  type SaslStep,
  startExchange,
} from '../../../src/protocol/sasl/mechanism.ts'
import { NAME_MAX_OCTETS } from '../../../src/protocol/sasl/text.ts'
import { FUZZ } from '../../fuzz/seed.ts'
import { PARAMETERS } from './connection.ts'

const NOTHING = Buffer.alloc(0)
const NONCE = 'abcdefghijklmnop'
const PROOF = Buffer.alloc(32).toString('base64')

const pieces = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom('n,,', 'y,,', 'n=', 'r=', 'c=', 'a=', 'm=', ',', '=') },
  {
    weight: 4,
    arbitrary: fc.constantFrom('p=tls-exporter,,', 'user', 'user=', '=2C', '=3D', '\0'),
  },
  { weight: 4, arbitrary: fc.constantFrom('\x01', '\x01\x01', 'auth=Bearer ', 'auth=', 'host=a') },
  { weight: 2, arbitrary: fc.constantFrom('\u00ad', '\u0627', '\u{1f600}', '\ufb03', '\n', '') },
  { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 20 }) },
)
const messages = fc.oneof(
  { weight: 6, arbitrary: fc.array(pieces).map((parts) => Buffer.from(parts.join(''))) },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 400 }).map((octets) => Buffer.from(octets)) },
  { weight: 1, arbitrary: fc.nat(20_000).map((length) => Buffer.alloc(length, 'a')) },
)

const BOUND = Buffer.concat([Buffer.from('p=tls-exporter,,'), PARAMETERS.channelBinding ?? NOTHING])
/** What comes through. Most logins have these, so that what follows them is met too. */
const RIGHT: Record<SaslMechanismName, readonly string[]> = {
  'SCRAM-SHA-256-PLUS': [
    'p=tls-exporter,,n=user,r=a',
    `c=${BOUND.toString('base64')},r=a${NONCE},p=${PROOF}`,
  ],
  'SCRAM-SHA-256': ['n,,n=user,r=a', `c=biws,r=a${NONCE},p=${PROOF}`],
  EXTERNAL: ['user'],
  OAUTHBEARER: ['n,,\x01auth=Bearer a\x01\x01'],
  XOAUTH2: ['user=a\x01auth=Bearer a\x01\x01'],
  PLAIN: ['\0user\0password'],
  LOGIN: ['user', 'password'],
}
const logins = fc.constantFrom(...SASL_MECHANISMS).chain((mechanism) => {
  const right = RIGHT[mechanism].map((text) =>
    fc.oneof({ weight: 3, arbitrary: fc.constant(Buffer.from(text)) }, messages),
  )
  const empty = fc.constant(NOTHING)
  return fc.record({
    mechanism: fc.constant(mechanism),
    isAlongWithAuth: fc.boolean(),
    responses: fc.tuple(...right, fc.oneof(empty, messages), fc.oneof(empty, messages)),
    isRight: fc.boolean(),
  })
})

/** What the owner does with a step; undefined: the exchange is over. */
function answer(exchange: SaslExchange, step: SaslStep, isRight: boolean): SaslStep | undefined {
  if (step.kind === 'ask-salt')
    return exchange.salted?.({ salt: Buffer.alloc(16), iterations: 4096, nonce: NONCE })
  if (step.kind !== 'prove') return step.kind === 'challenge' ? step : undefined
  return isRight ? exchange.proved?.(Buffer.alloc(32)) : exchange.refused?.()
}

it('survives any octets', () => {
  const seen = new Set<string>()
  fc.assert(
    fc.property(logins, ({ mechanism, isAlongWithAuth, responses, isRight }) => {
      const exchange = startExchange(mechanism, PARAMETERS)
      const left = [...responses]
      let hasProved = false
      let step: SaslStep | undefined = exchange.begin(isAlongWithAuth ? left.shift() : undefined)
      while (step !== undefined) {
        seen.add(`${mechanism} ${step.kind}`)
        hasProved ||= step.kind === 'prove'
        if (step.kind === 'accepted') expect(hasProved && isRight).toBe(true)
        const name = step.kind === 'prove' ? step.attempt.name : ''
        // Preparing may write one sign as many, but never more than 18.
        expect(name.length).toBeLessThanOrEqual(NAME_MAX_OCTETS * 18)
        step = answer(exchange, step, isRight)
        if (step?.kind !== 'challenge') continue
        const response = left.shift()
        step = response && exchange.respond(response)
      }
    }),
    { ...FUZZ, numRuns: FUZZ.numRuns * 10 },
  )
  for (const mechanism of SASL_MECHANISMS) {
    expect(seen).toContain(`${mechanism} prove`)
    expect(seen).toContain(`${mechanism} malformed`)
  }
  expect(seen).toContain('SCRAM-SHA-256-PLUS accepted')
})
