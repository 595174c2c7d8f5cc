/**
 * Whom an address names at RCPT, in one statement: the user of that name or, if there is none, what
 * else an address may be (an alias, a name before a separator, a catch-all, any of these in the
 * domain that this one stands for). In which order is in migrations/0012_addresses.sql, how it is
 * asked in 0018: by a function, as what is asked next, and of which domain, depends on what was
 * found.
 */
import { hasNul } from '../accounts.ts'
import type { Database, Statement } from '../postgres/database.ts'
import { decodeInt4, decodeInt8, decodeText, present } from '../postgres/decode.ts'
import type { RawRow } from '../postgres/raw-connection.ts'

export interface Recipient {
  domainId: number
  userId: number
  domainName: string
  localPart: string
  /** the user's own quota or the domain's */
  isOverQuota: boolean
  /** what its domain says when there is no room: 552 rather than 452 */
  isRefusedWhenFull: boolean
}

const OVER_QUOTA = 1
const REFUSED_WHEN_FULL = 2

// Null stands for no flags: four octets of each answer.
export const RECIPIENT: Statement = {
  name: 'recipient',
  text: 'select domain_id, user_id, domain, local_part, flags from recipients($1, $2)',
}

/**
 * @returns nobody if there is no such address; several users, each once, of an alias. A suspended
 *   one still receives mail. `isOverQuota` is for an early no: what counts is decided when the
 *   message is delivered
 */
export async function selectRecipients(
  db: Database,
  domainName: string,
  localPart: string,
): Promise<Recipient[]> {
  if (hasNul(domainName) || hasNul(localPart)) return []
  return (await db.hotOrBulk(RECIPIENT, [domainName, localPart])).map(toRecipient)
}

function toRecipient(row: RawRow): Recipient {
  const flags = row[4] ? decodeInt4(row[4]) : 0
  return {
    domainId: decodeInt4(present(row, 0)),
    userId: decodeInt8(present(row, 1)),
    domainName: decodeText(present(row, 2)),
    localPart: decodeText(present(row, 3)),
    isOverQuota: (flags & OVER_QUOTA) > 0,
    isRefusedWhenFull: (flags & REFUSED_WHEN_FULL) > 0,
  }
}
