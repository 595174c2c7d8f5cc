/** Injects one fault after the other while the clients go on, in an order that the seed decides. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Cluster } from './cluster.ts'
import type { Fault, Windows } from './fault.ts'
import type { History } from './history.ts'
import type { Random } from './random.ts'

/** Beyond what a fault says it takes; then it counts as failed. */
const OVERTIME_MS = 120_000
/** A run that is shorter has one long fault at most. */
const LONG_RUN_MS = 300_000
/** Clients get going before, and come to rest after. */
const QUIET_MS = 3_000

export interface InjectorOptions {
  cluster: Cluster
  history: History
  random: Random
  faults: readonly Fault[]
  runMs: number
  signal: AbortSignal
}

/** @throws if a fault could not be injected or healed: then the run proves nothing */
export async function injectFaults(options: InjectorOptions): Promise<void> {
  const { history, random, runMs, signal } = options
  const deadline = performance.now() + runMs - QUIET_MS
  const faults = await available(options)
  let bag: Fault[] = []
  let longOnes = 0
  await pause(QUIET_MS, signal)
  while (!signal.aborted) {
    const leftMs = deadline - performance.now()
    const mayBegin = (fault: Fault): boolean =>
      fault.seconds * 1_000 <= leftMs && !(fault.isLong && longOnes > 0 && runMs < LONG_RUN_MS)
    bag = bag.filter(mayBegin)
    if (bag.length === 0) bag = random.shuffle(faults.filter(mayBegin))
    const fault = bag.shift()
    if (fault === undefined) return
    if (fault.isLong) longOnes++
    history.note({ type: 'fault', name: fault.name, phase: 'begun' })
    try {
      await injectOne(options, fault)
    } catch (error) {
      history.note({ type: 'fault', name: fault.name, phase: 'failed', detail: String(error) })
      throw new Error(`the fault ${fault.name} failed`, { cause: error })
    }
    history.note({ type: 'fault', name: fault.name, phase: 'over' })
    await pause(random.integer(300, 3_000), signal)
  }
}

async function available({ cluster, faults, history }: InjectorOptions): Promise<Fault[]> {
  const list: Fault[] = []
  for (const fault of faults) {
    const detail = await fault.unavailable?.(cluster)
    if (detail === undefined) list.push(fault)
    else history.note({ type: 'fault', name: fault.name, phase: 'skipped', detail })
  }
  return list
}

async function injectOne(options: InjectorOptions, fault: Fault): Promise<void> {
  const { cluster, history, random, signal } = options
  const late = new AbortController()
  const limitMs = fault.seconds * 1_000 + OVERTIME_MS
  const timer = setTimeout(() => late.abort(new Error('it takes too long')), limitMs)
  try {
    const injected = fault.inject({
      cluster,
      random: random.fork(fault.name),
      windows: windowsOf(history),
      signal,
      note: (detail) => history.note({ type: 'fault', name: fault.name, phase: 'note', detail }),
    })
    await Promise.race([
      injected,
      new Promise((_, reject) => {
        late.signal.addEventListener('abort', () => reject(late.signal.reason))
      }),
    ])
  } finally {
    clearTimeout(timer)
  }
}

let windowCount = 0

function windowsOf(history: History): Windows {
  return {
    open: (kind, node) => {
      const id = ++windowCount
      const which = node === undefined ? {} : { node: node.name }
      history.note({ type: 'window', kind, ...which, phase: 'open', id })
      return () => history.note({ type: 'window', kind, ...which, phase: 'over', id })
    },
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return delay(ms, undefined, { signal }).catch(() => {})
}
