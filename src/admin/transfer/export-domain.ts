/**
 * What a domain is besides its users, on its way out: policy, quota, aliases, the domains that
 * stand for it. What belongs to this server alone (host names and their certificates, OAuth, the
 * trash, history, legal holds) stays. How it comes in elsewhere is in domain-settings.ts.
 */
import type { Database } from '../../storage/postgres/database.ts'
import type { DomainBackup } from '../../storage/tenants/maildrops/backup.ts'
import { listAliases, listDomainAliases } from '../operations/aliases.ts'
import { showDomain } from '../operations/domains.ts'
import { type Policy, showPolicy } from '../operations/policies.ts'

export interface ExportedDomain {
  name: string
  isSuspended: boolean
  quotaOctets: number | null
  quotaMessages: number | null
  policy: Omit<Policy, 'inherited'>
  /** Of this domain, for users of whatever domain; the catch-all is @example.com. */
  aliases: { address: string; targets: string[] }[]
  /** Which domains stand for it, or for which it stands. */
  domainAliases: { domain: string; standsFor: string }[]
}

export async function exportDomain(db: Database, { name }: DomainBackup): Promise<ExportedDomain> {
  const { isSuspended, quotaOctets, quotaMessages } = await showDomain(db, name)
  const { inherited: _, ...policy } = await showPolicy(db, name)
  const aliases = await listAliases(db, name)
  const domainAliases = await listDomainAliases(db)
  return {
    ...{ name, isSuspended, quotaOctets, quotaMessages, policy },
    aliases: aliases.map(({ address, targets }) => ({ address, targets })),
    domainAliases: domainAliases.filter(
      ({ domain, standsFor }) => domain === name || standsFor === name,
    ),
  }
}
