/**
 * What CAPA lists, RFC 2449 §5 and §6: only what is true on this connection. STLS and SASL are
 * absent because they are not implemented, LOGIN-DELAY because logins are not delayed.
 */
import type { Pop3Parameters } from './actions.ts'

/**
 * RFC 2449 §6.1 to §6.9 and RFC 3206 §6. `EXPIRE NEVER` (§6.7): nothing leaves a maildrop by age.
 * TOP and UIDL are listed before login too: some clients ask only then (RFC 2449 §6.1, §6.8).
 */
const ALWAYS = 'TOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\nPIPELINING\r\nEXPIRE NEVER\r\n'

/** @returns the lines of the multi-line reply after its status line, the final dot included */
export function serializeCapabilities(parameters: Pop3Parameters): string {
  // RFC 2449 §6.2: USER only where USER and PASS would be accepted.
  const user = parameters.isPlaintextAllowed ? 'USER\r\n' : ''
  return `${ALWAYS}${user}IMPLEMENTATION ${parameters.implementation}\r\n.\r\n`
}
