/**
 * Reading a maildrop. The list of a session travels packed, eight octets a message, page by page,
 * and stays typed arrays: 100,000 messages in 25 ms and 800 kB, where rows of text took four times
 * as long, and a million hold no more than their arrays and a page. Messages themselves are read a
 * few at a time; larger bodies follow stretch by stretch (bodies.ts).
 */
import { octetsOf, STRETCH_CHUNKS, STRETCH_OCTETS } from './bodies.ts'
import type { Database, Statement } from './postgres/database.ts'
import { decodeInt4, decodeUuid, encodeNumbers, present } from './postgres/decode.ts'
import type { RowMemory } from './postgres/row-memory.ts'

/** Ascending by uid: index i of both arrays is message number i + 1. 8 octets a message. */
export interface Snapshot {
  uids: Int32Array
  octets: Int32Array
}

/** Imported unique-ids, ascending by uid: index i of both is one message. */
export interface ImportedIds {
  uids: Int32Array
  uniqueIds: readonly string[]
}

export interface StoredMessage {
  uid: number
  /** of prefix and body together: what LIST says */
  octets: number
  /** sent before the body */
  prefix: Buffer
  bodyId: string
  bodyOctets: number
  /** the whole body, in pieces; undefined if it is larger than was asked for, or damaged */
  content: readonly Buffer[] | undefined
}

type UidOrder = 'asc' | 'desc'

/**
 * SQL: an aggregate of `uid` and `octets`, eight octets a message; see `unpackSnapshot`.
 * @param order the one in which they are read: any other is a sort
 */
export const packedSnapshotSql = (order: UidOrder): string =>
  `string_agg(int8send((uid::bigint << 32) | octets), ''::bytea order by uid ${order})`

/** LIMIT: messages of one row of SNAPSHOT, 128 KiB. */
const SNAPSHOT_PAGE_MESSAGES = 16_384

export const SNAPSHOT: Statement = {
  name: 'snapshot',
  text: `select ${packedSnapshotSql('asc')}
  from (
    select uid, octets from messages
    where domain_id = $1 and user_id = $2 and uid > $3 and uid < $4
    order by uid limit ${SNAPSHOT_PAGE_MESSAGES}) page`,
}

// The unique-ids themselves hold no "/" (messages_unique_id_is_rfc_1939).
export const UNIQUE_IDS: Statement = {
  name: 'unique-ids',
  text: `select string_agg(int4send(uid), ''::bytea order by uid),
    string_agg(unique_id, '/' order by uid)
  from messages
  where domain_id = $1 and user_id = $2 and uid between $3 and $4 and unique_id is not null`,
}

// A row for each chunk of a body that comes along; what is the same for all of them comes with the
// first, packed: each field costs an object. They come in their order, as the index has it; to ask
// for that would be a sort (a message whose chunks did not is read by itself). What the body's own
// row says is asked only of bodies that do not come along: of the others the octets themselves are
// there to be counted; and where none come along, none is looked at: the limit is for the index.
export const MESSAGES: Statement = {
  name: 'messages',
  text: `select c.data,
    case when c.seq > 0 then int8send((m.uid::bigint << 32) | c.seq)
      else int8send((m.uid::bigint << 32) | m.octets) || uuid_send(m.body_id) end,
    case when c.seq > 0 then null else m.prefix end,
    case when m.octets - octet_length(m.prefix) > $4::integer then (
      select b.octets from bodies b where b.domain_id = $1 and b.body_id = m.body_id) end
  from messages m
    left join body_chunks c on c.domain_id = $1 and c.body_id = m.body_id and c.seq <
      case when m.octets - octet_length(m.prefix) <= $4::integer then ${STRETCH_CHUNKS} else 0 end
  where m.domain_id = $1 and m.user_id = $2 and m.uid = any ($3::integer[])
  order by m.uid`,
}

const PACKED_OCTETS = 8

/** Less than any body has, an empty one too. */
const NO_CONTENT = -1

/**
 * The maildrop's list, in order of uid.
 * @param counters as read at login: what came later stays invisible (RFC 1939 §4)
 */
export async function selectSnapshot(
  db: Database,
  domainId: number,
  userId: number,
  { messageCount, nextUid }: { messageCount: number; nextUid: number },
): Promise<Snapshot> {
  let snapshot = emptySnapshot(messageCount)
  let count = 0
  for (let lastUid = 0; ; lastUid = snapshot.uids[count - 1] ?? 0) {
    const [row] = await db.bulk(SNAPSHOT, [domainId, userId, lastUid, nextUid])
    const page = unpackSnapshot(row?.[0], 'asc')
    const newCount = count + page.uids.length
    if (newCount > snapshot.uids.length) snapshot = resized(snapshot, 2 * newCount)
    snapshot.uids.set(page.uids, count)
    snapshot.octets.set(page.octets, count)
    count = newCount
    if (page.uids.length < SNAPSHOT_PAGE_MESSAGES) break
  }
  return count === snapshot.uids.length ? snapshot : resized(snapshot, count)
}

