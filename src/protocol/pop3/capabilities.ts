/**
 * What CAPA lists, RFC 2449 §5 and §6: only what is true on this connection, at this moment. USER
 * and SASL are listed after the login too, as RFC 2449 §6.2 and RFC 5034 §6 have it (a client may
 * ask once, and then only), STLS before it alone (RFC 2595 §4).
 */
import type { MaildropPolicy, Pop3Parameters } from './actions.ts'

/**
 * RFC 2449 §6.1 to §6.9 and RFC 3206 §6. TOP and UIDL are listed before login too: some clients ask
 * only then (RFC 2449 §6.1, §6.8).
 */
const ALWAYS = ['TOP', 'UIDL', 'RESP-CODES', 'AUTH-RESP-CODE', 'PIPELINING', 'LANG']

/**
 * @param ownPolicy of who has logged in; undefined before the login
 * @returns the lines of the multi-line reply after its status line, the final dot included
 */
export function serializeCapabilities(
  parameters: Pop3Parameters,
  ownPolicy: MaildropPolicy | undefined,
): string {
  const { saslMechanisms, implementation } = parameters
  const lines = [...ALWAYS, ...policyLines(parameters, ownPolicy), utf8Line(parameters)]
  if (parameters.isTlsOffered && ownPolicy === undefined) lines.push('STLS')
  if (parameters.isPlaintextAllowed) lines.push('USER')
  if (saslMechanisms.length > 0) lines.push(`SASL ${saslMechanisms.join(' ')}`)
  return [...lines, `IMPLEMENTATION ${implementation}`, '.', ''].join('\r\n')
}

/**
 * RFC 2449 §6.5 and §6.7: before the login what is strictest for any user, with USER where the
 * policies differ; after it the user's own. Nobody is stricter than NEVER or no delay, so these
 * never have USER.
 */
function policyLines(
  { policy, isPolicyByUser }: Pop3Parameters,
  ownPolicy: MaildropPolicy | undefined,
): string[] {
  const { loginDelaySeconds, expireDays } = ownPolicy ?? policy
  const user = isPolicyByUser && ownPolicy === undefined ? ' USER' : ''
  const expire = expireDays === undefined ? 'EXPIRE NEVER' : `EXPIRE ${expireDays}${user}`
  return loginDelaySeconds === 0 ? [expire] : [expire, `LOGIN-DELAY ${loginDelaySeconds}${user}`]
}

/** RFC 6856 §2: USER says that names and passwords may be UTF-8 in the commands that take them. */
function utf8Line({ isPlaintextAllowed, apopTimestamp }: Pop3Parameters): string {
  return isPlaintextAllowed || apopTimestamp !== undefined ? 'UTF8 USER' : 'UTF8'
}
