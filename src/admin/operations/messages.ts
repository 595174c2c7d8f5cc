/**
 * What an operator does with the messages of one maildrop. A message is named by its uid, which
 * never changes and is never used again; or by the unique-id that UIDL shows; where a number could
 * be both, it has to be said. Numbers 1 to n belong
 * to one session of one client, so they name nothing here.
 */
import { STRETCH_OCTETS, selectStretch } from '../../storage/bodies.ts'
import { type StoredMessage, selectMessages } from '../../storage/messages.ts'
import type { Database } from '../../storage/postgres/database.ts'
import { sqlStateOf } from '../../storage/postgres/sqlstate.ts'
import {
  deleteMessageRows,
  selectMessageList,
} from '../../storage/tenants/maildrops/message-list.ts'
import { selectTrace, type TracedMessage } from '../../storage/tenants/maildrops/trash.ts'
import { deleteSession } from '../../storage/tenants/sessions.ts'
import { formatAddress } from '../address.ts'
import { refuseHeld } from '../held.ts'
import { refused, refusing } from '../refusal.ts'
import { readSubject } from '../subject.ts'
import { requireUser } from './users.ts'

export interface MessageSummary {
  uid: number
  octets: number
  uniqueId: string
  receivedAt: Date
  subject: string
}

export interface MessagePage {
  messages: MessageSummary[]
  /** There are more, after the last uid. */
  hasMore: boolean
}

const OBJECT_IN_USE = '55006'

export async function listMessages(
  db: Database,
  address: string,
  page: { afterUid: number; limit: number },
): Promise<MessagePage> {
  const { row } = await requireUser(db, address)
  const { afterUid, limit } = page
  const rows = await selectMessageList(db, row.domainId, row.userId, afterUid, limit + 1)
  const messages = rows.slice(0, limit).map(({ uid, octets, uniqueId, receivedAt, head }) => {
    return { uid, octets, uniqueId, receivedAt, subject: readSubject(head) }
  })
  return { messages, hasMore: rows.length > limit }
}

/**
 * The message as RETR sends it (without dot-stuffing), in pieces of at most 8 KiB.
 * @param id uid or unique-id
 * @throws {Failure} OPERATION_REFUSED if it is not there; MESSAGE_DAMAGED in the middle of it
 */
export async function readMessage(
  db: Database,
  address: string,
  id: string,
): Promise<{ octets: number; pieces: AsyncIterable<Buffer> }> {
  const { row } = await requireUser(db, address)
  const uid = (await findMessage(db, row, id))?.uid
  const found =
    uid === undefined
      ? []
      : await selectMessages(db, row.domainId, row.userId, [uid], STRETCH_OCTETS)
  const [message] = found
  if (message === undefined)
    throw refused(`there is no message ${id} of ${address}: see "popgres message list ${address}"`)
  return { octets: message.octets, pieces: readPieces(db, row.domainId, message) }
}

/**
 * Moves messages to the trash, as if the user had deleted them.
 * @param ids uids or unique-ids
 * @param isKick ends the user's session first, instead of refusing while there is one
 * @returns how many were deleted, and the ids that were not there
 */
export async function deleteMessages(
  db: Database,
  address: string,
  ids: readonly string[],
  isKick: boolean,
): Promise<{ deleted: number; missing: string[] }> {
  const { row, domainName } = await requireUser(db, address)
  await refuseHeld(db, row.domainId, row.userId)
  const uids = new Set<number>()
  const missing: string[] = []
  for (const id of ids) {
    const uid = (await findMessage(db, row, id))?.uid
    const found =
      uid === undefined ? [] : await selectMessages(db, row.domainId, row.userId, [uid], 0)
    if (found.length === 0 || uid === undefined) missing.push(id)
    else uids.add(uid)
  }
  if (isKick) await deleteSession(db, row.domainId, row.userId)
  const kept = formatAddress({ localPart: row.localPart, domainName })
  try {
    return { deleted: await refusing(() => deleteMessageRows(db, kept, [...uids])), missing }
  } catch (error) {
    if (sqlStateOf(error) !== OBJECT_IN_USE) throw error
    const line = `${kept} has its maildrop open: wait, or end the session with --kick`
    throw refused(line, error)
  }
}

/**
 * The message that an operator names: `uid:3`, `id:3`, or what can be only one of the two.
 * @throws {Failure} OPERATION_REFUSED if one message has that uid and another that unique-id
 */
export async function findMessage(
  db: Database,
  maildrop: { domainId: number; userId: number },
  name: string,
): Promise<TracedMessage | undefined> {
  const [, kind, rest = name] = /^(?:(uid):(?=\d+$)|id:)?(.*)$/s.exec(name) ?? []
  const isMarked = rest !== name
  const isUid = /^\d{1,10}$/.test(rest) && (kind !== undefined || !isMarked)
  const isUniqueId = kind === undefined
  const byUid = isUid ? await selectTrace(db, maildrop, { uid: Number(rest) }) : undefined
  const byId = isUniqueId ? await selectTrace(db, maildrop, { uniqueId: rest }) : undefined
  if (byUid !== undefined && byId !== undefined && byUid.uid !== byId.uid)
    throw refused(
      `${name} is the UID of one message and the unique-id of another: write uid:${name} or ` +
        `id:${name}`,
    )
  return byUid ?? byId
}

async function* readPieces(
  db: Database,
  domainId: number,
  message: StoredMessage,
): AsyncGenerator<Buffer> {
  const { prefix, bodyOctets, content } = message
  if (prefix.length > 0) yield prefix
  if (content !== undefined) {
    yield* content
    return
  }
  for (let nth = 0; nth * STRETCH_OCTETS < bodyOctets; nth += 1)
    yield* await selectStretch(db, domainId, message, nth)
}
