/**
 * The aliases of an old server, when its users are here. There an alias may stand for another alias
 * or for an address elsewhere; here it names users of this server (operations/aliases.ts). So those
 * in between are followed to the users behind them, and every target that comes to no user is told
 * with its reason. What is there already stays; a second run adds nothing.
 */
import type { Database } from '../../storage/postgres/database.ts'
import { type Address, formatAddress, parseAddress, parseDomainName } from '../address.ts'
import {
  addAlias,
  addDomainAlias,
  listAliases,
  listDomainAliases,
  parseAlias,
} from '../operations/aliases.ts'
import { isRefusal, refused } from '../refusal.ts'
import type { Places } from './places.ts'

/** One row of the old server's list, in lower case, or why there is none. */
export type OldAlias =
  | {
      source: string
      /** An address, @example.com for a catch-all; of a domain alias the domain. */
      name: string
      targets: readonly string[]
      isOff: boolean
    }
  | { source: string; refusal: string }

export interface OldAliases {
  addresses: readonly OldAlias[]
  domains: readonly OldAlias[]
  /** Others are only followed; undefined: all are. */
  isWanted?: (name: string) => boolean
}

export interface AliasReport {
  added: number
  present: number
  /** Target by target: an alias may be here with the others. */
  refused: { source: string; name: string; target: string; reason: string }[]
}

export const noAliases = (): AliasReport => ({ added: 0, present: 0, refused: [] })

/** LIMIT: migrations/0012_addresses.sql */
const TARGETS_MAX = 100

export async function moveAliases(
  db: Database,
  places: Places,
  old: OldAliases,
  isDryRun: boolean,
): Promise<{ aliases: AliasReport; domainAliases: AliasReport }> {
  const move = new AliasMove(db, places, old, isDryRun)
  await move.run()
  return { aliases: move.aliases, domainAliases: move.domainAliases }
}

type OpenAlias = Exclude<OldAlias, { refusal: string }>

/** What an alias comes to in the end. */
interface Outcome {
  users: string[]
  problems: { target: string; reason: string }[]
}

class AliasMove {
  readonly aliases = noAliases()
  readonly domainAliases = noAliases()
  readonly #db: Database
  readonly #places: Places
  readonly #old: OldAliases
  readonly #isDryRun: boolean
  /** By name: targets on the old server. */
  readonly #listed = new Map<string, readonly string[]>()
  /** Domains that stand for others, here or by then. */
  readonly #standsFor = new Map<string, string>()
  /** By domain, what its aliases stand for here. */
  readonly #kept = new Map<string, Map<string, string[]>>()

  constructor(db: Database, places: Places, old: OldAliases, isDryRun: boolean) {
    this.#db = db
    this.#places = places
    this.#old = old
    this.#isDryRun = isDryRun
  }

