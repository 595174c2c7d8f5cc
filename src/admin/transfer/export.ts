/**
 * A user's or a domain's mail on its way out: each maildrop as it is at one moment, message by
 * message, into whatever writes it (the formats are the caller's business), and the users with
 * their hashes. Nobody is locked out meanwhile. What cannot be handed over whole is not handed over
 * but named: a damaged message stops nothing, and is never written as if it were one.
 */
import { isFailure } from '../../base/failure.ts'
import type { Database } from '../../storage/postgres/database.ts'
import {
  selectCredentialBackups,
  selectDomainBackup,
  selectUserBackups,
  type UserBackup,
} from '../../storage/tenants/maildrops/backup.ts'
import {
  countMessages,
  type MaildropSnapshot,
  type SnapshotMessage,
  withMaildropSnapshot,
} from '../../storage/tenants/maildrops/maildrop-snapshot.ts'
import { formatAddress, parseAddress, parseDomainName } from '../address.ts'
import { refused } from '../refusal.ts'
import { type ExportedDomain, exportDomain } from './export-domain.ts'

/** Takes one maildrop, in order. */
export interface MaildropWriter {
  /** @throws {Failure} MESSAGE_DAMAGED as the pieces do: then nothing of the message is left */
  write(message: SnapshotMessage): Promise<void>
  /** All messages are there. */
  finish(): Promise<void>
}

export type OpenMaildrop = (
  user: ExportedUser,
  snapshot: MaildropSnapshot,
) => Promise<MaildropWriter>

/** Of a user who has never had mail nor logged in: a directory is there all the same. */
const EMPTY: MaildropSnapshot = {
  messageCount: 0,
  nextUid: 1,
  uidValidity: 0,
  async *messages() {},
}

/** What a user is, but for what only this server can open (APOP and SCRAM). */
interface ExportedUser {
  address: string
  localPart: string
  /** As stored; null: there is no password. */
  hash: string | null
  quotaOctets: number | null
  quotaMessages: number | null
  isSuspended: boolean
  isMainPasswordAllowed: boolean
  loginDelaySeconds: number | null
  expireDays: number | null
  createdAt: Date
  credentials: ExportedCredential[]
  /** How many there are to be found. */
  messages: number
}

/** Of an app password or a certificate; digest: SHA-256 in hex. */
interface ExportedCredential {
  kind: string
  name: string
  digest: string
  expiresAt: Date | null
  networks: string[] | null
}

export interface ExportRequest {
  /** The address of a user, or the name of a domain. */
  whose: string
  openMaildrop: OpenMaildrop
  onProgress?: (messages: number) => void
}

export interface ExportReport {
  /** null: of one user alone */
  domain: ExportedDomain | null
  users: ExportedUser[]
  messages: number
  octets: number
  /** What is not among them, and why. */
  missing: { address: string; uid: number | null; uniqueId: string | null; reason: string }[]
}

/** @throws {Failure} OPERATION_REFUSED if there is no such user or domain */
export async function exportMail(db: Database, request: ExportRequest): Promise<ExportReport> {
  const { domain, users, isWhole } = await findUsers(db, request.whose)
  const domainName = domain.name
  const report: ExportReport = {
    domain: isWhole ? await exportDomain(db, domain) : null,
    ...{ users: [], messages: 0, octets: 0, missing: [] },
  }
  for (const user of users) {
    const exported = await toExported(db, user, domainName)
    const maildrop = { domainId: user.domain_id, userId: user.user_id }
    const before = report.messages
    await withMaildropSnapshot(db, maildrop, async (snapshot = EMPTY) => {
      const writer = await request.openMaildrop(exported, snapshot)
      await copyMaildrop(exported.address, snapshot, writer, report, request.onProgress)
      await writer.finish()
    })
    report.users.push({ ...exported, messages: report.messages - before })
  }
  return report
}

async function copyMaildrop(
  address: string,
  snapshot: MaildropSnapshot,
  writer: MaildropWriter,
  report: ExportReport,
  onProgress: ExportRequest['onProgress'],
): Promise<void> {
  let count = 0
  for await (const message of snapshot.messages()) {
    count++
    try {
      await writer.write(message)
      report.messages++
      report.octets += message.octets
    } catch (error) {
      if (!isFailure(error, 'MESSAGE_DAMAGED')) throw error
      const { uid, uniqueId } = message
      report.missing.push({ address, uid, uniqueId, reason: `damaged: ${error.message}` })
    }
    onProgress?.(report.messages + report.missing.length)
  }
  if (count === snapshot.messageCount) return
  const reason =
    `the counters say that there are ${snapshot.messageCount} messages, but there are ${count}: ` +
    'see "popgres check"'
  report.missing.push({ address, uid: null, uniqueId: null, reason })
}

/** How many messages there are, for the progress. */
export async function measureExport(db: Database, whose: string): Promise<number> {
  const { domain, users } = await findUsers(db, whose)
  return await countMessages(
    db,
    domain.domain_id,
    users.map(({ user_id }) => user_id),
  )
}

async function findUsers(db: Database, whose: string) {
  const address = whose.includes('@') ? parseAddress(whose) : undefined
  const domainName = address?.domainName ?? parseDomainName(whose)
  const domain = await selectDomainBackup(db, domainName)
  if (domain === undefined) throw refused(`there is no domain ${domainName}`)
  const users = await selectUserBackups(db, domain.domain_id, address?.localPart)
  if (address !== undefined && users.length === 0)
    throw refused(`there is no user ${formatAddress(address)}`)
  return { domain, users, isWhole: address === undefined }
}

async function toExported(
  db: Database,
  user: UserBackup,
  domainName: string,
): Promise<ExportedUser> {
  const maildrop = { domainId: user.domain_id, userId: user.user_id }
  const credentials = await selectCredentialBackups(db, maildrop)
  return {
    address: formatAddress({ localPart: user.local_part, domainName }),
    localPart: user.local_part,
    hash: user.password_hash,
    quotaOctets: user.quota_octets,
    quotaMessages: user.quota_messages,
    isSuspended: user.suspended,
    isMainPasswordAllowed: user.main_password_allowed,
    loginDelaySeconds: user.login_delay_seconds,
    expireDays: user.expire_days,
    createdAt: user.created_at,
    messages: 0,
    credentials: credentials.map((each) => ({
      kind: each.kind,
      name: each.name,
      digest: each.digest.toString('hex'),
      expiresAt: each.expires_at,
      networks: each.networks,
    })),
  }
}
