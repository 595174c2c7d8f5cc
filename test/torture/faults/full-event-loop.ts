/**
 * The event loop of a worker is full: it runs and does nothing, for longer than a heartbeat or than
 * its lease. Unlike one that is stopped, its timers are all late at once when it goes on.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { ClusterPlan, Fault, FaultContext } from '../fault.ts'
import { blockableLoop, blockLoop } from './means/blocked-loop.ts'

const BRIEF_MS = { min: 1_000, max: 8_000 }
const LONG_MS = { min: 32_000, max: 38_000 }

/** Of both faults; empty: not prepared. */
let directory = ''

async function prepare(plan: ClusterPlan): Promise<() => Promise<void>> {
  if (directory !== '') return async () => {}
  const made = mkdtempSync(join(tmpdir(), 'popgres-loop-'))
  directory = made
  plan.nodeOptions.push(blockableLoop(made))
  return async () => {
    directory = ''
    rmSync(made, { recursive: true, force: true })
  }
}

async function fillLoop(
  { cluster, random, windows, note, signal }: FaultContext,
  range: { min: number; max: number },
): Promise<void> {
  const node = random.pick(cluster.nodes)
  const pid = random.pick(node.workers())
  const ms = random.integer(range.min, range.max)
  const close = windows.open('silenced', node)
  try {
    const goOn = await blockLoop(pid, directory)
    note(`the event loop of worker ${pid} of ${node.name} is full for ${ms} ms`)
    try {
      await delay(ms, undefined, { signal }).catch(() => {})
    } finally {
      goOn()
    }
  } finally {
    close()
  }
}

export const fullEventLoopBriefly: Fault = {
  name: 'full-event-loop-briefly',
  seconds: 8,
  prepare,
  inject: (context) => fillLoop(context, BRIEF_MS),
}

export const fullEventLoop: Fault = {
  name: 'full-event-loop',
  seconds: 40,
  isLong: true,
  prepare,
  inject: (context) => fillLoop(context, LONG_MS),
}
