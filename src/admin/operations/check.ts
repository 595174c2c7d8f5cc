/**
 * Proves that what is stored fits together (counters, unique-ids, bodies), domain by domain, and
 * says of each finding whose maildrop it is.
 */
import { checkMaildrops, type Finding } from '../../storage/check.ts'
import type { Database } from '../../storage/postgres/database.ts'
import { type DomainRow, selectDomainList } from '../../storage/tenants/domains.ts'
import { selectUserList } from '../../storage/tenants/users.ts'
import { formatAddress } from '../address.ts'
import { requireDomain } from './domains.ts'

export interface CheckReport {
  domainCount: number
  findings: {
    domain: string
    /** null: it concerns no single user. */
    address: string | null
    kind: string
    detail: string
    isRepaired: boolean
  }[]
}

/** @param domainName undefined: all domains */
export async function checkMail(
  db: Database,
  domainName: string | undefined,
  isRepair: boolean,
): Promise<CheckReport> {
  const domains =
    domainName === undefined ? await selectDomainList(db) : [await requireDomain(db, domainName)]
  const report: CheckReport = { domainCount: domains.length, findings: [] }
  for (const domain of domains) {
    const findings = await checkMaildrops(db, domain.domainId, isRepair)
    if (findings.length > 0) report.findings.push(...(await named(db, domain, findings)))
  }
  return report
}

async function named(
  db: Database,
  domain: DomainRow,
  findings: readonly Finding[],
): Promise<CheckReport['findings']> {
  const users = await selectUserList(db, domain.domainId)
  const localParts = new Map(users.map((user) => [user.userId, user.localPart]))
  return findings.map(({ userId, kind, detail, isRepaired }) => {
    const localPart = userId === undefined ? undefined : localParts.get(userId)
    const address =
      localPart === undefined ? null : formatAddress({ localPart, domainName: domain.name })
    return { domain: domain.name, address, kind, detail, isRepaired }
  })
}
