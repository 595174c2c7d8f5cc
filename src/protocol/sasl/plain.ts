/** PLAIN (RFC 4616): [authzid] NUL authcid NUL password, in one message. */
import { NUL } from '../wire/ascii.ts'
import type { SaslExchange, SaslStep } from './mechanism.ts'
import { MALFORMED, oneMessage, provePassword } from './steps.ts'
import { NAME_MAX_OCTETS, preparedName, textOf } from './text.ts'

export const plain = (): SaslExchange => oneMessage(read)

/** The password need not be UTF-8: where it is not, it is taken as it is, as by PASS. */
function read(octets: Buffer): SaslStep {
  const first = octets.indexOf(NUL)
  const second = octets.indexOf(NUL, first + 1)
  if (first < 0 || second < 0 || octets.includes(NUL, second + 1)) return MALFORMED
  const authzid = textOf(octets.subarray(0, first), NAME_MAX_OCTETS)
  const authcid = textOf(octets.subarray(first + 1, second), NAME_MAX_OCTETS)
  const name = authcid && preparedName(authcid)
  // Nobody acts for another.
  const isSelf = authzid === '' || (authzid && preparedName(authzid) === name)
  if (!name || !isSelf) return MALFORMED
  return provePassword(name, octets.subarray(second + 1))
}
