/**
 * Connections break exactly where it hurts most: after PostgreSQL has committed a statement and
 * before the node hears of it, before the statement arrives, or so that it arrives when the node
 * has asked already what became of it.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { DELIVER, DELIVER_CHUNKED } from '../../../src/storage/deliveries.ts'
import { ACQUIRE, MAKE_MAILDROPS, QUIT, RELEASE } from '../../../src/storage/leases.ts'
import { RENEW } from '../../../src/storage/nodes.ts'
import type { Fault } from '../fault.ts'
import { type LossMoment, StatementLoss } from './means/statement-loss.ts'

/** QUIT and deliveries are what somebody is told the outcome of. */
const STATEMENTS = [QUIT, QUIT, QUIT, DELIVER, DELIVER, DELIVER_CHUNKED, ACQUIRE, RELEASE]
  .concat([RENEW, MAKE_MAILDROPS])
  .map(({ name }) => name)
const MOMENTS: readonly LossMoment[] = ['before', 'after', 'after', 'late']
/** Not every statement comes in that time. */
const EACH_MS = 2_000
const LOSSES = 4
/** So long the node may ask what became of it before it arrives. */
const LATE_MS = 500

export const loseAnswers: Fault = {
  name: 'lose-answers',
  seconds: 8,
  async inject({ cluster, random, note, signal }) {
    const node = random.pick(cluster.nodes)
    const loss = new StatementLoss(node.proxy)
    try {
      for (let nth = 0; nth < LOSSES && !signal.aborted; nth++) {
        const statement = random.pick(STATEMENTS)
        const moment = random.pick(MOMENTS)
        const lost = loss.next(statement, moment, () =>
          note(`${node.name}: ${statement} ${moment}`),
        )
        await Promise.race([lost, delay(EACH_MS, undefined, { signal }).catch(() => {})])
        if (moment !== 'late') continue
        await delay(random.integer(0, LATE_MS), undefined, { signal }).catch(() => {})
        loss.arrive()
      }
    } finally {
      loss.arrive()
      node.proxy.heal()
    }
  },
}
