/** XOAUTH2: made by Google before there was OAUTHBEARER; Outlook and others still send it. */
import { bearer } from './bearer-message.ts'
import type { SaslExchange } from './mechanism.ts'
import { preparedName } from './text.ts'

const HEAD = 'user='
const REFUSAL = '{"status":"401","schemes":"bearer"}'

export const xoauth2 = (): SaslExchange => bearer({ readName, refusal: REFUSAL })

function readName(head: string): string | undefined {
  return head.startsWith(HEAD) ? preparedName(head.slice(HEAD.length)) : undefined
}
