/**
 * A day of mail, by the statements that a node makes: deliveries, logins, fetches, QUITs, empty
 * polls, then what the background work does. Everything is drawn from one seed. Clients are of
 * three kinds: most delete what they have fetched, some leave it on the server for two weeks, some
 * never delete, and EXPIRE does it for them.
 */
import { randomUUID } from 'node:crypto'
import { selectLoginAccount } from '../../src/storage/accounts.ts'
import { newBodyId } from '../../src/storage/bodies.ts'
import { deliver } from '../../src/storage/deliveries.ts'
import {
  acquireLease,
  commitDeletes,
  entitlementOf,
  type Lease,
  releaseLease,
} from '../../src/storage/leases.ts'
import { selectMessages } from '../../src/storage/messages.ts'
import type { Database } from '../../src/storage/postgres/database.ts'
import { expireMessages, purgeTrash, sweepBodies } from '../../src/storage/retention.ts'
import { chance } from './chance.ts'

export const TRASH_DAYS = 7
export const KEPT_DAYS = 14
const USERS_PER_DOMAIN = 50
const MESSAGES_A_DAY = 5
const QUARTERS = 4
/** Statements under way at once, as the sessions of a worker have. */
const AT_ONCE = 12
const BATCH = 500
const FETCHED_AT_ONCE = 20

type Kind = 'deletes' | 'leaves' | 'never'

interface Client {
  domainId: number
  userId: number
  domainName: string
  localPart: string
  kind: Kind
  /** On the server, as the client knows it: uid and the day it was fetched. */
  known: { uid: number; day: number }[]
  lastUid: number
}

export interface DayCounts {
  delivered: number
  deliveredOctets: number
  deleted: number
  expired: number
  purged: number
}

export class Traffic {
  readonly #db: Database
  readonly #random: () => number
  readonly #clients: Client[] = []
  readonly #octets: Buffer
  #day = 0

  private constructor(db: Database, seed: number) {
    this.#db = db
    this.#random = chance(seed)
    this.#octets = Buffer.alloc(200_000)
    // What does not compress, as attachments do not.
    for (let at = 0; at < this.#octets.length; at += 4)
      this.#octets.writeUInt32LE(Math.floor(this.#random() * 2 ** 32), at)
  }

  static async open(db: Database, seed: number, users: number): Promise<Traffic> {
    const traffic = new Traffic(db, seed)
    for (let first = 0; first < users; first += USERS_PER_DOMAIN)
      await traffic.#addDomain(`d${first}.example`, Math.min(USERS_PER_DOMAIN, users - first))
    return traffic
  }

  async #addDomain(domainName: string, users: number): Promise<void> {
    const { domain_id: domainId } = await this.#db.kysely
      .insertInto('domains')
      .values({ name: domainName, trash_days: TRASH_DAYS })
      .returning('domain_id')
      .executeTakeFirstOrThrow()
    for (let nth = 0; nth < users; nth++) {
      const drawn = this.#random()
      const kind: Kind = drawn < 0.6 ? 'deletes' : drawn < 0.85 ? 'leaves' : 'never'
      const localPart = `u${nth}`
      const { user_id: userId } = await this.#db.kysely
        .insertInto('users')
        .values({
          domain_id: domainId,
          local_part: localPart,
          expire_days: kind === 'never' ? KEPT_DAYS : null,
        })
        .returning('user_id')
        .executeTakeFirstOrThrow()
      const ids = { domainId, userId: Number(userId) }
      this.#clients.push({ ...ids, domainName, localPart, kind, known: [], lastUid: 0 })
    }
  }

