/**
 * The connections of a node to PostgreSQL are half-open: nothing passes, nobody is told. What was
 * sent arrives when the line is whole again, or never.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Fault, FaultContext } from '../fault.ts'

/** Shorter than a lease is trusted; and longer than others wait before they take it over. */
const BRIEF_MS = { min: 500, max: 15_000 }
const LONG_MS = { min: 32_000, max: 38_000 }

async function fallSilent(
  { random, note, signal }: FaultContext,
  node: FaultContext['cluster']['nodes'][number],
  range: { min: number; max: number },
): Promise<void> {
  const { proxy } = node
  const ms = random.integer(range.min, range.max)
  const isLost = random.chance(0.5)
  const end = isLost ? 'lost' : 'late'
  note(`${node.name} hears nothing for ${ms} ms; then all is ${end}`)
  try {
    proxy.stall()
    await delay(ms, undefined, { signal }).catch(() => {})
  } finally {
    if (isLost) proxy.cut()
    proxy.heal()
  }
}

export const silentConnectionsBriefly: Fault = {
  name: 'silent-connections-briefly',
  seconds: 10,
  inject: (context) => fallSilent(context, context.random.pick(context.cluster.nodes), BRIEF_MS),
}

export const silentConnections: Fault = {
  name: 'silent-connections',
  seconds: 40,
  isLong: true,
  async inject(context) {
    const node = context.random.pick(context.cluster.nodes)
    const close = context.windows.open('silenced', node)
    try {
      await fallSilent(context, node, LONG_MS)
    } finally {
      close()
    }
  },
}
