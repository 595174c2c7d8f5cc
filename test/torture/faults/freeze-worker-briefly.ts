/** SIGSTOP of a worker for less than its lease: nothing may happen but a pause. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Fault } from '../fault.ts'

export const freezeWorkerBriefly: Fault = {
  name: 'freeze-worker-briefly',
  seconds: 6,
  async inject({ cluster, random, windows, note, signal }) {
    const node = random.pick(cluster.nodes)
    const pid = random.pick(node.workers())
    const ms = random.integer(200, 8_000)
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