  async run(): Promise<void> {
    for (const { domain, standsFor } of await listDomainAliases(this.#db))
      this.#standsFor.set(domain, standsFor)
    const { addresses, domains, isWanted = () => true } = this.#old
    for (const alias of addresses)
      if (!('refusal' in alias) && !alias.isOff) this.#listed.set(alias.name, alias.targets)
    const isTaken = (alias: OldAlias) => 'refusal' in alias || isWanted(alias.name)
    const whole = [...domains, ...addresses.filter(isWholeDomain).map(withoutAt)]
    for (const alias of whole.filter(isTaken))
      await this.#take(alias, this.domainAliases, (open) => this.#takeDomain(open))
    for (const alias of addresses.filter(isTaken).filter((each) => !isWholeDomain(each)))
      await this.#take(alias, this.aliases, (open) => this.#takeAddress(open))
  }

  async #take(
    alias: OldAlias,
    report: AliasReport,
    take: (alias: OpenAlias) => Promise<'added' | 'present' | undefined>,
  ): Promise<void> {
    try {
      if ('refusal' in alias) throw refused(alias.refusal)
      const result = await take(alias)
      if (result !== undefined) report[result] += 1
    } catch (error) {
      if (!isRefusal(error)) throw error
      const { source } = alias
      const { name, targets } = 'refusal' in alias ? { name: '', targets: [] } : alias
      report.refused.push({ source, name, target: targets.join(', '), reason: error.message })
    }
  }

  async #takeDomain({ name: oldName, targets, isOff }: OpenAlias) {
    const name = parseDomainName(oldName)
    const other = parseDomainName(targets[0] ?? '')
    if (name === other) return undefined
    if (isOff) throw refused('is switched off there')
    const now = this.#standsFor.get(name)
    if (now === other) return 'present'
    if (now !== undefined) throw refused(`${name} stands for ${now} here`)
    const further = this.#standsFor.get(other)
    if (further !== undefined) throw refused(`${other} stands for ${further}: name that one`)
    if (!(await this.#places.hasDomain(other))) throw refused(`there is no domain ${other} here`)
    if ([...this.#standsFor.values()].includes(name))
      throw refused(`another domain stands for ${name}`)
    if ((await this.#keptIn(name)).size > 0)
      throw refused(`${name} has aliases here, which would count no longer`)
    await this.#places.domainIdOf(name)
    if (!this.#isDryRun) await addDomainAlias(this.#db, name, other)
    this.#standsFor.set(name, other)
    return 'added'
  }

  async #takeAddress(alias: OpenAlias) {
    const { source, isOff } = alias
    const name = parseAlias(alias.name)
    const address = name.startsWith('@') ? undefined : parseAddress(name)
    const domainName = address?.domainName ?? name.slice(1)
    const others = alias.targets.filter((target) => target !== alias.name)
    const isUser = address !== undefined && (await this.#places.hasUser(address))
    // PostfixAdmin has such a row for every mailbox.
    if (others.length === 0 && isUser) return undefined
    if (isOff) throw refused('is switched off there')
    const outcome = isUser ? copiesOf(others) : await this.#resolve(alias)
    for (const problem of outcome.problems) this.aliases.refused.push({ source, name, ...problem })
    const { users } = outcome
    if (users.length === 0) return undefined
    const standsFor = this.#standsFor.get(domainName)
    if (standsFor !== undefined)
      throw refused(`${domainName} stands for ${standsFor}: name the address there`)
    await this.#places.domainIdOf(domainName)
    const kept = await this.#keptIn(domainName)
    const before = kept.get(name) ?? []
    const missing = users.filter((user) => !before.includes(user))
    if (missing.length === 0) return 'present'
    if (before.length + missing.length > TARGETS_MAX)
      throw refused(`stands for more than ${TARGETS_MAX} users`)
    if (!this.#isDryRun) await addAlias(this.#db, name, missing)
    kept.set(name, [...before, ...missing])
    return 'added'
  }

  /** Each target once, however they lead to one another. */
  async #resolve({ name, targets }: OpenAlias): Promise<Outcome> {
    const outcome: Outcome = { users: [], problems: [] }
    const seen = new Set([name])
    const open = [...targets]
    // Grows while it is walked.
    for (const target of open) {
      if (seen.has(target)) continue
      seen.add(target)
      try {
        const address = parseAddress(target)
        if (await this.#places.hasUser(address))
          outcome.users.push(formatAddress(address).toLowerCase())
        else open.push(...(await this.#behind(target, address)))
      } catch (error) {
        if (!isRefusal(error)) throw error
        outcome.problems.push({ target, reason: error.message })
      }
    }
    if (outcome.users.length + outcome.problems.length === 0)
      throw refused(
        targets.length === 0 ? 'stands for nobody' : 'leads back to itself, and is no user',
      )
    return outcome
  }

  /** @throws {Failure} OPERATION_REFUSED if nobody is */
  async #behind(target: string, { localPart, domainName }: Address): Promise<readonly string[]> {
    const listed = this.#listed.get(target)
    if (listed !== undefined) return listed
    if (!(await this.#places.hasDomain(domainName)))
      throw refused(`${domainName} is not of this server, and mail is not sent on`)
    const kept = (await this.#keptIn(domainName)).get(target)
    if (kept !== undefined) return kept
    const standsFor = this.#standsFor.get(domainName)
    if (standsFor !== undefined) return [`${localPart}@${standsFor}`]
    throw refused(`there is no user with the address ${target}`)
  }

  async #keptIn(domainName: string): Promise<Map<string, string[]>> {
    const known = this.#kept.get(domainName)
    if (known !== undefined) return known
    const isHere = (await this.#places.idOf(domainName)) !== undefined
    const found = isHere ? await listAliases(this.#db, domainName) : []
    const kept = new Map(
      found.map(({ address, targets }) => [address, targets.map((each) => each.toLowerCase())]),
    )
    this.#kept.set(domainName, kept)
    return kept
  }
}

/** A user comes before an alias of that name. */
function copiesOf(targets: readonly string[]): Outcome {
  const reason = 'the address is a user here, who keeps the mail: a copy goes nowhere else'
  return { users: [], problems: targets.map((target) => ({ target, reason })) }
}

/** @old.example to @example.com, as PostfixAdmin had it before it had alias_domain. */
function isWholeDomain(alias: OldAlias): boolean {
  if ('refusal' in alias) return false
  const { name, targets } = alias
  return name.startsWith('@') && targets.length === 1 && targets[0]?.startsWith('@') === true
}

function withoutAt(alias: OldAlias): OldAlias {
  if ('refusal' in alias) return alias
  const { name, targets } = alias
  return { ...alias, name: name.slice(1), targets: targets.map((target) => target.slice(1)) }
}
