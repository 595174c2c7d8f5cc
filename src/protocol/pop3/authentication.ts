/**
 * AUTH, RFC 5034: the frame around a SASL exchange. What is in the frame is the mechanism's
 * (../sasl/); base64, "*" and the limits of a line are taken off before it gets here (session.ts).
 */
import { assert } from '../../base/assert.ts'
import type { SaslExchange, SaslStep } from '../sasl/mechanism.ts'
import { startExchange } from '../sasl/mechanism.ts'
import type { SaslMechanismName } from './actions.ts'
import type { Dialogue } from './dialogue.ts'
import { logIn, refuseLogin } from './login.ts'
import type { MechanismAndResponse } from './parser.ts'
import {
  MECHANISM_UNAVAILABLE,
  PLAINTEXT_REFUSED,
  RESPONSE_MALFORMED,
  type Refusal,
} from './replies.ts'

export function checkMechanism(
  dialogue: Dialogue,
  args: MechanismAndResponse | undefined,
): Refusal | undefined {
  if (args === undefined || findMechanism(dialogue, args.mechanism) !== undefined) return undefined
  const { isPlaintextAllowed } = dialogue.parameters
  const isPlaintext = args.mechanism === 'PLAIN' || args.mechanism === 'LOGIN'
  return isPlaintext && !isPlaintextAllowed ? PLAINTEXT_REFUSED : MECHANISM_UNAVAILABLE
}

/**
 * LENIENT: AUTH alone lists the mechanisms. RFC 5034 leaves that to CAPA. CLIENT: Outlook asks so.
 */
export function authenticate(dialogue: Dialogue, args: MechanismAndResponse | undefined): void {
  if (args === undefined) {
    dialogue.accept(dialogue.words.mechanismsFollow)
    for (const name of dialogue.parameters.saslMechanisms) dialogue.reply(`${name}\r\n`)
    dialogue.reply('.\r\n')
    return
  }
  const mechanism = findMechanism(dialogue, args.mechanism)
  assert(mechanism !== undefined, 'the mechanism was checked to be available')
  const exchange = startExchange(mechanism, dialogue.parameters)
  follow(dialogue, exchange, exchange.begin(args.initialResponse))
}

function findMechanism(dialogue: Dialogue, name: string): SaslMechanismName | undefined {
  return dialogue.parameters.saslMechanisms.find((mechanism) => mechanism === name)
}

/** Does what the mechanism wants done next. */
function follow(dialogue: Dialogue, exchange: SaslExchange, step: SaslStep): void {
  switch (step.kind) {
    case 'challenge':
      dialogue.challenge(step.octets, (response) => {
        if (Buffer.isBuffer(response)) follow(dialogue, exchange, exchange.respond(response))
        else dialogue.refuse(response)
      })
      return
    case 'ask-salt':
      askForSalt(dialogue, exchange, step.name)
      return
    case 'prove':
      logIn(dialogue, step.attempt, exchange)
      return
    case 'malformed':
      dialogue.refuse(RESPONSE_MALFORMED)
      return
    case 'accepted':
      assert(false, 'nothing is accepted that was not proved')
  }
}

function askForSalt(dialogue: Dialogue, exchange: SaslExchange, name: string): void {
  dialogue.ask({ kind: 'scram-salt', name }, (_, outcome) => {
    if (outcome.kind === 'login-refused') {
      refuseLogin(dialogue, outcome.reason)
      return
    }
    assert(outcome.kind === 'scram-salt', 'scram-salt is answered by scram-salt or login-refused')
    assert(exchange.salted !== undefined, 'who asks for salt takes it')
    follow(dialogue, exchange, exchange.salted(outcome))
  })
}
