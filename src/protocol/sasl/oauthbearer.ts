/**
 * OAUTHBEARER (RFC 7628): an OAuth 2.0 access token after a GS2 header. A user need not be named:
 * then the token alone says who.
 */
import { bearer } from './bearer-message.ts'
import { parseGs2 } from './gs2.ts'
import type { SaslExchange } from './mechanism.ts'

/** RFC 7628 §3.2.2. */
const REFUSAL = '{"status":"invalid_token"}'

export const oauthbearer = (): SaslExchange => bearer({ readName, refusal: REFUSAL })

/** There is no -PLUS form of it, so nothing can be bound. */
function readName(head: string): string | undefined {
  const gs2 = parseGs2(head)
  if (gs2 === undefined || gs2.rest !== '' || gs2.flag.startsWith('p')) return undefined
  return gs2.authzid ?? ''
}
