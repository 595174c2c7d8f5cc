/**
 * Hands back one domain, one user or what one session deleted, from a backup that runs as a second
 * database, into the living one. What is there already stays as it is, so a run that was cut is
 * just run again, and several may run at once. Quotas do not count here: it is the operator's will.
 */
import { isFailure } from '../../base/failure.ts'
import type { Database } from '../../storage/postgres/database.ts'
import { sqlStateOf } from '../../storage/postgres/sqlstate.ts'
import {
  checkSameSchema,
  type DomainBackup,
  insertDomainBackup,
  insertMaildropBackup,
  insertUserBackup,
  type Maildrop,
  type MaildropBackup,
  type MessageBackup,
  selectCredentialBackups,
  selectDomainBackup,
  selectMaildropBackup,
  selectMessageBackups,
  selectUserBackups,
  type UserBackup,
} from '../../storage/tenants/maildrops/backup.ts'
import {
  copyBody,
  insertMessageBackups,
  selectMissing,
} from '../../storage/tenants/maildrops/put-back.ts'
import { formatAddress, parseAddress, parseDomainName } from '../address.ts'
import { refused } from '../refusal.ts'
import { findSession } from '../session-prefix.ts'

export interface RestoreRequest {
  /** The address of a user, or the name of a domain. */
  whose: string
  /** Only what this session deleted, or one whose id begins so; undefined: what lay there. */
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
  /** Of these: under a new uid and unique-id, as other messages have theirs by now. */
  renumbered: number
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
const CHANGED = 'something was added or removed meanwhile: run it again'
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
  const sessionId = request.sessionId && (await requireSession(backup, request, domain, users))
  const present = await selectDomainBackup(db, name)
  const made = present || isDryRun ? undefined : await insertDomainBackup(db, domain)
  const domainId = made ?? (present ?? (await selectDomainBackup(db, name)))?.domain_id
  if (domainId === undefined && !isDryRun) throw refused(CHANGED)
  const isDomainRestored = made !== undefined || domainId === undefined
  const report: RestoreReport = { isDomainRestored, users: [] }
  for (const user of users ?? []) {
    const run = new UserRestore(db, backup, { ...request, sessionId }, domain, user)
    report.users.push(await run.run(domainId))
    request.onProgress?.({ done: report.users.length, total: users?.length ?? 0 })
  }
  return report
}

async function requireSession(
  backup: Database,
  { whose, sessionId: prefix = '' }: RestoreRequest,
  domain: DomainBackup,
  users: readonly UserBackup[] = [],
): Promise<string> {
  const userId = whose.includes('@') ? users[0]?.user_id : undefined
  const found = await findSession(backup, { domainId: domain.domain_id, userId }, prefix)
  if (found !== undefined) return found
  throw refused(
    `the backup's trash has nothing of ${whose} that a session ${prefix} deleted: it must be of ` +
      'after the session, and within the trash days',
  )
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
    const counts = { restored: 0, renumbered: 0, alreadyThere: 0 }
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
    if (userId !== undefined) return { domainId, userId }
    this.#report.isUserRestored = false
    const [made] = await selectUserBackups(this.#db, domainId, this.#user.local_part)
    if (made === undefined) throw refused(CHANGED)
    return { domainId, userId: made.user_id }
  }

  async #putBack(
    target: Maildrop,
    messages: readonly MessageBackup[],
    isSame: boolean,
  ): Promise<void> {
    const report = this.#report
    const backup = { db: this.#backup, domainId: this.#domain.domain_id }
    const missing = await selectMissing(this.#db, target, backup, messages, isSame)
    report.alreadyThere += messages.length - missing.length
    if (missing.length === 0) return
    const renumbered = missing.filter(({ isTaken }) => isTaken).length
    if (this.#request.isDryRun) {
      report.restored += missing.length
      report.renumbered += renumbered
      return
    }
    for (const { message } of missing) {
      const { body_id: bodyId, body_octets: bodyOctets } = message
      const source = { domainId: backup.domainId, bodyId, bodyOctets }
      await copyBody(this.#db, target.domainId, this.#backup, source)
    }
    const put = await insertMessageBackups(this.#db, target, missing, isSame).catch(explainSwept)
    if (put === undefined) report.isInUse = true
    else {
      report.restored += put.restored
      report.renumbered += put.renumbered
      report.alreadyThere += missing.length - put.restored
    }
  }
}

/** In another maildrop its derived unique-id would be another's. */
function withOldUniqueId(message: MessageBackup, was: MaildropBackup): MessageBackup {
  return { ...message, unique_id: message.unique_id ?? `${was.uid_validity}.${message.uid}` }
}

function explainSwept(error: unknown): never {
  if (!isFailure(error, 'STORAGE_REFUSED') || sqlStateOf(error) !== FOREIGN_KEY_VIOLATION)
    throw error
  throw refused(CHANGED, error)
}
