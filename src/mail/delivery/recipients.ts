/**
 * Who a forward-path names. An address is split at its last "@", the domain brought into the form
 * that the tables keep (lower case, A-labels), a quoted local part freed of needless quotes (RFC
 * 5321 §4.1.2: "alice"@… and alice@… are one mailbox); then storage knows the users whom it names,
 * who are several for an alias, or nobody.
 */
import { domainToASCII } from 'node:url'
import type { Database } from '../../storage/postgres/database.ts'
import { type Recipient, selectRecipients } from '../../storage/tenants/recipients.ts'

export interface MailAddress {
  localPart: string
  domainName: string
}

export type RecipientLookup =
  | { kind: 'known'; recipients: Recipient[] }
  | { kind: 'unknown' }
  /** of one at least; `isFinal`: it need not be tried again */
  | { kind: 'over-quota'; isFinal: boolean }

/** LIMIT: RFC 5321 §4.5.3.1 has 64 + 1 + 255 octets; longer ones cannot be ours. */
const ADDRESS_MAX_LENGTH = 320

/** @returns undefined for what cannot be a mailbox here, e.g. without a domain */
export function parseMailAddress(text: string): MailAddress | undefined {
  const at = text.lastIndexOf('@')
  if (at < 1 || text.length > ADDRESS_MAX_LENGTH) return undefined
  const domainName = toAsciiDomain(text.slice(at + 1)).toLowerCase()
  return domainName === '' ? undefined : { localPart: unquote(text.slice(0, at)), domainName }
}

/** The domain in A-labels (RFC 5890); ASCII stays as written, what has no such form becomes ''. */
export function toAsciiDomain(domain: string): string {
  return /^[\x21-\x7e]*$/.test(domain) ? domain : domainToASCII(domain)
}

/** @throws {Failure} when the database is away */
export async function lookUpRecipient(db: Database, address: string): Promise<RecipientLookup> {
  const parsed = parseMailAddress(address)
  if (parsed === undefined) return { kind: 'unknown' }
  const recipients = await selectRecipients(db, parsed.domainName, parsed.localPart)
  if (recipients.length === 0) return { kind: 'unknown' }
  const full = recipients.filter(({ isOverQuota }) => isOverQuota)
  if (full.length === 0) return { kind: 'known', recipients }
  return { kind: 'over-quota', isFinal: full.some((each) => each.isRefusedWhenFull) }
}

function unquote(localPart: string): string {
  const quoted = /^"((?:[^"\\]|\\.)*)"$/.exec(localPart)
  return quoted?.[1] === undefined ? localPart : quoted[1].replace(/\\(.)/g, '$1')
}
