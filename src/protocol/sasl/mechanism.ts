/**
 * SASL (RFC 4422) as the session sees it: octets of the client in, steps out, whatever the
 * mechanism. Base64, "=", "*" and the line limits are the framing's (RFC 5034), so an exchange
 * never sees them. An exchange serves one attempt, on one connection; nothing that a client sends
 * makes it throw.
 */
import { assert } from '../../base/assert.ts'
import type { LoginAttempt, Pop3Parameters, SaslMechanismName } from '../pop3/actions.ts'
import { external } from './external.ts'
import { login } from './login.ts'
import { oauthbearer } from './oauthbearer.ts'
import { plain } from './plain.ts'
import { bound, ScramExchange, unbound } from './scram.ts'
import { xoauth2 } from './xoauth2.ts'

export type SaslStep =
  /** Send this (it may be empty) and give the answer to `respond`. */
  | { kind: 'challenge'; octets: Buffer }
  /** Only the owner knows the salt of that user: it is given to `salted`. */
  | { kind: 'ask-salt'; name: string }
  /** The proof is complete: judge it, then `proved` or `refused`. */
  | { kind: 'prove'; attempt: LoginAttempt }
  /** Not what the mechanism wants to hear: the exchange is over and the login failed. */
  | { kind: 'malformed' }
  /** The client has had all it waits for: say +OK. */
  | { kind: 'accepted' }

/** RFC 5802 §5.1; `nonce` is the server's part, printable ASCII without a comma. */
export interface ScramSalt {
  salt: Buffer
  iterations: number
  nonce: string
}

export interface SaslExchange {
  /** @param initial what came with AUTH; undefined: nothing came, not even "=" */
  begin(initial: Buffer | undefined): SaslStep
  /** @param octets the answer to the last challenge */
  respond(octets: Buffer): SaslStep
  /** After `ask-salt`. */
  salted?(salt: ScramSalt): SaslStep
  /**
   * After `prove`, when the login succeeded. A mechanism without it has nothing more to say: +OK.
   * @param serverSignature RFC 5802 §3; SCRAM cannot do without
   */
  proved?(serverSignature: Buffer | undefined): SaslStep
  /**
   * After `prove`, when the credentials were wrong. A mechanism without it has nothing to say. The
   * answer to a challenge that comes from here is read and thrown away; then -ERR.
   */
  refused?(): SaslStep | undefined
}

/** @param parameters of the connection, as they are when AUTH begins; they list the mechanism */
export function startExchange(
  mechanism: SaslMechanismName,
  { saslMechanisms, channelBinding }: Pop3Parameters,
): SaslExchange {
  switch (mechanism) {
    case 'SCRAM-SHA-256-PLUS':
      assert(channelBinding !== undefined, '-PLUS is listed where there is something to bind')
      return new ScramExchange(bound(channelBinding))
    case 'SCRAM-SHA-256':
      return new ScramExchange(unbound(saslMechanisms.includes('SCRAM-SHA-256-PLUS')))
    case 'EXTERNAL':
      return external()
    case 'OAUTHBEARER':
      return oauthbearer()
    case 'XOAUTH2':
      return xoauth2()
    case 'PLAIN':
      return plain()
    case 'LOGIN':
      return login()
  }
}
