/**
 * Host names of a domain: who connects to pop.customer.example over TLS may log in there with a
 * user name alone, and it is customer.example's.
 */
import {
  deleteDomainHost,
  insertDomainHost,
  selectDomainHosts,
} from '../../../storage/certificates.ts'
import type { Database } from '../../../storage/postgres/database.ts'
import { parseDomainName } from '../../address.ts'
import { refused, refusing } from '../../refusal.ts'
import { requireDomain } from '../domains.ts'

export interface DomainHost {
  hostName: string
  domainName: string
}

/** @returns the names as they are kept */
export async function addHost(
  db: Database,
  domainName: string,
  hostName: string,
): Promise<DomainHost> {
  const host = parseDomainName(hostName)
  const { domainId, name } = await requireDomain(db, domainName)
  await refusing(() => insertDomainHost(db, domainId, host))
  return { hostName: host, domainName: name }
}

export function listHosts(db: Database): Promise<DomainHost[]> {
  return selectDomainHosts(db)
}

/** @returns the names as they were kept */
export async function removeHost(
  db: Database,
  domainName: string,
  hostName: string,
): Promise<DomainHost> {
  const host = parseDomainName(hostName)
  const { domainId, name } = await requireDomain(db, domainName)
  if (!(await deleteDomainHost(db, domainId, host)))
    throw refused(`${host} is no host name of ${name}: see "popgres host list"`)
  return { hostName: host, domainName: name }
}
