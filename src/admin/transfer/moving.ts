/**
 * What an operator does about domains that migrate (mail/moving): begin, look, end. And the copy of
 * one maildrop from another POP3 server, for whoever has its password.
 */
import type { Secret } from '../../base/secret.ts'
import { type CopyReport, type CopyRequest, copyMaildrop } from '../../mail/moving/maildrop-copy.ts'
import { formatOldServer, type OldServer, parseOldServer } from '../../remote/old-server.ts'
import { Pop3Client } from '../../remote/pop3-client.ts'
import type { Database } from '../../storage/postgres/database.ts'
import {
  deleteOldServer,
  selectMoveCounts,
  selectOldServer,
  selectWaitingUsers,
  upsertOldServer,
} from '../../storage/tenants/old-servers.ts'
import { insertUsers } from '../../storage/tenants/users.ts'
import { formatAddress, parseAddress } from '../address.ts'
import { requireDomain } from '../operations/domains.ts'
import { requireUser } from '../operations/users.ts'
import { refused, refusing } from '../refusal.ts'

/** LIMIT: rows of one statement. */
const BATCH_ROWS = 500

/** How an operator names an old server. */
export interface OldServerRequest {
  /** `pop3s://host[:port]` or `pop3://host[:port]` */
  from: string
  /** TLS after STLS, on a pop3:// port */
  isStls: boolean
  /** passwords may go in the clear */
  isPlain: boolean
  /** PEM */
  authority: string | undefined
}

export interface MigrationRequest extends OldServerRequest {
  userFormat: 'full' | 'local'
  makesUsers: boolean
  connectionsMax: number
}

/** As it is shown. */
export interface Migration {
  domain: string
  from: string
  security: OldServer['security']
  hasOwnAuthority: boolean
  userFormat: 'full' | 'local'
  makesUsers: boolean
  connectionsMax: number
  since: Date
  /** Users who have a password here. */
  moved: number
  /** Users who are known here and have not. */
  waiting: number
}

/** What the old server says of itself. */
export interface OldServerTraits {
  hasUniqueIds: boolean | undefined
  isPipelining: boolean
}

/**
 * Begins, or changes from where; nodes see it within 10 seconds.
 * @throws {Failure} OPERATION_REFUSED, or OLD_SERVER_AWAY: it is asked what it can
 */
export async function beginMigration(
  db: Database,
  domainName: string,
  request: MigrationRequest,
): Promise<Migration & { traits: OldServerTraits }> {
  const { domainId, name } = await requireDomain(db, domainName)
  const server = toOldServer(request)
  const { userFormat, makesUsers, connectionsMax } = request
  const client = await Pop3Client.connect(server)
  const { hasUniqueIds, isPipelining } = client
  await client.quit()
  await refusing(() =>
    upsertOldServer(db, domainId, { ...server, userFormat, makesUsers, connectionsMax }),
  )
  return { ...(await showMigration(db, name)), traits: { hasUniqueIds, isPipelining } }
}

/** @throws {Failure} OPERATION_REFUSED if the domain does not migrate */
export async function showMigration(db: Database, domainName: string): Promise<Migration> {
  const found = await findMigration(db, domainName)
  if (found === undefined)
    throw refused(`${domainName} does not migrate: see "popgres domain migrate --help"`)
  return found
}

/** @returns undefined if the domain does not migrate */
export async function findMigration(
  db: Database,
  domainName: string,
): Promise<Migration | undefined> {
  const { domainId, name: domain } = await requireDomain(db, domainName)
  const row = await selectOldServer(db, domainId)
  if (row === undefined) return undefined
  const { host, port, authority, ...shown } = row
  const from = formatOldServer(row)
  const hasOwnAuthority = authority !== undefined
  return { domain, from, hasOwnAuthority, ...shown, ...(await selectMoveCounts(db, domainId)) }
}

