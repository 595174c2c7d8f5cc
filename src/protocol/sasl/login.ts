/**
 * LOGIN, which no RFC defines (draft-murchison-sasl-login): a name, then a password, each asked
 * for. The name may come with AUTH.
 */
import type { SaslExchange, SaslStep } from './mechanism.ts'
import { challenge, MALFORMED, provePassword } from './steps.ts'
import { NAME_MAX_OCTETS, preparedName, textOf } from './text.ts'

/** Clients compare: not a letter may differ. */
const ASK_NAME = challenge('Username:')
const ASK_PASSWORD = challenge('Password:')

export function login(): SaslExchange {
  let name: string | undefined
  const respond = (octets: Buffer): SaslStep => {
    if (name !== undefined) return provePassword(name, octets)
    name = preparedName(textOf(octets, NAME_MAX_OCTETS) ?? '')
    return name === undefined ? MALFORMED : ASK_PASSWORD
  }
  return { begin: (initial) => (initial === undefined ? ASK_NAME : respond(initial)), respond }
}
