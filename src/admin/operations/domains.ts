/**
 * What an operator does with domains. Each function is one operation, used alike by the command
 * line and by whatever else manages a server: values in, values out, OPERATION_REFUSED with a line
 * that says what to do.
 */
import type { Database } from '../../storage/postgres/database.ts'
import {
  type DomainCounts,
  type DomainRow,
  deleteDomain,
  insertDomain,
  selectDomain,
  selectDomainCounts,
  selectDomainList,
  updateDomainSuspended,
} from '../../storage/tenants/domains.ts'
import { parseDomainName } from '../address.ts'
import { refused, refusing } from '../refusal.ts'

export interface Domain extends DomainCounts {
  name: string
  isSuspended: boolean
  trashDays: number
  createdAt: Date
}

/** @returns the name as it is kept, in lower case */
export async function addDomain(db: Database, name: string): Promise<string> {
  const parsed = parseDomainName(name)
  await refusing(() => insertDomain(db, parsed))
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

/** With all its users and messages, at once and for good. */
export async function removeDomain(db: Database, name: string): Promise<void> {
  const row = await requireDomain(db, name)
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
  const { userCount, messageCount, octets } = counts
  return { name, isSuspended, trashDays, userCount, messageCount, octets, createdAt }
}
