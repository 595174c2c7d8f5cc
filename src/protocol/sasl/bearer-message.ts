/**
 * The message in which OAUTHBEARER (RFC 7628 §3.1) and its forerunner XOAUTH2 bring a bearer token:
 * a head that names the user, then key=value pairs, all of them ended by ^A, then one more ^A.
 */
import { Secret } from '../../base/secret.ts'
import type { SaslExchange, SaslStep } from './mechanism.ts'
import { challenge, GO_ON, MALFORMED } from './steps.ts'
import { textOf } from './text.ts'

/** LIMIT: a token with many claims has a few KiB. */
const MESSAGE_MAX_OCTETS = 12_288
const SEPARATOR = '\x01'
const PAIR = /^([A-Za-z]+)=([\t\r\n\x20-\x7e]*)$/
/** RFC 6750 §2.1, of the scheme in any case (RFC 9110 §11.1). */
const BEARER = /^Bearer +([A-Za-z0-9._~+/-]+=*)$/i

interface BearerDialect {
  /** @returns the user's name from the head; undefined: malformed */
  readName(head: string): string | undefined
  /** What the client is told of a token that does not do. It answers with ^A, or nothing. */
  refusal: string
}

export function bearer({ readName, refusal }: BearerDialect): SaslExchange {
  let isRefused = false
  const refused = (): SaslStep => {
    isRefused = true
    return challenge(refusal)
  }
  const respond = (octets: Buffer): SaslStep => {
    const message = isRefused ? undefined : parse(textOf(octets, MESSAGE_MAX_OCTETS) ?? '')
    const name = message && readName(message.head)
    if (message === undefined || name === undefined) return MALFORMED
    // RFC 7628 §4.3: a client without a token asks what it would take.
    if (message.auth === '') return refused()
    const token = BEARER.exec(message.auth)?.[1]
    if (token === undefined) return MALFORMED
    return { kind: 'prove', attempt: { mechanism: 'bearer', name, token: new Secret(token) } }
  }
  return {
    begin: (initial) => (initial === undefined ? GO_ON : respond(initial)),
    respond,
    refused,
  }
}

/** Of the pairs only `auth` counts, and there is one: host and port are what we listen on. */
function parse(text: string): { head: string; auth: string } | undefined {
  const [head, ...pairs] = text.split(SEPARATOR)
  if (head === undefined || pairs.pop() !== '' || pairs.pop() !== '') return undefined
  const matches = pairs.map((pair) => PAIR.exec(pair))
  const auths = matches.filter((match) => match?.[1] === 'auth')
  const auth = auths[0]?.[2]
  if (auth === undefined || auths.length > 1 || matches.includes(null)) return undefined
  return { head, auth }
}
