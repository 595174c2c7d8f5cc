/**
 * SIGSTOP of a worker, then SIGCONT: for less than its lease, when nothing may happen but a pause, and for
 * longer. By then others may have taken over what it had; what it still says must not be as if it had
 * it, and what it is asked to delete stays.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Fault, FaultContext } from '../fault.ts'

const BRIEFLY_MS = { min: 200, max: 8_000 }
/** 30 s without a heartbeat, and what another node needs to see it and to let somebody in. */
const FROZEN_MS = { min: 32_000, max: 38_000 }

export const freezeWorkerBriefly: Fault = {
  name: 'freeze-worker-briefly',
  seconds: 6,
  inject: (context) => freeze(context, BRIEFLY_MS),
}

export const freezeWorker: Fault = {
  name: 'freeze-worker',
  seconds: 40,
  isLong: true,
  inject: (context) => freeze(context, FROZEN_MS),
}

async function freeze(
  { cluster, random, windows, note, signal }: FaultContext,
  { min, max }: { min: number; max: number },
): Promise<void> {
  const node = random.pick(cluster.nodes)
  const pid = random.pick(node.workers())
  const ms = random.integer(min, max)
  const close = windows.open('silenced', node)
  note(`SIGSTOP to worker ${pid} of ${node.name} for ${ms} ms`)
  try {
    process.kill(pid, 'SIGSTOP')
    await delay(ms, undefined, { signal }).catch(() => {})
  } finally {
    process.kill(pid, 'SIGCONT')
    close()
  }
}
