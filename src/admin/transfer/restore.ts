/**
 * Hands back one domain, one user or what one session deleted, from a backup that runs as a second
 * database, into the living one. What is there already stays as it is, so a run that was cut is
 * just run again. Quotas do not count here: it is the operator's will.
 */
import { isFailure } from '../../base/failure.ts'
import type { Database } from '../../storage/postgres/database.ts'
import { sqlStateOf } from '../../storage/postgres/sqlstate.ts'
import {
  checkSameSchema,
  copyBody,
  type DomainBackup,
  insertDomainBackup,
  insertMaildropBackup,
  insertMessageBackups,
  insertUserBackup,
  type Maildrop,
  type MaildropBackup,
  type MessageBackup,
  selectCredentialBackups,
  selectDomainBackup,
  selectMaildropBackup,
  selectMessageBackups,
  selectMissing,
  selectUserBackups,
  type UserBackup,
} from '../../storage/tenants/maildrops/backup.ts'
import { formatAddress, parseAddress, parseDomainName } from '../address.ts'
import { refused } from '../refusal.ts'

export interface RestoreRequest {
  /** The address of a user, or the name of a domain. */
  whose: string
  /** Only what this session deleted; undefined: what lay in the maildrops. */
  sessionId: string | undefined
  /** Nothing is written; the report says what would be. */
  isDryRun: boolean
  onProgress?: (users: { done: number; total: number }) => void
}

export interface RestoredUser {
  address: string
  /** The user was missing and is back, with password and app passwords. */
  isUserRestored: boolean
  restored: number
  alreadyThere: number
  /** The maildrop is open in a session: run it again later. */
  isInUse: boolean
}

export interface RestoreReport {
  isDomainRestored: boolean
  users: RestoredUser[]
}

/** Messages a transaction. */
const BATCH = 200
const FOREIGN_KEY_VIOLATION = '23503'
const MAILDROP_OF_NOBODY: Maildrop = { domainId: 0, userId: 0 }

/**
 * @param backup as it was; only read
 * @throws {Failure} OPERATION_REFUSED if the backup knows nothing of it; MESSAGE_DAMAGED
 */
export async function restore(
  db: Database,
  backup: Database,
  request: RestoreRequest,
): Promise<RestoreReport> {
  await checkSameSchema(db, backup)
  const { whose, isDryRun } = request
  const address = whose.includes('@') ? parseAddress(whose) : undefined
  const name = address?.domainName ?? parseDomainName(whose)
  const domain = await selectDomainBackup(backup, name)
  const users = domain && (await selectUserBackups(backup, domain.domain_id, address?.localPart))
  if (domain === undefined || (address !== undefined && users?.length === 0))
    throw refused(`the backup has no ${address === undefined ? 'domain' : 'user'} ${whose}`)
  const present = await selectDomainBackup(db, name)
  const isDomainRestored = present === undefined
  const domainId =
    present?.domain_id ?? (isDryRun ? undefined : await insertDomainBackup(db, domain))
  const report: RestoreReport = { isDomainRestored, users: [] }
  for (const user of users ?? []) {
    const run = new UserRestore(db, backup, request, domain, user)
    report.users.push(await run.run(domainId))
    request.onProgress?.({ done: report.users.length, total: users?.length ?? 0 })
  }
  return report
}

class UserRestore {
  readonly #db: Database
  readonly #backup: Database
  readonly #request: RestoreRequest
  readonly #domain: DomainBackup
  readonly #user: UserBackup
  readonly #source: Maildrop
  readonly #report: RestoredUser

  constructor(
    db: Database,
    backup: Database,
    request: RestoreRequest,
    domain: DomainBackup,
    user: UserBackup,
  ) {
    this.#db = db
    this.#backup = backup
    this.#request = request
    this.#domain = domain
    this.#user = user
    this.#source = { domainId: user.domain_id, userId: user.user_id }
    const address = formatAddress({ localPart: user.local_part, domainName: domain.name })
    const counts = { restored: 0, alreadyThere: 0 }
    this.#report = { address, isUserRestored: false, ...counts, isInUse: false }
  }

  /** @param domainId undefined: in a dry run the domain is not there */
  async run(domainId: number | undefined): Promise<RestoredUser> {
    const was = await selectMaildropBackup(this.#backup, this.#source)
    const target = await this.#findOrMake(domainId)
    if (was !== undefined && !this.#request.isDryRun)
      await insertMaildropBackup(this.#db, target, was)
    const now = await selectMaildropBackup(this.#db, target)
    const isSame = now === undefined || now.uid_validity === was?.uid_validity
    const { sessionId } = this.#request
    for (let afterUid = 0; !this.#report.isInUse; ) {
      const page = { sessionId, afterUid, limit: BATCH }
      const found = await selectMessageBackups(this.#backup, this.#source, page)
      const last = found.at(-1)
      if (last === undefined || was === undefined) break
      afterUid = last.uid
      const named = isSame ? found : found.map((message) => withOldUniqueId(message, was))
      await this.#putBack(target, named, isSame)
    }
    return this.#report
  }

  async #findOrMake(domainId: number | undefined): Promise<Maildrop> {
    const present =
      domainId === undefined
        ? []
        : await selectUserBackups(this.#db, domainId, this.#user.local_part)
    const [user] = present
    if (domainId !== undefined && user !== undefined) return { domainId, userId: user.user_id }
    this.#report.isUserRestored = true
    if (domainId === undefined || this.#request.isDryRun) return MAILDROP_OF_NOBODY
    const credentials = await selectCredentialBackups(this.#backup, this.#source)
    const userId = await insertUserBackup(this.#db, domainId, this.#user, credentials)
    return { domainId, userId }
  }

  async #putBack(
    target: Maildrop,
    messages: readonly MessageBackup[],
    isSame: boolean,
  ): Promise<void> {
    const report = this.#report
    const missing = await selectMissing(this.#db, target, messages, isSame)
    report.alreadyThere += messages.length - missing.length
    if (missing.length === 0) return
    if (this.#request.isDryRun) {
      report.restored += missing.length
      return
    }
    for (const { body_id: bodyId, body_octets: bodyOctets } of missing) {
      const source = { domainId: this.#domain.domain_id, bodyId, bodyOctets }
      await copyBody(this.#db, target.domainId, this.#backup, source)
    }
    const put = await insertMessageBackups(this.#db, target, missing, isSame).catch(explainSwept)
    if (put === undefined) report.isInUse = true
    else report.restored += put
  }
}

/** In another maildrop its derived unique-id would be another's. */
function withOldUniqueId(message: MessageBackup, was: MaildropBackup): MessageBackup {
  return { ...message, unique_id: message.unique_id ?? `${was.uid_validity}.${message.uid}` }
}

function explainSwept(error: unknown): never {
  if (!isFailure(error, 'STORAGE_REFUSED') || sqlStateOf(error) !== FOREIGN_KEY_VIOLATION)
    throw error
  throw refused('something was removed meanwhile: run it again', error)
}
