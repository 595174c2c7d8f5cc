/** The connections of one node or of all to PostgreSQL break; new ones may fail for a while, too. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Fault } from '../fault.ts'

const AWAY_MS = 4_000

export const cutConnections: Fault = {
  name: 'cut-connections',
  seconds: 5,
  async inject({ cluster, random, note, signal }) {
    const nodes = random.chance(0.5) ? cluster.nodes : [random.pick(cluster.nodes)]
    const ms = random.chance(0.5) ? 0 : random.integer(1, AWAY_MS)
    const names = nodes.map(({ name }) => name).join(', ')
    note(`connections of ${names} are cut, and for ${ms} ms there are no others`)
    try {
      for (const { proxy } of nodes) proxy.cut(ms > 0)
      await delay(ms, undefined, { signal }).catch(() => {})
    } finally {
      for (const { proxy } of nodes) proxy.heal()
    }
  },
}
