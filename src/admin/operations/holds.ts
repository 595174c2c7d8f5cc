/**
 * What an operator does with legal holds. The subject is the address of a user, or a domain with
 * everybody in it. What a hold keeps from being destroyed is in migrations/0014_retention.sql.
 */
import type { Database } from '../../storage/postgres/database.ts'
import { deleteHold, type HoldRow, insertHold, selectHolds } from '../../storage/tenants/holds.ts'
import { formatAddress } from '../address.ts'
import { refused, refusing } from '../refusal.ts'
import { requireDomain } from './domains.ts'
import { requireUser } from './users.ts'

export interface Hold {
  /** an address, or a domain */
  subject: string
  reason: string
  since: Date
}

/**
 * From then on nothing of it is destroyed, whoever says so.
 * @param subject an address or a domain
 * @returns the subject as it is kept
 */
export async function setHold(db: Database, subject: string, reason: string): Promise<string> {
  const kept = await nameOf(db, subject)
  await refusing(() => insertHold(db, kept, reason))
  return kept
}

/** The domain's own first, then those of its users. @param domainName undefined: of all domains */
export async function listHolds(db: Database, domainName: string | undefined): Promise<Hold[]> {
  const domain = domainName === undefined ? undefined : await requireDomain(db, domainName)
  const rows = await selectHolds(db, domain?.domainId)
  return rows.map(toHold)
}

/**
 * The trash is purged again from then on, and messages expire. Another hold, on the domain of an
 * address or on a user of a domain, stays on.
 * @returns the subject as it is kept
 */
export async function releaseHold(db: Database, subject: string): Promise<string> {
  const kept = await nameOf(db, subject)
  if (!(await deleteHold(db, kept)))
    throw refused(`no legal hold is on ${kept} itself: see "popgres hold list"`)
  return kept
}

/** @throws {Failure} OPERATION_REFUSED if there is neither such a user nor such a domain */
async function nameOf(db: Database, subject: string): Promise<string> {
  if (!subject.includes('@')) return (await requireDomain(db, subject)).name
  const { row, domainName } = await requireUser(db, subject)
  return formatAddress({ localPart: row.localPart, domainName })
}

const toHold = ({ domainName, localPart, reason, since }: HoldRow): Hold => ({
  subject: localPart === undefined ? domainName : formatAddress({ localPart, domainName }),
  reason,
  since,
})
