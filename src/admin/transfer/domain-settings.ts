/**
 * The settings of domains that move in from another Popgres. One that is made on the way has them
 * from the start (places.ts), one that was there keeps its own, and where they differ is told. The
 * quota comes last, where there is none: mail that was in there must not be refused here.
 */
import type { Database } from '../../storage/postgres/database.ts'
import { type DomainSettings, selectDomain } from '../../storage/tenants/domains.ts'
import { selectDomainPolicy } from '../../storage/tenants/policies.ts'
import { changeDomainQuota, showDomain } from '../operations/domains.ts'

export interface OldDomain extends DomainSettings {
  quotaOctets: number | undefined
  quotaMessages: number | undefined
}

/** What a domain has otherwise than it was there, by the names of the settings. */
export interface OtherSettings {
  domain: string
  names: string[]
}

/**
 * @param isWhole whether its users are all here, with their mail
 * @returns undefined: all is as it was there
 */
export async function completeDomain(
  db: Database,
  name: string,
  old: OldDomain,
  { isDryRun, isWhole }: { isDryRun: boolean; isWhole: boolean },
): Promise<OtherSettings | undefined> {
  const row = await selectDomain(db, name)
  if (row === undefined) return undefined
  const { quotaOctets, quotaMessages } = await showDomain(db, name)
  const hasQuota = quotaOctets !== null || quotaMessages !== null
  const { quotaOctets: octets, quotaMessages: messages, ...settings } = old
  const mayHaveQuota = !hasQuota && (octets !== undefined || messages !== undefined)
  if (mayHaveQuota && isWhole && !isDryRun) await changeDomainQuota(db, name, { octets, messages })
  const policy = await selectDomainPolicy(db, row.domainId)
  const here: OldDomain = {
    ...{ ...policy, isSuspended: row.isSuspended },
    quotaOctets: mayHaveQuota ? octets : (quotaOctets ?? undefined),
    quotaMessages: mayHaveQuota ? messages : (quotaMessages ?? undefined),
  }
  const there: OldDomain = { ...settings, quotaOctets: octets, quotaMessages: messages }
  const names = (Object.keys(here) as (keyof OldDomain)[]).filter((key) => here[key] !== there[key])
  return names.length === 0 ? undefined : { domain: name, names }
}