/** @param packed by packedSnapshotSql, in that order; null: no messages */
export function unpackSnapshot(packed: Buffer | null | undefined, order: UidOrder): Snapshot {
  const count = (packed?.length ?? 0) / PACKED_OCTETS
  const snapshot = emptySnapshot(count)
  if (!packed) return snapshot
  for (let at = 0; at < count; at++) {
    const index = order === 'asc' ? at : count - 1 - at
    snapshot.uids[index] = packed.readInt32BE(at * PACKED_OCTETS)
    snapshot.octets[index] = packed.readInt32BE(at * PACKED_OCTETS + 4)
  }
  return snapshot
}

function emptySnapshot(count: number): Snapshot {
  return { uids: new Int32Array(count), octets: new Int32Array(count) }
}

/** For counters that were wrong. */
function resized({ uids, octets }: Snapshot, count: number): Snapshot {
  const snapshot = emptySnapshot(count)
  snapshot.uids.set(uids.subarray(0, count))
  snapshot.octets.set(octets.subarray(0, count))
  return snapshot
}

/** Of the messages from one uid to another; the unique-ids of others are derived from their uid. */
export async function selectUniqueIds(
  db: Database,
  domainId: number,
  userId: number,
  firstUid: number,
  lastUid: number,
): Promise<ImportedIds> {
  const [row] = await db.bulk(UNIQUE_IDS, [domainId, userId, firstUid, lastUid])
  const [uids, uniqueIds] = row ?? []
  if (!uids || !uniqueIds) return { uids: new Int32Array(0), uniqueIds: [] }
  return {
    uids: Int32Array.from({ length: uids.length / 4 }, (_, index) => uids.readInt32BE(index * 4)),
    uniqueIds: uniqueIds.toString('latin1').split('/'),
  }
}

/**
 * @param contentMaxOctets bodies up to this size come along; 0 for none
 * @param memory in which they lie, until it is given back
 * @returns in order of uid; what is no longer in the maildrop is missing
 */
export async function selectMessages(
  db: Database,
  domainId: number,
  userId: number,
  uids: readonly number[],
  contentMaxOctets: number,
  memory?: RowMemory,
): Promise<StoredMessage[]> {
  const maxOctets = Math.min(contentMaxOctets, STRETCH_OCTETS)
  const values = [domainId, userId, encodeNumbers(uids), maxOctets]
  const rows = await db.bulk(MESSAGES, values, memory)
  const messages: MessageRows[] = []
  const headless = new Set<number>()
  for (const row of rows) {
    const [data, , prefix, bodyOctets] = row
    const head = present(row, 1)
    if (prefix) messages.push(new MessageRows(head, prefix, bodyOctets))
    const message = messages.at(-1)
    const uid = head.readInt32BE(0)
    if (message?.uid !== uid) headless.add(uid)
    else if (data) message.append(prefix ? 0 : head.readInt32BE(4), data)
  }
  if (headless.size === 0) return messages
  // A body without its first chunk: what follows is nobody else's, and its message is there.
  for (const { uid } of messages) headless.delete(uid)
  const damaged = await selectMessages(db, domainId, userId, [...headless], NO_CONTENT)
  return [...messages, ...damaged].sort((one, other) => one.uid - other.uid)
}

class MessageRows implements StoredMessage {
  readonly uid: number
  readonly octets: number
  readonly prefix: Buffer
  readonly bodyOctets: number
  readonly #head: Buffer
  readonly #content: Buffer[] = []
  #isInOrder = true

  constructor(head: Buffer, prefix: Buffer, bodyOctets: Buffer | null | undefined) {
    this.uid = head.readInt32BE(0)
    this.octets = head.readInt32BE(4)
    this.prefix = prefix
    this.bodyOctets = bodyOctets ? decodeInt4(bodyOctets) : this.octets - prefix.length
    this.#head = head
  }

  append(seq: number, data: Buffer): void {
    this.#isInOrder &&= seq === this.#content.length
    this.#content.push(data)
  }

  get content(): readonly Buffer[] | undefined {
    const isWhole = this.#isInOrder && octetsOf(this.#content) === this.bodyOctets
    return isWhole ? this.#content : undefined
  }

  /** Read of large messages only. */
  get bodyId(): string {
    return decodeUuid(this.#head.subarray(PACKED_OCTETS))
  }
}
