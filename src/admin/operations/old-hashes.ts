/**
 * Who still has a password hash that is not today's argon2id. It is replaced when its user logs in
 * with the password, so who is left long after a migration does not read mail here.
 */
import { CURRENT_ARGON2_START } from '../../mail/auth/argon2.ts'
import { schemeOf } from '../../mail/auth/schemes/scheme.ts'
import type { Database } from '../../storage/postgres/database.ts'
import { selectDomainList } from '../../storage/tenants/domains.ts'
import { selectOldHashes } from '../../storage/tenants/old-hashes.ts'
import { formatAddress } from '../address.ts'
import { requireDomain } from './domains.ts'

export interface OldHash {
  address: string
  /** For example `ssha512`; `argon2id` is one of other parameters. */
  scheme: string
}

/** @param domainName undefined: of all domains */
export async function listOldHashes(
  db: Database,
  domainName: string | undefined,
): Promise<OldHash[]> {
  const domains =
    domainName === undefined ? await selectDomainList(db) : [await requireDomain(db, domainName)]
  const found: OldHash[] = []
  for (const domain of domains) {
    const rows = await selectOldHashes(db, domain.domainId, CURRENT_ARGON2_START)
    for (const { localPart, head } of rows)
      found.push({
        address: formatAddress({ localPart, domainName: domain.name }),
        scheme: schemeOf(head),
      })
  }
  return found
}
