/**
 * EXTERNAL (RFC 4422 appendix A): the TLS client certificate is the proof. The one message is the
 * name of a user, or empty: whoever the certificate belongs to.
 */
import type { SaslExchange, SaslStep } from './mechanism.ts'
import { MALFORMED, oneMessage } from './steps.ts'
import { NAME_MAX_OCTETS, preparedName, textOf } from './text.ts'

export const external = (): SaslExchange => oneMessage(read)

function read(octets: Buffer): SaslStep {
  const text = textOf(octets, NAME_MAX_OCTETS)
  const name = text && preparedName(text)
  if (name === undefined) return MALFORMED
  return { kind: 'prove', attempt: { mechanism: 'external', name } }
}
