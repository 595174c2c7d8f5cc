/**
 * SIGSTOP of a worker, SIGCONT after its lease is over: by then others may have taken over what it had.
 * What it still says must not be as if it had it, and what it is asked to delete stays.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Fault } from '../fault.ts'

/** 30 s without a heartbeat, and what another node needs to see it and to let somebody in. */
const FROZEN_MS = { min: 32_000, max: 38_000 }

export const freezeWorker: Fault = {
  name: 'freeze-worker',
  seconds: 40,
  isLong: true,
  async inject({ cluster, random, windows, note, signal }) {
    const node = random.pick(cluster.nodes)
    const pid = random.pick(node.workers())
    const ms = random.integer(FROZEN_MS.min, FROZEN_MS.max)
    const close = windows.open('silenced', node)
    note(`SIGSTOP to worker ${pid} of ${node.name} for ${ms} ms`)
    try {
      process.kill(pid, 'SIGSTOP')
      await delay(ms, undefined, { signal }).catch(() => {})
    } finally {
      process.kill(pid, 'SIGCONT')
      close()
    }
  },
}
