/**
 * The users and messages of a DBMail. It keeps a message in parts without the lines between them:
 * the boundaries are put back as DBMail does when it sends one. What its POP3 called a message is
 * kept as unique_id.
 */
import { type ImportItem, UnreadableMessage } from '../../admin/transfer/import-messages.ts'
import type { OldUser } from '../../admin/transfer/move-in.ts'
import {
  type DbmailPart,
  type DbmailUser,
  readDbmailBlocks,
  readDbmailMessages,
  readDbmailPart,
  readDbmailParts,
  readDbmailUsers,
} from '../../storage/postgres/dbmail-tables.ts'
import type { OtherDatabase } from '../../storage/postgres/other-database.ts'
import { addressOf } from './old-users.ts'

export async function readDbmail(
  db: OtherDatabase,
  { domain, hasMail }: { domain: string | undefined; hasMail: boolean },
): Promise<OldUser[]> {
  const users: OldUser[] = []
  for await (const user of readDbmailUsers(db)) {
    const { name, alias, quotaOctets, userId } = user
    const maildrop = {
      measure: () => measure(db, userId),
      messages: () => readMessages(db, userId),
    }
    users.push({
      source: `dbmail_users ${userId}`,
      address: name.includes('@') ? name : (alias ?? addressOf(name, domain)),
      ...credentialOf(user),
      quota: quotaOctets === '0' ? '' : quotaOctets,
      maildrop: hasMail ? maildrop : undefined,
    })
  }
  return users
}

/** As dbmail-users writes encryption_type. */
function credentialOf({ password, encryption }: DbmailUser): { hash?: string; password?: string } {
  switch (encryption) {
    case '':
      return { password }
    case 'crypt':
    case 'md5':
      return { hash: /^[\da-f]{32}$/i.test(password) ? `{PLAIN-MD5}${password}` : password }
    case 'md5sum':
      return { hash: `{PLAIN-MD5}${password}` }
    case 'md5base64':
      return { hash: `{LDAP-MD5}${password}` }
    default:
      return { hash: `{${encryption.toUpperCase()}}${password}` }
  }
}

async function measure(db: OtherDatabase, userId: string): Promise<number> {
  let sum = 0
  for await (const { octets } of readDbmailMessages(db, userId)) sum += octets
  return sum
}

async function* readMessages(db: OtherDatabase, userId: string): AsyncGenerator<ImportItem> {
  for await (const message of readDbmailMessages(db, userId))
    yield {
      source: `dbmail_messages ${message.messageId}`,
      sourceOctets: message.octets,
      receivedAt: message.receivedAt,
      uniqueId: message.uniqueId,
      isRemote: true,
      open: () => readMessage(db, message.physmessageId),
    }
}

async function* readMessage(db: OtherDatabase, physmessageId: string): AsyncGenerator<Buffer> {
  const parts = await readDbmailParts(db, physmessageId)
  if (parts.length > 0) return yield* joinParts(db, parts)
  let hasBlocks = false
  for await (const block of readDbmailBlocks(db, physmessageId)) {
    hasBlocks = true
    yield block
  }
  if (!hasBlocks) throw new UnreadableMessage(`physmessage ${physmessageId} has no parts`)
}

async function* joinParts(db: OtherDatabase, parts: readonly DbmailPart[]): AsyncGenerator<Buffer> {
  const seams = new Seams()
  for (const part of parts) {
    if (!part.isHeader) {
      yield seams.beforeBody(part.depth)
      yield* readDbmailPart(db, part)
      continue
    }
    const pieces: Buffer[] = []
    for await (const piece of readDbmailPart(db, part)) pieces.push(piece)
    const header = Buffer.concat(pieces)
    yield seams.beforeHeader(part.depth, header.toString('latin1'))
    yield header
    yield Buffer.from('\n')
  }
  yield seams.atEnd()
}

/** The lines between parts. */
class Seams {
  /** Of the multipart at each depth, and whether a part of it has begun; gone when it ends. */
  readonly #open = new Map<number, { boundary: string; hasParts: boolean }>()
  #depth = 0
  /** The header of a message inside follows at once. */
  #isMessageNext = false

  beforeHeader(depth: number, header: string): Buffer {
    let seam = this.#closeTo(depth)
    const around = this.#open.get(depth - 1)
    if (around !== undefined && !this.#isMessageNext) {
      around.hasParts = true
      seam += `\n--${around.boundary}\n`
    }
    const boundary = boundaryOf(header)
    if (boundary !== undefined) this.#open.set(depth, { boundary, hasParts: false })
    this.#isMessageNext = /^content-type:[ \t]*message\/rfc\d+/im.test(header)
    return Buffer.from(seam, 'latin1')
  }

  beforeBody(depth: number): Buffer {
    this.#isMessageNext = false
    return Buffer.from(this.#closeTo(depth), 'latin1')
  }

  atEnd(): Buffer {
    return Buffer.from(this.#close(0), 'latin1')
  }

  /** What is at a smaller depth than the part before ends the multiparts between. */
  #closeTo(depth: number): string {
    const isDeeper = this.#depth > depth
    this.#depth = depth
    return isDeeper ? this.#close(depth) : ''
  }

  #close(depth: number): string {
    const depths = [...this.#open.keys()].filter((each) => each >= depth)
    let seam = ''
    for (const each of depths.sort((one, other) => other - one)) {
      const closed = this.#open.get(each)
      if (closed?.hasParts) seam += `\n--${closed.boundary}--\n`
      this.#open.delete(each)
    }
    return seam
  }
}

function boundaryOf(header: string): string | undefined {
  const field = /^content-type:((?:[^\r\n]|\r?\n[ \t])*)/im.exec(header)?.[1]
  const [, quoted, bare] = /;\s*boundary\s*=\s*(?:"([^"]*)"|([^\s;"]+))/i.exec(field ?? '') ?? []
  return quoted ?? bare
}
