/**
 * Which domains and users are here by now while an old server moves in: in a dry run, those too
 * that would be.
 */
import type { Database } from '../../storage/postgres/database.ts'
import { type DomainSettings, selectDomain } from '../../storage/tenants/domains.ts'
import { selectUser } from '../../storage/tenants/users.ts'
import { type Address, formatAddress } from '../address.ts'
import { addDomain } from '../operations/domains.ts'
import { refused } from '../refusal.ts'

export interface PlacesOptions {
  isDryRun: boolean
  /** Domains that are not there are added instead of refused. */
  addsDomains: boolean
  /** Of those that are added; others stay as they are. */
  domains?: ReadonlyMap<string, DomainSettings> | undefined
}

export class Places {
  readonly domainsAdded: string[] = []
  readonly #db: Database
  readonly #options: PlacesOptions
  /** undefined: added, but for the dry run */
  readonly #domainIds = new Map<string, number | undefined>()
  /** Addresses in lower case. */
  readonly #users = new Set<string>()

  constructor(db: Database, options: PlacesOptions) {
    this.#db = db
    this.#options = options
  }

  /**
   * Adds the domain if it may.
   * @returns undefined: in a dry run it is not there
   * @throws {Failure} OPERATION_REFUSED
   */
  async domainIdOf(name: string): Promise<number | undefined> {
    if (await this.hasDomain(name)) return this.#domainIds.get(name)
    if (!this.#options.addsDomains)
      throw refused(
        `there is no domain ${name}: add it with "popgres domain add ${name}", ` +
          'or all of them with --add-domains',
      )
    if (!this.#options.isDryRun) await addDomain(this.#db, name, this.#options.domains?.get(name))
    this.domainsAdded.push(name)
    this.#domainIds.set(name, (await selectDomain(this.#db, name))?.domainId)
    return this.#domainIds.get(name)
  }

  /** @returns undefined: it is not there, or in a dry run only would be */
  async idOf(name: string): Promise<number | undefined> {
    return (await this.hasDomain(name)) ? this.#domainIds.get(name) : undefined
  }

  async hasDomain(name: string): Promise<boolean> {
    if (this.#domainIds.has(name)) return true
    const found = await selectDomain(this.#db, name)
    if (found !== undefined) this.#domainIds.set(name, found.domainId)
    return found !== undefined
  }

  noteUser(address: Address): void {
    this.#users.add(formatAddress(address).toLowerCase())
  }

  async hasUser(address: Address): Promise<boolean> {
    if (this.#users.has(formatAddress(address).toLowerCase())) return true
    const domainId = await this.idOf(address.domainName)
    if (domainId === undefined) return false
    return (await selectUser(this.#db, domainId, address.localPart)) !== undefined
  }
}
