/** kill -9 of a worker: its supervisor frees its leases at once, its other sessions live on. */
import type { Fault } from '../fault.ts'

export const killWorker: Fault = {
  name: 'kill-worker',
  seconds: 2,
  async inject({ cluster, random, note }) {
    const node = random.pick(cluster.nodes)
    const from = node.process.records.length
    const pid = random.pick(node.workers())
    note(`SIGKILL to worker ${pid} of ${node.name}`)
    process.kill(pid, 'SIGKILL')
    await node.process.record('a worker serves', from)
  },
}
