/**
 * Reads messages of one open maildrop, a few ahead: clients fetch 1, 2, 3, … (some backwards), so a
 * miss fetches the next small messages in the same statement, and when half of them are taken the
 * next ones are fetched meanwhile. Large ones come by themselves, see body-reader.ts.
 *
 * What is read ahead is bounded by octets, for the maildrop and for the worker as a whole. A
 * message leaves the window when it is read, and its octets are there until the next one is asked
 * for: then their memory is used again.
 */
import { assert } from '../../base/assert.ts'
import { Failure } from '../../base/failure.ts'
import { STRETCH_OCTETS } from '../../storage/bodies.ts'
import type { Lease } from '../../storage/leases.ts'
import { type Snapshot, type StoredMessage, selectMessages } from '../../storage/messages.ts'
import type { Database } from '../../storage/postgres/database.ts'
import { RowMemory } from '../../storage/postgres/row-memory.ts'

/** LIMIT: of one statement; 50 messages of 10 KB, the size that was measured best. */
const WINDOW_OCTETS = 524_288
/** LIMIT: one maildrop's window, with what is on its way into it. */
const HELD_MAX_OCTETS = 1.5 * WINDOW_OCTETS
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

  /** How much may be read ahead now. */
  get available(): number {
    return Math.max(0, this.#octetsMax - this.#octets)
  }

  add(octets: number): void {
    this.#octets += octets
    assert(this.#octets >= 0, 'what was read ahead is given back once')
  }
}

/** Where a client is in the snapshot, and to which side it moves. */
interface Place {
  snapshot: Snapshot
  step: 1 | -1
  /** The first message that was not asked for yet. */
  nextIndex: number
}

/** Messages that came in one answer, and so lie in one memory. */
class Batch {
  readonly #memory: RowMemory | undefined
  #left: number

  constructor(memory: RowMemory | undefined, messages: number) {
    this.#memory = memory
    this.#left = messages
  }

  /** Once for each message, when it is not looked at any more. */
  leave(): void {
    this.#left--
    if (this.#left === 0) this.#memory?.giveBack()
  }
}

interface Held {
  message: StoredMessage
  batch: Batch
}

/** Messages that were asked for ahead; `arrived` never fails. */
interface Coming {
  uids: readonly number[]
  arrived: Promise<void>
}

export class MessageReader {
  readonly #db: Database
  readonly #lease: Lease
  readonly #budget: ReadAheadBudget
  readonly #window = new Map<number, Held>()
  /** Of the message that was read last. */
  #present: Batch | undefined
  /** Messages are read on when no more than this many are left. */
  #mark = 0
  #place: Place | undefined
  #coming: Coming | undefined
  #lastUid: number | undefined
  /** In the window and on their way. */
  #octets = 0
  #isClosed = false

  constructor(db: Database, lease: Lease, budget: ReadAheadBudget) {
    this.#db = db
    this.#lease = lease
    this.#budget = budget
  }

  /**
   * A message that was read ahead, whole in memory; undefined: `read` it. It may be looked at until
   * another one is asked for.
   */
  take(uid: number): StoredMessage | undefined {
    const held = this.#window.get(uid)
    if (held === undefined) return undefined
    const { message, batch } = held
    this.#present?.leave()
    this.#present = batch
    this.#window.delete(uid)
    this.#count(-message.octets)
    this.#lastUid = uid
    if (this.#window.size <= this.#mark) this.#readOn()
    return message
  }

  /**
   * Fetches a message of the snapshot, and its neighbours on the side to which the client moves. It
   * may be looked at until another one is asked for.
   * @throws {Failure} MESSAGE_GONE, or a storage failure
   */
  async read(snapshot: Snapshot, uid: number): Promise<StoredMessage> {
    if (this.#coming?.uids.includes(uid)) await this.#coming.arrived
    const arrived = this.take(uid)
    if (arrived !== undefined) return arrived
    this.#drop()
    const index = indexOfUid(snapshot.uids, uid)
    const { step, messages } = this.#foresee(snapshot, index)
    this.#place = { snapshot, step, nextIndex: index + step }
    this.#lastUid = uid
    const { uids, octets } = this.#chooseNext(messages - 1, snapshot.octets[index])
    this.#present?.leave()
    this.#present = undefined
    let wanted: StoredMessage | undefined
    for (const held of await this.#fetch([uid, ...uids], octets)) {
      if (held.message.uid !== uid) this.#keep(held)
      else {
        wanted = held.message
        this.#present = held.batch
      }
    }
    if (wanted === undefined) throw new Failure('MESSAGE_GONE', `uid ${uid} is not there any more`)
    return wanted
  }

  /** Gives back what was read ahead; what is on its way, when it arrives. */
  close(): void {
    this.#isClosed = true
    this.#drop()
  }

  /** Fetches what comes next while the client takes what is there. */
  #readOn(): void {
    if (this.#coming !== undefined) return
    const { uids, octets } = this.#chooseNext(WINDOW_MESSAGES)
    if (uids.length === 0) return
    const coming: Coming = {
      uids,
      arrived: this.#fetch(uids, octets)
        .then((all) => {
          if (this.#coming === coming) for (const held of all) this.#keep(held)
        })
        .catch(() => {
          // Whoever wants one of these asks for it, and is told what is wrong.
          if (this.#coming === coming) this.#place = undefined
        })
        .then(() => {
          if (this.#coming === coming) this.#coming = undefined
        }),
    }
    this.#coming = coming
  }

  /** @param octets of what is read ahead among them, counted until it is here */
  async #fetch(uids: readonly number[], octets: number): Promise<Held[]> {
    const { domainId, userId } = this.#lease
    const memory = RowMemory.forAnswer(octets)
    this.#count(octets)
    try {
      const all = await selectMessages(this.#db, domainId, userId, uids, STRETCH_OCTETS, memory)
      const batch = new Batch(memory, all.length)
      return all.map((message) => ({ message, batch }))
    } finally {
      this.#count(-octets)
    }
  }

  #keep(held: Held): void {
    const { message, batch } = held
    // Whoever wants a damaged one asks for it, and is told.
    if (this.#isClosed || message.content === undefined) {
      batch.leave()
      return
    }
    this.#window.set(message.uid, held)
    this.#count(message.octets)
  }

  #drop(): void {
    for (const { message, batch } of this.#window.values()) {
      this.#count(-message.octets)
      batch.leave()
    }
    this.#window.clear()
    this.#place = undefined
    this.#coming = undefined
  }

  #count(octets: number): void {
    this.#octets += octets
    this.#budget.add(octets)
  }

  /**
   * The next messages of the place, as long as they are small and fit; the place moves past them.
   * @param octetsBefore of the message that is fetched with them
   */
  #chooseNext(messages: number, octetsBefore = 0): { uids: number[]; octets: number } {
    const uids: number[] = []
    let sum = 0
    const place = this.#place
    if (place === undefined) return { uids, octets: sum }
    const held = HELD_MAX_OCTETS - this.#octets
    const room = Math.min(WINDOW_OCTETS, held, this.#budget.available) - octetsBefore
    while (uids.length < messages) {
      const uid = place.snapshot.uids[place.nextIndex]
      const octets = place.snapshot.octets[place.nextIndex]
      if (uid === undefined || octets === undefined) break
      if (octets > STRETCH_OCTETS || sum + octets > room) break
      sum += octets
      uids.push(uid)
      place.nextIndex += place.step
    }
    if (uids.length > 0) this.#mark = uids.length >> 1
    return { uids, octets: sum }
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
