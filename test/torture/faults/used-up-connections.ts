/** Others take every connection that PostgreSQL has; some nodes lose theirs meanwhile. */
import { setTimeout as delay } from 'node:timers/promises'
import { servingUrl } from '../../support/postgres-setup.ts'
import type { Fault } from '../fault.ts'
import { useUpConnections } from './means/connection-hog.ts'

const FOR_MS = { min: 1_000, max: 5_000 }

export const usedUpConnections: Fault = {
  name: 'used-up-connections',
  seconds: 6,
  async inject({ cluster, random, note, signal }) {
    const nodes = random.sample(cluster.nodes, random.integer(1, cluster.nodes.length))
    const ms = random.integer(FOR_MS.min, FOR_MS.max)
    note(`no connection is left for ${nodes.map(({ name }) => name).join(', ')} for ${ms} ms`)
    let giveBack = async (): Promise<void> => {}
    try {
      for (const { proxy } of nodes) proxy.cut(true)
      giveBack = await useUpConnections(servingUrl(cluster.postgres.url))
      for (const { proxy } of nodes) proxy.heal()
      await delay(ms, undefined, { signal }).catch(() => {})
    } finally {
      for (const { proxy } of nodes) proxy.heal()
      await giveBack()
    }
  },
}
