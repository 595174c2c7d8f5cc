/**
 * The metrics of a node: what its workers and the supervisor count, merged into one page. A sum
 * over processes must not fall when one of them ends or does not answer, or Prometheus takes it for
 * a restart and counts everything twice: what an ended worker had counted stays in the sum, and of
 * one that does not answer in time its last report is used. (That, and a page that fails as a whole
 * when one worker is late, is why prom-client's own cluster module is not used; its merging and
 * printing are.)
 */
import { AggregatorRegistry, type Registry } from 'prom-client'
import { METRICS, PER_WORKER, reportMetrics } from '../base/metrics.ts'
import { type MetricReport, whenRead } from '../base/tally.ts'
import { Crew, type Health, type Member } from './crew.ts'
import { measureProcess } from './worker-reports.ts'

const ANSWER_MS = 1_000
/** What the supervisor knows of workers, and is not told of itself. */
const OF_WORKERS: ReadonlySet<string> = new Set(
  [METRICS.workerUp, METRICS.workerPid, METRICS.workerSilence, METRICS.workerDatabase].map(
    ({ name }) => name,
  ),
)
/** The label `worker` of this process. */
const SUPERVISOR = 'supervisor'

export class NodeMetrics {
  readonly #crew: Crew
  /** What workers that have ended had counted; added up at the next reading. */
  #departed: (readonly MetricReport[])[] = []
  #lastNumber = 0
  /** Who still owes an answer to the request under way. */
  readonly #owed = new Set<Member>()
  #settle: () => void = () => {}
  #reading: Promise<string> | undefined

  constructor(version: string, isStopping: () => boolean) {
    this.#crew = new Crew(
      isStopping,
      (member, number) => this.#receive(member, number),
      (member) => this.#bury(member),
    )
    measureProcess()
    const startedAt = Date.now() / 1_000
    whenRead(() => {
      const workers = this.#crew.members().filter(({ isServing }) => isServing)
      METRICS.nodeReady.of().add(this.readiness().isWell ? 1 : 0)
      METRICS.nodeWorkers.of().add(workers.length)
      METRICS.nodeStart.of().add(startedAt)
      METRICS.nodeInfo.of(version, process.version).add(1)
    })
  }

  readiness(): Health {
    return this.#crew.readiness()
  }

  liveness(): Health {
    return this.#crew.liveness()
  }

  close(): void {
    this.#crew.close()
  }

  /** The page; those who ask meanwhile get the same. */
  read(): Promise<string> {
    this.#reading ??= this.#readOnce().finally(() => {
      this.#reading = undefined
    })
    return this.#reading
  }

  async #readOnce(): Promise<string> {
    const members = this.#crew.members()
    await this.#ask(members)
    const reports = members.map((member) => labelled(member.metrics, String(member.seat)))
    const signs = signsOfLife(members, this.#owed)
    const own = labelled(
      reportMetrics().filter(({ name }) => !OF_WORKERS.has(name)),
      SUPERVISOR,
    )
    await this.#addUpDeparted()
    return merge([own, ...reports, ...this.#departed, signs]).metrics()
  }

  async #addUpDeparted(): Promise<void> {
    const departed = this.#departed
    if (departed.length < 2) return
    this.#departed = []
    const sum = (await merge(departed).getMetricsAsJSON()) as unknown as MetricReport[]
    this.#departed.push(sum)
  }

  /** Until all have answered, or it takes too long. */
  async #ask(members: readonly Member[]): Promise<void> {
    const number = ++this.#lastNumber
    this.#owed.clear()
    for (const member of members) {
      if (!member.worker.isConnected()) continue
      this.#owed.add(member)
      member.worker.send({ kind: 'report', number }, () => {})
    }
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, ANSWER_MS)
      this.#settle = () => {
        if (this.#owed.size > 0) return
        clearTimeout(timer)
        resolve()
      }
      this.#settle()
    })
  }

  #receive(member: Member, number: number): void {
    if (number !== this.#lastNumber) return
    this.#owed.delete(member)
    this.#settle()
  }

  #bury(member: Member): void {
    this.#owed.delete(member)
    const counted = member.metrics.filter(
      ({ type, name }) => type !== 'gauge' && !name.startsWith(PER_WORKER),
    )
    if (counted.length > 0) this.#departed.push(counted)
    this.#settle()
  }
}

function merge(reports: readonly (readonly MetricReport[])[]): Registry {
  return AggregatorRegistry.aggregate([...reports])
}

/** What each process tells of itself gets the label that says which it is. */
function labelled(reports: readonly MetricReport[], worker: string): MetricReport[] {
  return reports.map((report) => {
    if (!report.name.startsWith(PER_WORKER)) return report
    const values = report.values.map(({ labels, ...rest }) => ({
      ...rest,
      labels: { worker, ...labels },
    }))
    return { ...report, values }
  })
}

/** @param owing did not answer in time */
function signsOfLife(members: readonly Member[], owing: ReadonlySet<Member>): MetricReport[] {
  const told = (metric: (typeof METRICS)['workerUp'], measure: (member: Member) => number) => ({
    ...metric.report(),
    values: members.map((member) => ({
      labels: { worker: String(member.seat) },
      value: measure(member),
    })),
  })
  return [
    told(METRICS.workerUp, (member) => (owing.has(member) ? 0 : 1)),
    told(METRICS.workerPid, ({ worker }) => worker.process.pid ?? 0),
    told(METRICS.workerSilence, ({ silentBeats }) => silentBeats),
    told(METRICS.workerDatabase, ({ hasDatabase }) => (hasDatabase ? 1 : 0)),
  ]
}
