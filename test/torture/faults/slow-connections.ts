/** The way between one node and PostgreSQL is slow in both directions, as between continents. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Fault } from '../fault.ts'

const LATE_MS = { min: 20, max: 400 }
const FOR_MS = { min: 3_000, max: 8_000 }

export const slowConnections: Fault = {
  name: 'slow-connections',
  seconds: 8,
  async inject({ cluster, random, note, signal }) {
    const { name, proxy } = random.pick(cluster.nodes)
    const lateMs = random.integer(LATE_MS.min, LATE_MS.max)
    const ms = random.integer(FOR_MS.min, FOR_MS.max)
    note(`what passes between ${name} and PostgreSQL is ${lateMs} ms late for ${ms} ms`)
    try {
      proxy.slow(lateMs)
      await delay(ms, undefined, { signal }).catch(() => {})
    } finally {
      proxy.heal()
    }
  },
}
