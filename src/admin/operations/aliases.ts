/**
 * What an operator does with aliases: other names of users, in the domain of the users or another
 * one, and domains that stand for others. An alias names users, never another alias, and no
 * address of another server: mail is not sent on.
 */
import type { Database } from '../../storage/postgres/database.ts'
import {
  deleteAlias,
  deleteDomainAlias,
  insertAlias,
  insertDomainAlias,
  selectAliases,
} from '../../storage/tenants/aliases.ts'
import { selectDomainList } from '../../storage/tenants/domains.ts'
import { formatAddress, parseAddress, parseDomainName } from '../address.ts'
import { refused, refusing } from '../refusal.ts'
import { requireDomain } from './domains.ts'

export interface Alias {
  /** @example.com is the domain's catch-all */
  address: string
  /** addresses of users */
  targets: string[]
  /** there is a user of that name, who comes before: the alias waits */
  isHidden: boolean
}

export interface DomainAlias {
  domain: string
  standsFor: string
}

/**
 * Adds to the targets that it has already.
 * @param address of the alias, `@example.com` for a catch-all
 * @returns the address as it is kept
 */
export async function addAlias(
  db: Database,
  address: string,
  targets: readonly string[],
): Promise<string> {
  const alias = parseAlias(address)
  const users = targets.map((target) => formatAddress(parseAddress(target)))
  await refusing(() => insertAlias(db, alias, users))
  return alias
}

/**
 * @param targets none: the whole alias
 * @returns how many targets went
 */
export async function removeAlias(
  db: Database,
  address: string,
  targets: readonly string[],
): Promise<number> {
  const alias = parseAlias(address)
  const users = targets.map((target) => formatAddress(parseAddress(target)))
  const gone = await refusing(() => deleteAlias(db, alias, users.length > 0 ? users : undefined))
  if (gone === 0)
    throw refused(
      users.length > 0
        ? `${alias} does not stand for ${users.join(', ')}: see "popgres alias list ${alias}"`
        : `there is no alias ${alias}: see "popgres alias list ${domainOf(alias)}"`,
    )
  return gone
}

/** @param subject a domain, or one alias */
export async function listAliases(db: Database, subject: string): Promise<Alias[]> {
  const only = subject.includes('@') ? parseAlias(subject) : undefined
  const { domainId } = await requireDomain(db, only === undefined ? subject : domainOf(only))
  const found = new Map<string, Alias>()
  for (const { address, target, isHidden } of await selectAliases(db, domainId)) {
    if (only !== undefined && address !== only) continue
    const alias = found.get(address) ?? { address, targets: [], isHidden }
    alias.targets.push(target)
    found.set(address, alias)
  }
  return [...found.values()]
}

/** Makes the domain if it is missing. @returns both names as they are kept */
export async function addDomainAlias(
  db: Database,
  name: string,
  other: string,
): Promise<DomainAlias> {
  const domain = parseDomainName(name)
  const { name: standsFor } = await requireDomain(db, other)
  await refusing(() => insertDomainAlias(db, domain, standsFor))
  return { domain, standsFor }
}

/** The domain stays, with nobody in it. */
export async function removeDomainAlias(db: Database, name: string): Promise<DomainAlias> {
  const { name: domain, aliasOf } = await requireDomain(db, name)
  if (aliasOf === undefined)
    throw refused(`${domain} stands for no other domain: see "popgres domain alias list"`)
  await refusing(() => deleteDomainAlias(db, domain))
  return { domain, standsFor: aliasOf }
}

export async function listDomainAliases(db: Database): Promise<DomainAlias[]> {
  const domains = await selectDomainList(db)
  return domains.flatMap(({ name: domain, aliasOf }) =>
    aliasOf === undefined ? [] : [{ domain, standsFor: aliasOf }],
  )
}

/**
 * In lower case, as the table has it.
 * @throws {Failure} OPERATION_REFUSED
 */
export function parseAlias(text: string): string {
  if (text.startsWith('@')) return `@${parseDomainName(text.slice(1))}`
  return formatAddress(parseAddress(text)).toLowerCase()
}

const domainOf = (address: string): string => address.slice(address.lastIndexOf('@') + 1)
