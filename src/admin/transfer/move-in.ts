/**
 * Everybody of an old server, one user after the other: the account, then the maildrop, and the
 * password last, so that nobody logs in and sees half of it (a client that keeps mail on the server
 * would forget what it does not see, and fetch it again). What is there already stays as it is: a
 * second run goes on where the first was cut, and brings what has come since. A user or message
 * that cannot be taken stops nothing; the report names it.
 */
import { hashPassword } from '../../mail/auth/argon2.ts'
import type { Database } from '../../storage/postgres/database.ts'
import {
  insertUsers,
  selectUser,
  type UserRow,
  updateUserCredentials,
} from '../../storage/tenants/users.ts'
import { type Address, formatAddress, parseAddress } from '../address.ts'
import { parseOctets } from '../octets.ts'
import { isRefusal, refused, refusing } from '../refusal.ts'
import { completeDomain, type OldDomain, type OtherSettings } from './domain-settings.ts'
import { type ImportItem, type ImportReport, importItems } from './import-messages.ts'
import { type AliasReport, moveAliases, noAliases, type OldAliases } from './move-aliases.ts'
import { Places } from './places.ts'
import { parseCredential, type StoredCredential } from './stored-credential.ts'
import { completeUser, type OldSettings, switchesOf } from './user-settings.ts'

/** One user of the old server, or why there is none. */
export type OldUser =
  | {
      /** File and line, or row. */
      source: string
      address: string
      /** One of them, as the old server keeps it; empty is as good as absent. */
      hash?: string | undefined
      password?: string | undefined
      quota?: string | undefined
      isSuspended?: boolean
      /** Neither hash nor password, and that is as it should be. */
      isWithoutPassword?: boolean
      settings?: OldSettings | undefined
      /** Absent: the account alone moves. */
      maildrop?: OldMaildrop | undefined
    }
  | { source: string; address?: string; refusal: string }

export interface OldMaildrop {
  /** Octets for the progress; 0: not known. */
  measure(): Promise<number>
  /** In the old server's order. OPERATION_REFUSED: it could not be read to its end. */
  messages(): AsyncIterable<ImportItem>
}

export interface MoveInOptions {
  messageMaxOctets: number
  isDryRun: boolean
  /** Domains that are not there are added instead of refused. */
  addsDomains: boolean
  replacesUniqueIds: boolean
  /** Taken when all users are there. */
  aliases?: OldAliases | undefined
  /** What the domains were there, by name. */
  domains?: ReadonlyMap<string, OldDomain> | undefined
  /** Whether all users of a domain are among these; undefined: of all. */
  isAll?: (domain: string) => boolean
  /** @param users how many are done, the share of the one at work included */
  onProgress?: (users: number) => void
}

export interface MoveInReport {
  isDryRun: boolean
  domainsAdded: string[]
  users: {
    added: number
    present: number
    refused: { source: string; address: string; reason: string }[]
    /** They came without a password: somebody has to set one. */
    withoutPassword: { address: string; reason: string }[]
    /** Their maildrop could not be read to its end: no password was set, run it again. */
    unfinished: { address: string; reason: string }[]
  }
  messages: {
    imported: number
    alreadyImported: number
    /** Of those in the source: seen by no client there, so they have a new unique-id. */
    unseen: number
    skipped: { address: string; source: string; reason: string }[]
  }
  aliases: AliasReport
  domainAliases: AliasReport
  /** Of domains that were here before, and keep what they have. */
  otherSettings: OtherSettings[]
}

export async function moveIn(
  db: Database,
  users: readonly OldUser[],
  options: MoveInOptions,
): Promise<MoveInReport> {
  const moving = new MoveIn(db, options)
  for (const [index, user] of users.entries()) {
    await moving.take(user, (share) => options.onProgress?.(index + share))
    options.onProgress?.(index + 1)
  }
  if (options.aliases !== undefined) await moving.takeAliases(options.aliases)
  for (const [name, domain] of options.domains ?? [])
    if (options.isAll?.(name) !== false) await moving.complete(name, domain)
  return moving.report
}

type OpenUser = Exclude<OldUser, { refusal: string }>

/** What is done with one user. */
interface Arrival {
  old: OpenUser
  address: Address
  /** undefined: in a dry run the domain is not there. */
  domainId: number | undefined
  present: UserRow | undefined
  credential: StoredCredential | undefined
  quotaOctets: number | undefined
}

class MoveIn {
  readonly report: MoveInReport
  readonly #db: Database
  readonly #options: MoveInOptions
  readonly #places: Places
  /** Source of the first user with an address, in lower case. */
  readonly #seen = new Map<string, string>()

  constructor(db: Database, options: MoveInOptions) {
    this.#db = db
    this.#options = options
    this.#places = new Places(db, options)
    this.report = {
      isDryRun: options.isDryRun,
      domainsAdded: this.#places.domainsAdded,
      users: { added: 0, present: 0, refused: [], withoutPassword: [], unfinished: [] },
      messages: { imported: 0, alreadyImported: 0, unseen: 0, skipped: [] },
      aliases: noAliases(),
      domainAliases: noAliases(),
      otherSettings: [],
    }
  }

  async take(old: OldUser, onShare: (share: number) => void): Promise<void> {
    const { source, address = '' } = old
    try {
      if ('refusal' in old) throw refused(old.refusal)
      const arrival = await this.#receive(old)
      const userId = await this.#settle(arrival)
      this.#places.noteUser(arrival.address)
      const isWhole = await this.#moveMaildrop(arrival, userId, onShare)
      if (isWhole) await this.#admit(arrival, userId)
    } catch (error) {
      if (!isRefusal(error)) throw error
      this.report.users.refused.push({ source, address, reason: error.message })
    }
  }

