/**
 * The clock of one node jumps by an hour, back, and by an hour the other way. For that the node is
 * started with Debian's libfaketime before its C library, and without it again afterwards.
 */
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Fault } from '../fault.ts'
import { findFakeTime, NodeClock } from './means/clock.ts'

const EACH_MS = { min: 1_500, max: 4_000 }
const HOURS = [1, 0, -1, 1]

export const wrongClock: Fault = {
  name: 'wrong-clock',
  seconds: 20,
  unavailable: async () =>
    findFakeTime() === undefined ? 'libfaketime (the Debian package) is not installed' : undefined,
  async inject({ cluster, random, note, signal }) {
    const node = random.pick(cluster.nodes)
    const clock = new NodeClock(join(cluster.directory, 'clock'))
    try {
      await node.stop()
      await node.start({ env: clock.env })
      for (const hours of random.shuffle(HOURS)) {
        note(`the clock of ${node.name} is ${hours} h fast`)
        clock.set(hours)
        const ms = random.integer(EACH_MS.min, EACH_MS.max)
        await delay(ms, undefined, { signal }).catch(() => {})
      }
    } finally {
      await node.stop()
      await node.start()
    }
  },
}
