/**
 * Deliveries that share commits. While one group's statement is under way, the deliveries that come
 * meanwhile wait, and those of one domain go together in the next: no timer, and who comes alone
 * goes at once. (A window of 1 ms saved nothing more worth its wait.) A failure of the group is
 * nobody's failure yet: each of its deliveries is then tried alone, where waiting for a lock harms
 * nobody else. Only if nobody knows whether the group was carried out, none is tried again.
 */
import { setImmediate as otherInput } from 'node:timers/promises'
import { isFailure } from '../../base/failure.ts'
import { METRICS } from '../../base/metrics.ts'
import { newBodyId } from '../../storage/bodies.ts'
import {
  type Delivery,
  type DeliveryResult,
  deliver,
  deliverGroup,
} from '../../storage/deliveries.ts'
import type { Database } from '../../storage/postgres/database.ts'
import { sqlStateOf } from '../../storage/postgres/sqlstate.ts'

type Results = Map<number, DeliveryResult>

interface Waiting {
  delivery: Delivery
  resolve: (results: Results | Promise<Results>) => void
  reject: (error: unknown) => void
  cameAt: number
}

/** LIMIT: larger ones go alone; they would keep the others of their group waiting. */
const SMALL_OCTETS_MAX = 65_536
const SMALL_RECIPIENTS_MAX = 50

/** LIMIT: of a group. Longer statements gain nothing more, and each lock is held to their end. */
const GROUP_OCTETS_MAX = 1_048_576
const GROUP_RECIPIENTS_MAX = 200

export class DeliveryQueue {
  readonly #db: Database
  #waiting: Waiting[] = []
  #isUnderWay = false

  constructor(db: Database) {
    this.#db = db
  }

  /**
   * @returns the outcome by userId; what is 'delivered' is committed
   * @throws {Failure} as deliver() in deliveries.ts
   */
  deliver(delivery: Delivery): Promise<Results> {
    if (!isSmall(delivery)) return deliver(this.#db, delivery)
    return new Promise((resolve, reject) => {
      this.#waiting.push({ delivery, resolve, reject, cameAt: performance.now() })
      METRICS.deliveryWaiting.of().add(1)
      if (!this.#isUnderWay) void this.#run()
    })
  }

  async #run(): Promise<void> {
    this.#isUnderWay = true
    while (this.#waiting.length > 0) {
      // What has come in already goes along: a quarter fewer commits, and nothing waits for it.
      await otherInput()
      await this.#deliver(this.#takeGroup())
    }
    this.#isUnderWay = false
  }

  /** The one that waits longest and, as far as there is room, the others of its domain. */
  #takeGroup(): Waiting[] {
    const domainId = this.#waiting[0]?.delivery.domainId
    const group: Waiting[] = []
    const rest: Waiting[] = []
    let octets = 0
    let recipients = 0
    for (const waiting of this.#waiting) {
      const { delivery } = waiting
      const isAlike = delivery.domainId === domainId
      if (isAlike) {
        octets += delivery.bodyOctets
        recipients += delivery.recipients.length
      }
      // Once one does not fit, none behind it overtakes it.
      const fits = octets <= GROUP_OCTETS_MAX && recipients <= GROUP_RECIPIENTS_MAX
      const next = isAlike && fits ? group : rest
      next.push(waiting)
    }
    this.#waiting = rest
    METRICS.deliveryWaiting.of().add(-group.length)
    const now = performance.now()
    for (const { cameAt } of group) METRICS.deliveryWaitSeconds.of().observe((now - cameAt) / 1_000)
    return group
  }

  /** Never throws; what is tried alone is not waited for. */
  async #deliver(group: readonly Waiting[]): Promise<void> {
    const deliveries = group.map(({ delivery }) => delivery)
    try {
      const results = await deliverGroup(this.#db, deliveries)
      for (const [at, { delivery, resolve }] of group.entries()) {
        const own = results[at] ?? new Map()
        resolve(group.length === 1 ? own : this.#withRoomAlone(delivery, own))
      }
    } catch (error) {
      for (const { delivery, resolve, reject } of group)
        if (isRolledBack(error)) resolve(deliver(this.#db, delivery))
        else reject(error)
    }
  }

  /** What another of the group left no room for may fit after all, if that one did not. */
  async #withRoomAlone(delivery: Delivery, results: Results): Promise<Results> {
    const isFull = ({ userId }: { userId: number }): boolean =>
      results.get(userId)?.status === 'over-quota'
    const recipients = delivery.recipients.filter(isFull)
    if (recipients.length === 0) return results
    // Its body is there already if others got it.
    const alone = { ...delivery, bodyId: newBodyId(), recipients }
    // What the others got they have: a failure leaves these where they were, over quota.
    const again = await deliver(this.#db, alone).catch(() => new Map())
    return new Map([...results, ...again])
  }
}

function isSmall({ content, bodyOctets, recipients, imported }: Delivery): boolean {
  return (
    content !== undefined &&
    imported === undefined &&
    bodyOctets <= SMALL_OCTETS_MAX &&
    recipients.length <= SMALL_RECIPIENTS_MAX
  )
}

/** PostgreSQL itself said so; whatever was the reason, it may be that of a single delivery. */
function isRolledBack(error: unknown): boolean {
  return sqlStateOf(error) !== undefined && !isFailure(error, 'STORAGE_IN_DOUBT')
}
