/**
 * What an operator does with domains. Each function is one operation, used alike by the command
 * line and by whatever else manages a server: values in, values out, OPERATION_REFUSED with a line
 * that says what to do.
 */
import type { Database } from '../../storage/postgres/database.ts'
import {
  type DomainCounts,
  type DomainRow,
  type DomainSettings,
  deleteDomain,
  insertDomain,
  selectDomain,
  selectDomainCounts,
  selectDomainList,
  updateDomainQuota,
  updateDomainSuspended,
} from '../../storage/tenants/domains.ts'
import { parseDomainName } from '../address.ts'
import { refuseHeld } from '../held.ts'
import { refused, refusing } from '../refusal.ts'

export interface Domain extends Omit<DomainCounts, 'quotaOctets' | 'quotaMessages'> {
  name: string
  isSuspended: boolean
  trashDays: number
  /** null: it stands for itself */
  aliasOf: string | null
  quotaOctets: number | null
  quotaMessages: number | null
  createdAt: Date
}

/** @returns the name as it is kept, in lower case */
export async function addDomain(
  db: Database,
  name: string,
  settings?: DomainSettings,
): Promise<string> {
  const parsed = parseDomainName(name)
  if ((await selectDomain(db, parsed)) !== undefined) throw refused(`${parsed} exists already`)
  await refusing(() => insertDomain(db, parsed, settings))
  return parsed
}

export async function listDomains(db: Database): Promise<Domain[]> {
  const rows = await selectDomainList(db)
  return rows.map((row) => toDomain(row, row))
}

export async function showDomain(db: Database, name: string): Promise<Domain> {
  const row = await requireDomain(db, name)
  return toDomain(row, await selectDomainCounts(db, row.domainId))
}

/** Ends its live sessions; its mail is still accepted. */
export async function suspendDomain(db: Database, name: string): Promise<void> {
  await updateDomainSuspended(db, (await requireDomain(db, name)).domainId, true)
}

export async function resumeDomain(db: Database, name: string): Promise<void> {
  await updateDomainSuspended(db, (await requireDomain(db, name)).domainId, false)
}

/** What is missing stays; undefined: no limit. Counts anew, which holds all deliveries shortly. */
export async function changeDomainQuota(
  db: Database,
  name: string,
  change: { octets?: number | undefined; messages?: number | undefined },
): Promise<void> {
  const { name: kept, quotaOctets, quotaMessages } = await showDomain(db, name)
  const quota = {
    octets: 'octets' in change ? change.octets : (quotaOctets ?? undefined),
    messages: 'messages' in change ? change.messages : (quotaMessages ?? undefined),
  }
  await refusing(() => updateDomainQuota(db, kept, quota))
}

/**
 * With all its users and messages, at once and for good.
 * @throws {Failure} OPERATION_REFUSED while a legal hold is on it or on anybody in it
 */
export async function removeDomain(db: Database, name: string): Promise<void> {
  const row = await requireDomain(db, name)
  await refuseHeld(db, row.domainId, undefined)
  await refusing(() => deleteDomain(db, row.name))
}

/** @throws {Failure} OPERATION_REFUSED if there is none of that name */
export async function requireDomain(db: Database, name: string): Promise<DomainRow> {
  const parsed = parseDomainName(name)
  const row = await selectDomain(db, parsed)
  if (row === undefined)
    throw refused(`there is no domain ${parsed}: see "popgres domain list", or add it`)
  return row
}

function toDomain(row: DomainRow, counts: DomainCounts): Domain {
  const { name, isSuspended, trashDays, createdAt } = row
  const { userCount, messageCount, octets, trashCount, trashOctets } = counts
  return {
    ...{ name, isSuspended, trashDays, aliasOf: row.aliasOf ?? null },
    ...{ userCount, messageCount, octets, trashCount, trashOctets },
    quotaOctets: counts.quotaOctets ?? null,
    quotaMessages: counts.quotaMessages ?? null,
    createdAt,
  }
}