/** Addresses of who is known here and has not moved yet. */
export async function listWaiting(db: Database, domainName: string): Promise<string[]> {
  const { domainId, name } = await requireDomain(db, domainName)
  const localParts = await selectWaitingUsers(db, domainId)
  return localParts.map((localPart) => formatAddress({ localPart, domainName: name }))
}

/**
 * Makes users without a password, so that mail for them is taken before they have moved.
 * @param lines addresses of the domain or local parts; empty ones are passed over
 * @returns how many there are new
 * @throws {Failure} OPERATION_REFUSED, with nothing made, for a line that is neither
 */
export async function expectUsers(
  db: Database,
  domainName: string,
  lines: readonly string[],
): Promise<number> {
  const { domainId, name } = await requireDomain(db, domainName)
  const names = lines.map((line) => line.trim()).filter((line) => line !== '')
  const users = names.map((text) => {
    const address = parseAddress(text.includes('@') ? text : `${text}@${name}`)
    if (address.domainName !== name) throw refused(`${text} is not of ${name}: nothing was made`)
    return { localPart: address.localPart, passwordHash: undefined, quotaOctets: undefined }
  })
  let made = 0
  for (let at = 0; at < users.length; at += BATCH_ROWS)
    made += (await refusing(() => insertUsers(db, domainId, users.slice(at, at + BATCH_ROWS)))).size
  return made
}

/**
 * @param isForced although some have not moved: they cannot log in then until they get a password
 * @returns as it was
 */
export async function endMigration(
  db: Database,
  domainName: string,
  isForced: boolean,
): Promise<Migration> {
  const migration = await showMigration(db, domainName)
  if (migration.waiting > 0 && !isForced)
    throw refused(
      `users of ${migration.domain} who have not moved yet: ${migration.waiting} (--waiting ` +
        'lists them). They could not log in: nothing was changed; --yes ends it all the same',
    )
  const { domainId } = await requireDomain(db, domainName)
  await deleteOldServer(db, domainId)
  return migration
}

export interface RemoteImportRequest
  extends OldServerRequest,
    Pick<CopyRequest, 'messageMaxOctets' | 'isDryRun' | 'onProgress'> {
  address: string
  /** As the old server calls the user. */
  remoteUser: string
  password: Secret
}

/**
 * Copies one maildrop; what is in already is not brought in twice.
 * @throws {Failure} OPERATION_REFUSED; OLD_SERVER_AWAY or a storage failure in the middle: run it
 *   again
 */
export async function importRemote(
  db: Database,
  request: RemoteImportRequest,
): Promise<CopyReport> {
  const { remoteUser, password, ...rest } = request
  const user = (await requireUser(db, request.address)).row
  if (!/^[\x21-\x7e]{1,255}$/.test(remoteUser))
    throw refused('the name of the remote user has 1 to 255 printable characters, no blanks')
  const client = await Pop3Client.connect(toOldServer(request))
  try {
    const answer = await client.logIn(remoteUser, password)
    if (answer.kind === 'refused')
      throw refused(`${request.from} does not let ${remoteUser} in: ${answer.reply}`)
    const { domainId, userId } = user
    const report = await copyMaildrop(db, client, { ...rest, domainId, userId })
    await client.quit()
    return report
  } finally {
    client.close()
  }
}

/** @throws {Failure} OPERATION_REFUSED */
function toOldServer({ from, isStls, isPlain, authority }: OldServerRequest): OldServer {
  const parsed = parseOldServer(from)
  if (parsed === undefined)
    throw refused(`${JSON.stringify(from)} is not pop3s://host[:port] or pop3://host[:port]`)
  const { host, port, isTls } = parsed
  if (isTls && (isStls || isPlain))
    throw refused('pop3s:// is TLS from the first octet: drop --stls')
  if (!isTls && !isStls && !isPlain)
    throw refused('passwords would go in the clear: give pop3s://, --stls, or --plain if they may')
  const security = isTls ? 'tls' : isStls ? 'stls' : 'none'
  return { host, port, security, authority }
}