  /**
   * A quarter of a day after the other: its deliveries and sessions, then what the background work
   * finds, which in a node comes more often still.
   * @param passHours lets time pass, to the end of the quarter
   */
  async passDay(passHours: (hours: number) => Promise<void>): Promise<DayCounts> {
    this.#day++
    const counts = { delivered: 0, deliveredOctets: 0, deleted: 0, expired: 0, purged: 0 }
    for (let quarter = 0; quarter < QUARTERS; quarter++) {
      await this.#deliverAll(counts)
      await inParallel(this.#clients, async (client) => {
        // Who fetches now finds nothing at the other polls of the day.
        if (client.userId % QUARTERS !== quarter)
          return void (await releaseLease(this.#db, await this.#login(client)))
        const deleted = await this.#fetch(client)
        counts.deleted += deleted
      })
      await passHours(24 / QUARTERS)
      await this.#workInBackground(counts)
    }
    return counts
  }

  async #deliverAll(counts: DayCounts): Promise<void> {
    const count = Math.round((this.#clients.length * MESSAGES_A_DAY) / QUARTERS)
    const clients = this.#shuffled(Array.from({ length: count }, (_, nth) => nth))
    // The same sizes each time, for others: so there is as much mail one day as another.
    const deliveries = clients.map((at, nth) => ({
      client: this.#clients[at % this.#clients.length] as Client,
      octets: octetsOf((nth + 0.5) / count),
    }))
    await inParallel(deliveries, async ({ client, octets }) => {
      await this.#deliver(client, octets)
      counts.delivered++
      counts.deliveredOctets += octets
    })
  }

  async #workInBackground(counts: DayCounts): Promise<void> {
    for (const domainId of new Set(this.#clients.map((client) => client.domainId))) {
      counts.expired += await untilDone(() => expireMessages(this.#db, domainId, BATCH))
      counts.purged += await untilDone(() => purgeTrash(this.#db, domainId, BATCH))
      await untilDone(() => sweepBodies(this.#db, domainId, BATCH))
    }
  }

  #shuffled<T>(list: readonly T[]): T[] {
    return list
      .map((item) => ({ item, place: this.#random() }))
      .sort((one, other) => one.place - other.place)
      .map(({ item }) => item)
  }

  async #deliver({ domainId, userId }: Client, octets: number): Promise<void> {
    const content = this.#octets.subarray(0, octets)
    const prefix = Buffer.from(`Received: by bench; day ${this.#day}\r\n${'x'.repeat(150)}\r\n`)
    await deliver(this.#db, {
      domainId,
      bodyId: newBodyId(),
      bodyOctets: octets,
      content,
      recipients: [{ userId, prefix }],
    })
  }

  async #login({ domainName, localPart }: Client): Promise<Lease & { nextUid: number }> {
    const account = await selectLoginAccount(this.#db, domainName, localPart)
    if (account === undefined) throw new Error(`${localPart}@${domainName} is unknown`)
    const { domainId, userId } = account
    const sessionId = randomUUID()
    const node = { sessionId, nodeId: randomUUID(), deadNodeIds: [], client: '192.0.2.1' }
    const question = { domainName, localPart, client: '192.0.2.1', network: '', throttleKeys: [] }
    const request = { ...entitlementOf(account, undefined), ...node }
    const { outcome } = await acquireLease(this.#db, request, question)
    if (outcome.kind !== 'acquired') throw new Error(`${localPart}@${domainName}: ${outcome.kind}`)
    return { domainId, userId, sessionId, nextUid: outcome.counters.nextUid }
  }

  /** A session: RETR of what is new, DELE as the client's kind has it. @returns how many DELEs */
  async #fetch(client: Client): Promise<number> {
    const lease = await this.#login(client)
    const fresh = Array.from(
      { length: lease.nextUid - 1 - client.lastUid },
      (_, at) => client.lastUid + 1 + at,
    )
    for (let at = 0; at < fresh.length; at += FETCHED_AT_ONCE) {
      const uids = fresh.slice(at, at + FETCHED_AT_ONCE)
      await selectMessages(this.#db, client.domainId, client.userId, uids, 512 * 1024)
    }
    client.lastUid = lease.nextUid - 1
    client.known.push(...fresh.map((uid) => ({ uid, day: this.#day })))
    const isDeleted = ({ day }: { day: number }): boolean =>
      client.kind === 'deletes' || (client.kind === 'leaves' && day <= this.#day - KEPT_DAYS)
    const marked = client.known.filter(isDeleted).map(({ uid }) => uid)
    if (client.kind === 'never') client.known = []
    else client.known = client.known.filter((message) => !isDeleted(message))
    if (marked.length === 0) await releaseLease(this.#db, lease)
    else await commitDeletes(this.#db, lease, Int32Array.from(marked))
    return marked.length
  }
}

/** Many are small, a few are large: 2 to 150 KB, 21 KB on average. @param rank from 0 to 1 */
const octetsOf = (rank: number): number => Math.floor(2_000 * 75 ** (rank ** 2))

async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const left = items.values()
  const worker = async (): Promise<void> => {
    for (const item of left) await work(item)
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
}

async function untilDone(batch: () => Promise<number>): Promise<number> {
  let total = 0
  for (;;) {
    const count = await batch()
    total += count
    if (count < BATCH) return total
  }
}
