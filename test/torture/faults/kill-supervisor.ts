/**
 * kill -9 of a supervisor: its workers end by themselves, nobody frees their leases before they have been
 * silent for 30 s, and another node is started in its place.
 */
import type { Fault } from '../fault.ts'

export const killSupervisor: Fault = {
  name: 'kill-supervisor',
  seconds: 5,
  async inject({ cluster, random, note }) {
    const node = random.pick(cluster.nodes)
    note(`SIGKILL to supervisor ${node.pid} of ${node.name}`)
    try {
      await node.kill()
    } finally {
      await node.start()
    }
  },
}
