/**
 * What a worker tells of itself while it serves: a sign of life each second, and its metrics when
 * the supervisor asks. A worker whose event loop hangs tells nothing, and that is how it is known.
 * The supervisor uses the second half for itself.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { METRICS, reportMetrics } from '../base/metrics.ts'
import { whenRead } from '../base/tally.ts'
import type { FromWorker, ToWorker } from './worker-messages.ts'

const PULSE_MS = 1_000
/** The number of a report that nobody asked for. */
const UNASKED = 0
/** Shorter costs more: at 20 ms a quarter of a hundredth of a core. */
const LAG_RESOLUTION_MS = 50
/** Lag is told of this window and of the one before: whoever asks more often sees the same. */
const LAG_WINDOW_MS = 15_000
const QUANTILES = { '0.5': 50, '0.99': 99, '1': 100 } as const

export class WorkerReports {
  readonly #hasDatabase: () => boolean
  readonly #timer: NodeJS.Timeout
  #isServing = true

  /** @param hasDatabase whether it answered lately */
  constructor(hasDatabase: () => boolean) {
    this.#hasDatabase = hasDatabase
    measureProcess()
    process.on('message', (message: ToWorker) => {
      if (message.kind === 'report') void send(report(message.number))
    })
    this.#timer = setInterval(() => this.#pulse(), PULSE_MS)
    this.#pulse()
  }

  /** It accepts no more, but goes on with what is open. */
  retire(): void {
    this.#isServing = false
    this.#pulse()
  }

  /** What was counted since anybody asked is not lost with this process. */
  async end(): Promise<void> {
    clearInterval(this.#timer)
    this.#isServing = false
    await send(report(UNASKED))
  }

  #pulse(): void {
    void send({ kind: 'pulse', isServing: this.#isServing, hasDatabase: this.#hasDatabase() })
  }
}

const report = (number: number): FromWorker => ({
  kind: 'report',
  number,
  metrics: reportMetrics(),
})

/** Resolves when it has left, or cannot. */
function send(message: FromWorker): Promise<void> {
  return new Promise((resolve) => {
    if (process.connected) process.send?.(message, () => resolve())
    else resolve()
  })
}

/** Memory, CPU and lag of this process are read with the other metrics from now on. */
export function measureProcess(): void {
  const lag = new EventLoopLag()
  whenRead(() => {
    const { rss, heapUsed } = process.memoryUsage()
    const { user, system } = process.cpuUsage()
    METRICS.workerMemory.of().add(rss)
    METRICS.workerHeap.of().add(heapUsed)
    METRICS.workerCpu.of().add((user + system) / 1_000_000)
    for (const [quantile, percent] of Object.entries(QUANTILES))
      METRICS.workerLag.of(quantile).add(lag.secondsAt(percent))
  })
}

class EventLoopLag {
  #now = startMonitor()
  #before = this.#now

  constructor() {
    setInterval(() => {
      this.#now.disable()
      this.#before = this.#now
      this.#now = startMonitor()
    }, LAG_WINDOW_MS).unref()
  }

  secondsAt(percentile: number): number {
    const nanoseconds = Math.max(
      this.#before.percentile(percentile),
      this.#now.percentile(percentile),
    )
    // What is measured is the time between two looks, of which one is due each resolution.
    return Math.max(0, nanoseconds / 1_000_000 - LAG_RESOLUTION_MS) / 1_000
  }
}

function startMonitor(): ReturnType<typeof monitorEventLoopDelay> {
  const monitor = monitorEventLoopDelay({ resolution: LAG_RESOLUTION_MS })
  monitor.enable()
  return monitor
}
