/**
 * Reads messages of one open maildrop, a few ahead: clients fetch 1, 2, 3, … (some backwards), so a
 * miss fetches the next small messages in the same statement. Large ones come chunk by chunk, one
 * query a chunk, and nothing (no transaction, no pool connection) is held while the peer is slow.
 *
 * What is read ahead is bounded by octets, for the maildrop and for the worker as a whole. A
 * message leaves the window when it is read.
 */
import { assert } from '../../base/assert.ts'
import { Failure } from '../../base/failure.ts'
import { CHUNK_OCTETS, selectChunk } from '../../storage/bodies.ts'
import type { Lease } from '../../storage/leases.ts'
import { type StoredMessage, selectMessages } from '../../storage/messages.ts'
import type { Database } from '../../storage/postgres/database.ts'
import type { Snapshot } from './maildrop.ts'

/** LIMIT: one maildrop's window; 50 messages of 10 KB, the size that was measured best. */
const WINDOW_OCTETS = 524_288
/**
 * The first miss may be a client that wants one message only; the next is a client that goes on.
 */
const FIRST_WINDOW_MESSAGES = 8
const WINDOW_MESSAGES = 64

/** LIMIT: octets read ahead by all maildrops of this process. */
export class ReadAheadBudget {
  readonly #octetsMax: number
  #octets = 0

  constructor(octetsMax = 64 * 1_048_576) {
    this.#octetsMax = octetsMax
  }

  /** How much one maildrop may read ahead now. */
  get available(): number {
    return Math.max(0, Math.min(WINDOW_OCTETS, this.#octetsMax - this.#octets))
  }

  add(octets: number): void {
    this.#octets += octets
    assert(this.#octets >= 0, 'what was read ahead is given back once')
  }
}

export class MessageReader {
  readonly #db: Database
  readonly #lease: Lease
  readonly #budget: ReadAheadBudget
  readonly #window = new Map<number, StoredMessage>()
  #lastUid: number | undefined

  constructor(db: Database, lease: Lease, budget: ReadAheadBudget) {
    this.#db = db
    this.#lease = lease
    this.#budget = budget
  }

  /** A message that was read ahead, whole in memory; undefined: `read` it. */
  take(uid: number): StoredMessage | undefined {
    const message = this.#window.get(uid)
    if (message === undefined) return undefined
    this.#window.delete(uid)
    this.#budget.add(-message.octets)
    this.#lastUid = uid
    return message
  }

  /**
   * Fetches a message of the snapshot, and its neighbours on the side to which the client moves.
   * @throws {Failure} MESSAGE_GONE, or a storage failure
   */
  async read(snapshot: Snapshot, uid: number): Promise<StoredMessage> {
    this.close()
    const uids = this.#chooseWindow(snapshot, indexOfUid(snapshot.uids, uid))
    this.#lastUid = uid
    const { domainId, userId } = this.#lease
    let wanted: StoredMessage | undefined
    for (const message of await selectMessages(this.#db, domainId, userId, uids, CHUNK_OCTETS)) {
      if (message.uid === uid) wanted = message
      else this.#keep(message)
    }
    if (wanted === undefined) throw new Failure('MESSAGE_GONE', `uid ${uid} is not there any more`)
    return wanted
  }

  /** @throws {Failure} MESSAGE_DAMAGED if a chunk is missing */
  async readChunk(message: StoredMessage, seq: number): Promise<Buffer> {
    const chunk = await selectChunk(this.#db, this.#lease.domainId, message.bodyId, seq)
    if (chunk === undefined)
      throw new Failure('MESSAGE_DAMAGED', `chunk ${seq} of body ${message.bodyId} is missing`)
    return chunk
  }

  /** Gives back what was read ahead. */
  close(): void {
    for (const message of this.#window.values()) this.#budget.add(-message.octets)
    this.#window.clear()
  }

  #keep(message: StoredMessage): void {
    this.#window.set(message.uid, message)
    this.#budget.add(message.octets)
  }

  /** The wanted message, and those beside it as long as they are small and fit. */
  #chooseWindow(snapshot: Snapshot, index: number): number[] {
    const { step, messages } = this.#foresee(snapshot, index)
    const uids: number[] = []
    let room = this.#budget.available
    for (let at = index; uids.length < messages; at += step) {
      const uid = snapshot.uids[at]
      const octets = snapshot.octets[at]
      if (uid === undefined || octets === undefined) break
      room -= octets
      if (at !== index && (room < 0 || octets > CHUNK_OCTETS)) break
      uids.push(uid)
    }
    return uids
  }

  /** Where a client that has read the last message and wants this one will go. */
  #foresee(snapshot: Snapshot, index: number): { step: 1 | -1; messages: number } {
    if (this.#lastUid === undefined) return { step: 1, messages: FIRST_WINDOW_MESSAGES }
    const last = indexOfUid(snapshot.uids, this.#lastUid)
    if (index === last + 1) return { step: 1, messages: WINDOW_MESSAGES }
    // CLIENT: some fetch the newest first.
    if (index === last - 1) return { step: -1, messages: WINDOW_MESSAGES }
    return { step: 1, messages: 1 }
  }
}

/** Binary search: the uids of a snapshot ascend. */
function indexOfUid(uids: Int32Array, uid: number): number {
  let low = 0
  let high = uids.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((uids[middle] ?? 0) < uid) low = middle + 1
    else high = middle
  }
  assert(uids[low] === uid, 'only listed messages are read')
  return low
}
