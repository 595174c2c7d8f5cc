/** A connection as the exchanges of these tests are told of it, and readers of their steps. */
import { type Pop3Parameters, SASL_MECHANISMS } from '../../../src/protocol/pop3/actions.ts'
import type { SaslStep } from '../../../src/protocol/sasl/mechanism.ts'

/** Every mechanism is listed, as on TLS 1.3. */
export const PARAMETERS: Pop3Parameters = {
  hostname: 'pop.example.com',
  apopTimestamp: undefined,
  isPlaintextAllowed: true,
  isTlsOffered: false,
  saslMechanisms: SASL_MECHANISMS,
  channelBinding: Buffer.alloc(32, 0xcb),
  policy: { loginDelaySeconds: 0, expireDays: undefined },
  isPolicyByUser: false,
  isUtf8Asked: false,
  implementation: 'Popgres',
}

/** One readable line: what a step is, and what is in it, secrets revealed. */
export function shown(step: SaslStep | undefined): string {
  if (step === undefined) return 'nothing'
  if (step.kind === 'challenge') return `challenge ${step.octets.toString('utf8')}`
  if (step.kind === 'ask-salt') return `ask-salt ${step.name}`
  if (step.kind !== 'prove') return step.kind
  const { attempt } = step
  if (attempt.mechanism === 'password')
    return `password ${attempt.name} ${attempt.password.reveal().toString('utf8')}`
  if (attempt.mechanism === 'bearer')
    return `bearer ${attempt.name} ${attempt.token.reveal().toString('utf8')}`
  return `${attempt.mechanism} ${attempt.name}`
}
