/**
 * What metrics are made of: numbers that cost a hot path some nanoseconds, and their form for
 * whoever merges and prints them. prom-client's own counters look their labels up and check them at
 * each step, a microsecond or so; here a label is looked up by name, and the text is made when it
 * is asked for. Labels are words of ours or of a fixed list: never a name that a peer or tenant
 * chose.
 */

/** One line of the page to be. */
interface Sample {
  labels: Record<string, string>
  value: number
  /** If it differs from the metric's, as a histogram's do. */
  metricName?: string
}

/** A metric of one process, as prom-client's `getMetricsAsJSON` gives its own. */
export interface MetricReport {
  name: string
  help: string
  type: 'counter' | 'gauge' | 'histogram'
  aggregator: 'sum'
  values: Sample[]
}

interface Part {
  samples(name: string, labels: Record<string, string>): Sample[]
}

/** A number. */
export class Tally implements Part {
  value = 0

  add(count = 1): void {
    this.value += count
  }

  samples(_name: string, labels: Record<string, string>): Sample[] {
    return [{ labels, value: this.value }]
  }
}

/** How many values lay within each bound, and what they come to together. */
export class Distribution implements Part {
  readonly #bounds: readonly number[]
  /** One more than bounds: what is above the last. */
  readonly #counts: Float64Array
  #sum = 0

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds
    this.#counts = new Float64Array(bounds.length + 1)
  }

  observe(value: number): void {
    let at = 0
    while (at < this.#bounds.length && value > (this.#bounds[at] ?? 0)) at++
    this.#counts[at] = (this.#counts[at] ?? 0) + 1
    this.#sum += value
  }

  samples(name: string, labels: Record<string, string>): Sample[] {
    let count = 0
    const buckets = [...this.#counts].map((inBucket, at) => {
      count += inBucket
      const le = String(this.#bounds[at] ?? '+Inf')
      return { metricName: `${name}_bucket`, labels: { ...labels, le }, value: count }
    })
    return [
      ...buckets,
      { metricName: `${name}_sum`, labels, value: this.#sum },
      { metricName: `${name}_count`, labels, value: count },
    ]
  }
}

/** LIMIT: values of one metric. Labels are from fixed lists; a mistake must not fill the memory. */
const PARTS_MAX = 400
const OVERFLOW = 'other'

/** One metric: a part for each combination of up to two labels. */
export class Metric<T extends Part = Part> {
  readonly name: string
  readonly help: string
  readonly type: MetricReport['type']
  readonly labelNames: readonly string[]
  /** It holds no value of its own: it is zeroed, and set by `whenRead`, at each reading. */
  readonly isRead: boolean
  readonly #make: () => T
  readonly #parts = new Map<string, Map<string, T>>()
  #partCount = 0
  #plain: T | undefined

  constructor(
    description: Pick<Metric, 'name' | 'help' | 'type' | 'labelNames' | 'isRead'>,
    make: () => T,
  ) {
    this.name = description.name
    this.help = description.help
    this.type = description.type
    this.labelNames = description.labelNames
    this.isRead = description.isRead
    this.#make = make
    // What has no labels is 0 from the start; of the others nobody knows which there will be.
    if (this.labelNames.length === 0) this.of()
  }

  /** The part under these labels, in the order of `labelNames`. */
  of(first = '', second = ''): T {
    if (first === '') {
      this.#plain ??= this.#make()
      return this.#plain
    }
    return this.#parts.get(first)?.get(second) ?? this.#enter(first, second)
  }

  #enter(first: string, second: string): T {
    if (this.#partCount >= PARTS_MAX && first !== OVERFLOW) return this.of(OVERFLOW, OVERFLOW)
    this.#partCount++
    const part = this.#make()
    const among = this.#parts.get(first) ?? new Map<string, T>()
    this.#parts.set(first, among.set(second, part))
    return part
  }

  /** Forgets all values. */
  clear(): void {
    this.#plain = undefined
    this.#parts.clear()
    this.#partCount = 0
    if (this.labelNames.length === 0) this.of()
  }

  report(): MetricReport {
    const { name, help, type } = this
    const values = this.#plain?.samples(name, {}) ?? []
    for (const [first, among] of this.#parts)
      for (const [second, part] of among)
        values.push(...part.samples(name, this.#label(first, second)))
    return { name, help, type, aggregator: 'sum', values }
  }

  #label(first: string, second: string): Record<string, string> {
    const [firstName = '', secondName] = this.labelNames
    return { [firstName]: first, ...(secondName === undefined ? {} : { [secondName]: second }) }
  }
}

const readings = new Set<() => void>()

/**
 * @param read sets the metrics that hold no value of their own, by adding to them
 * @returns to be called when what it reads is gone
 */
export function whenRead(read: () => void): () => void {
  readings.add(read)
  return () => readings.delete(read)
}

/** All of `metrics` as they are in this process now. */
export function readMetrics(metrics: readonly Metric[]): MetricReport[] {
  for (const metric of metrics) if (metric.isRead) metric.clear()
  for (const read of readings) read()
  return metrics.map((metric) => metric.report())
}