  async takeAliases(aliases: OldAliases): Promise<void> {
    const { isDryRun } = this.#options
    Object.assign(this.report, await moveAliases(this.#db, this.#places, aliases, isDryRun))
  }

  async complete(name: string, old: OldDomain): Promise<void> {
    const { users } = this.report
    const isOfIt = ({ address }: { address: string }) => address.endsWith(`@${name}`)
    const isWhole = !users.unfinished.some(isOfIt)
    const { isDryRun } = this.#options
    const other = await completeDomain(this.#db, name, old, { isDryRun, isWhole })
    if (other !== undefined) this.report.otherSettings.push(other)
  }

  /** @throws {Failure} OPERATION_REFUSED */
  async #receive(old: OpenUser): Promise<Arrival> {
    const address = parseAddress(old.address)
    const key = formatAddress(address).toLowerCase()
    const first = this.#seen.get(key)
    if (first !== undefined) throw refused(`the same address is at ${first}`)
    this.#seen.set(key, old.source)
    const quotaOctets = parseQuota(old.quota ?? '')
    const domainId = await this.#places.domainIdOf(address.domainName)
    const present =
      domainId === undefined ? undefined : await selectUser(this.#db, domainId, address.localPart)
    const credential = present?.hashHead === undefined ? this.#credentialOf(old) : undefined
    return { old, address, domainId, present, credential, quotaOctets }
  }

  #credentialOf(old: OpenUser): StoredCredential | undefined {
    const { hash = '', password = '', address } = old
    if (old.isWithoutPassword) return undefined
    try {
      return parseCredential(hash, password)
    } catch (error) {
      if (!isRefusal(error)) throw error
      this.report.users.withoutPassword.push({ address, reason: error.message })
      return undefined
    }
  }

  /** @returns userId; undefined if nobody is there, in a dry run */
  async #settle(arrival: Arrival): Promise<number | undefined> {
    const { users } = this.report
    const { address, domainId, present, quotaOctets, old } = arrival
    const { localPart } = address
    if (present !== undefined) {
      users.present += 1
      return present.userId
    }
    if (this.#options.isDryRun || domainId === undefined) {
      users.added += 1
      return undefined
    }
    // Suspended from the first moment: a run that is cut leaves nobody awake.
    const settings = { ...switchesOf(old.settings), isSuspended: old.isSuspended === true }
    const user = { localPart, passwordHash: undefined, quotaOctets, settings }
    await refusing(() => insertUsers(this.#db, domainId, [user]))
    const added = await selectUser(this.#db, domainId, localPart)
    if (added === undefined) throw refused('was removed meanwhile')
    users.added += 1
    return added.userId
  }

  /** @returns whether all of it was seen */
  async #moveMaildrop(
    { old, address, domainId, present, quotaOctets }: Arrival,
    userId: number | undefined,
    onShare: (share: number) => void,
  ): Promise<boolean> {
    if (old.maildrop === undefined) return true
    const { messages, users } = this.report
    const quota = present === undefined ? quotaOctets : present.quotaOctets
    const room = quota === undefined ? undefined : quota - (present?.octets ?? 0)
    const who = userId === undefined || domainId === undefined ? {} : { domainId, userId }
    const report: ImportReport = { imported: 0, alreadyImported: 0, skipped: [] }
    try {
      const total = await old.maildrop.measure()
      await importItems(
        this.#db,
        { ...who, room },
        {
          ...this.#options,
          items: this.#counting(old.maildrop.messages()),
          onProgress: ({ octets }) => onShare(total > 0 ? Math.min(octets / total, 1) : 0),
        },
        report,
      )
      if (report.unread !== undefined)
        throw refused(`${report.unread} of its messages could not be read: run it again`)
      return true
    } catch (error) {
      if (!isRefusal(error)) throw error
      users.unfinished.push({ address: formatAddress(address), reason: error.message })
      return false
    } finally {
      messages.imported += report.imported
      messages.alreadyImported += report.alreadyImported
      for (const skip of report.skipped)
        messages.skipped.push({ address: formatAddress(address), ...skip })
    }
  }

  async *#counting(items: AsyncIterable<ImportItem>): AsyncGenerator<ImportItem> {
    for await (const item of items) {
      if (!('refusal' in item) && item.uniqueId === undefined) this.report.messages.unseen += 1
      yield item
    }
  }

  /** The password, now that the maildrop is whole. */
  async #admit(arrival: Arrival, userId: number | undefined): Promise<void> {
    const { domainId, credential, present, old } = arrival
    if (domainId === undefined || userId === undefined || this.#options.isDryRun) return
    if (old.settings !== undefined && present?.hashHead === undefined)
      await completeUser(this.#db, { domainId, userId }, old.settings, present)
    if (credential === undefined) return
    const { hash, password } = credential
    const passwordHash = hash ?? (password && (await hashPassword(password)))
    const change = { passwordHash, scramKeys: undefined, apopSecret: undefined }
    await refusing(() => updateUserCredentials(this.#db, domainId, userId, change))
  }
}

/** @throws {Failure} OPERATION_REFUSED */
function parseQuota(text: string): number | undefined {
  if (text === '') return undefined
  const octets = parseOctets(text)
  if (octets === undefined) throw refused(`${JSON.stringify(text)} is no quota`)
  return octets
}
