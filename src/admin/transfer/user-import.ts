/**
 * Many users at once. Rows come as text from whatever format they were in; each is either written
 * or refused with a reason, and one that is refused stops nothing. Hashes are taken over in batches
 * of one statement; passwords are hashed first, which takes most of the time (argon2id).
 */
import type { Secret } from '../../base/secret.ts'
import { hashPassword } from '../../mail/auth/argon2.ts'
import type { Database } from '../../storage/postgres/database.ts'
import { selectDomain } from '../../storage/tenants/domains.ts'
import {
  insertUsers,
  type NewUser,
  selectTakenLocalParts,
  type UserSettings,
} from '../../storage/tenants/users.ts'
import { type Address, formatAddress, parseAddress } from '../address.ts'
import { parseOctets } from '../octets.ts'
import { isRefusal, refused, refusing } from '../refusal.ts'
import { parseCredential } from './stored-credential.ts'

/** One row as text; empty is as good as absent. */
export type UserImportRow =
  | {
      line: number
      address: string
      password: string
      hash: string
      quota: string
      settings?: UserSettings
    }
  | { line: number; problem: string }

export interface UserImportReport {
  added: number
  refused: { line: number; address: string; reason: string }[]
}

export interface UserImportOptions {
  /** Everything is looked at, nothing written. */
  isDryRun: boolean
  /** @param rows how many are done, refused ones included */
  onProgress?: (rows: number) => void
}

/** LIMIT: rows of one statement; nine parameters each, and the protocol allows 65,535. */
const BATCH_ROWS = 500
/** Hashing this many takes half a second: progress moves, and little is lost when it is stopped. */
const BATCH_PASSWORDS = 16

interface ParsedRow {
  line: number
  address: Address
  password: Secret | undefined
  hash: string | undefined
  quotaOctets: number | undefined
  settings: UserSettings | undefined
}

export async function importUsers(
  db: Database,
  rows: AsyncIterable<UserImportRow>,
  options: UserImportOptions,
): Promise<UserImportReport> {
  const importing = new UserImport(db, options)
  for await (const row of rows) await importing.take(row)
  return importing.finish()
}

class UserImport {
  readonly #db: Database
  readonly #options: UserImportOptions
  readonly #report: UserImportReport = { added: 0, refused: [] }
  /** Domain ids by name; undefined: there is none of that name. */
  readonly #domainIds = new Map<string, number | undefined>()
  /** Line of the first row with an address, in lower case. */
  readonly #seen = new Map<string, number>()
  #batch: ParsedRow[] = []
  #passwords = 0
  #done = 0

  constructor(db: Database, options: UserImportOptions) {
    this.#db = db
    this.#options = options
  }

  async take(row: UserImportRow): Promise<void> {
    const address = 'problem' in row ? '' : row.address
    try {
      const parsed = parseRow(row)
      await this.#checkDomain(parsed.address.domainName)
      this.#checkSeen(parsed)
      this.#batch.push(parsed)
      if (parsed.password !== undefined) this.#passwords += 1
    } catch (error) {
      this.#refuse(row.line, address, error)
    }
    if (this.#batch.length >= BATCH_ROWS || this.#passwords >= BATCH_PASSWORDS) await this.#flush()
  }

  async finish(): Promise<UserImportReport> {
    await this.#flush()
    this.#report.refused.sort((a, b) => a.line - b.line)
    return this.#report
  }

  async #checkDomain(name: string): Promise<void> {
    if (!this.#domainIds.has(name))
      this.#domainIds.set(name, (await selectDomain(this.#db, name))?.domainId)
    if (this.#domainIds.get(name) === undefined)
      throw refused(`there is no domain ${name}: add it with "popgres domain add ${name}"`)
  }

  #checkSeen({ line, address }: ParsedRow): void {
    const key = formatAddress(address).toLowerCase()
    const first = this.#seen.get(key)
    if (first !== undefined) throw refused(`the same address is on line ${first}`)
    this.#seen.set(key, line)
  }

  async #flush(): Promise<void> {
    const byDomain = new Map<string, ParsedRow[]>()
    for (const row of this.#batch) {
      const rows = byDomain.get(row.address.domainName)
      if (rows === undefined) byDomain.set(row.address.domainName, [row])
      else rows.push(row)
    }
    this.#batch = []
    this.#passwords = 0
    for (const [domainName, rows] of byDomain)
      await this.#flushDomain(this.#domainIds.get(domainName) as number, rows)
  }

  async #flushDomain(domainId: number, rows: readonly ParsedRow[]): Promise<void> {
    const localParts = rows.map((row) => row.address.localPart)
    const taken = await selectTakenLocalParts(this.#db, domainId, localParts)
    const free = rows.filter((row) => {
      const isFree = !taken.has(row.address.localPart.toLowerCase())
      if (!isFree) this.#refuseRow(row, refused('exists already'))
      return isFree
    })
    if (this.#options.isDryRun) {
      for (const _ of free) this.#countAdded()
      return
    }
    const users = await Promise.all(free.map(toUser))
    if (users.length > 0) await this.#insert(domainId, free, users)
  }

  async #insert(
    domainId: number,
    rows: readonly ParsedRow[],
    users: readonly NewUser[],
  ): Promise<void> {
    try {
      const inserted = await refusing(() => insertUsers(this.#db, domainId, users))
      for (const row of rows) {
        if (inserted.has(row.address.localPart)) this.#countAdded()
        else this.#refuseRow(row, refused('exists already'))
      }
    } catch (error) {
      if (!isRefusal(error)) throw error
      // The statement was refused as a whole because of one row: halve until it is found.
      const [row, ...others] = rows
      if (row !== undefined && others.length === 0) return this.#refuseRow(row, error)
      const middle = Math.ceil(rows.length / 2)
      await this.#insert(domainId, rows.slice(0, middle), users.slice(0, middle))
      await this.#insert(domainId, rows.slice(middle), users.slice(middle))
    }
  }

  #countAdded(): void {
    this.#report.added += 1
    this.#advance()
  }

  #refuseRow(row: ParsedRow, error: unknown): void {
    this.#refuse(row.line, formatAddress(row.address), error)
  }

  #refuse(line: number, address: string, error: unknown): void {
    if (!isRefusal(error)) throw error
    this.#report.refused.push({ line, address, reason: error.message })
    this.#advance()
  }

  #advance(): void {
    this.#done += 1
    this.#options.onProgress?.(this.#done)
  }
}

async function toUser({ address, hash, password, ...row }: ParsedRow): Promise<NewUser> {
  const passwordHash = hash ?? (password && (await hashPassword(password)))
  const { quotaOctets, settings } = row
  return { localPart: address.localPart, passwordHash, quotaOctets, settings }
}

/** @throws {Failure} OPERATION_REFUSED with the reason */
function parseRow(row: UserImportRow): ParsedRow {
  if ('problem' in row) throw refused(row.problem)
  const address = parseAddress(row.address)
  const { hash, password } = parseCredential(row.hash, row.password)
  const quotaOctets = row.quota === '' ? undefined : parseOctets(row.quota)
  if (row.quota !== '' && quotaOctets === undefined)
    throw refused(`${JSON.stringify(row.quota)} is no quota: it is written 500M, 1.5G or in octets`)
  return { line: row.line, address, password, hash, quotaOctets, settings: row.settings }
}
