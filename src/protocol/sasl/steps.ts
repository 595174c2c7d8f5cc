/** Steps that several mechanisms take. */
import { Secret } from '../../base/secret.ts'
import type { SaslExchange, SaslStep } from './mechanism.ts'

/** LIMIT: more than PASS can carry, and than anybody types. */
const PASSWORD_MAX_OCTETS = 1024

export const MALFORMED: SaslStep = { kind: 'malformed' }

export const challenge = (text: string): SaslStep => ({
  kind: 'challenge',
  octets: Buffer.from(text),
})

/** The client speaks first, but did not do so along with AUTH. */
export const GO_ON = challenge('')

/** @param read the client's one message, which came with AUTH or after an empty challenge */
export function oneMessage(read: (octets: Buffer) => SaslStep): SaslExchange {
  return { begin: (initial) => (initial === undefined ? GO_ON : read(initial)), respond: read }
}

/** @param password any octets but none at all; copied, since they lie in the input buffer */
export function provePassword(name: string, password: Buffer): SaslStep {
  if (password.length === 0 || password.length > PASSWORD_MAX_OCTETS) return MALFORMED
  const secret = new Secret(Buffer.from(password))
  return { kind: 'prove', attempt: { mechanism: 'password', name, password: secret } }
}
