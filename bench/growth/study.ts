/**
 * A study: what an operation costs at growing sizes of something. Each point has the median time
 * and, because that is what a busy machine leaves alone, CPU and statements of one operation.
 */
import { DatabaseMeter } from '../measure/database.ts'
import { cpuMillis } from '../measure/processes.ts'
import type { LinePlot } from '../report/plot.ts'
import { median } from '../report/results.ts'
import { formatTable } from '../report/table.ts'
import type { PopgresServer } from '../servers/popgres.ts'
import { LineSession } from './line-session.ts'

export interface Point {
  operation: string
  size: number
  ms: number
  serverCpuMs: number
  databaseCpuMs: number
  statements: number
  memoryKib?: number
}

export interface Study {
  title: string
  /** What grows. */
  sizeLabel: string
  points: Point[]
}

/** The Popgres that is looked at, and the way to look. */
export class Stage {
  readonly server: PopgresServer
  readonly #meter: DatabaseMeter

  static async open(server: PopgresServer): Promise<Stage> {
    return new Stage(server, await DatabaseMeter.open(server.databaseUrl))
  }

  private constructor(server: PopgresServer, meter: DatabaseMeter) {
    this.server = server
    this.#meter = meter
  }

  close(): Promise<void> {
    return this.#meter.close()
  }

  /** Carries it out that often, one after the other. */
  async measure(
    operation: string,
    size: number,
    times: number,
    work: (turn: number) => Promise<void>,
  ): Promise<Point> {
    const { server, database } = this.server.pids()
    const before = await this.#meter.read()
    const [serverBefore, databaseBefore] = [cpuMillis(server), cpuMillis(database)]
    const durations: number[] = []
    for (let turn = 0; turn < times; turn++) {
      const startedAt = performance.now()
      await work(turn)
      durations.push(performance.now() - startedAt)
    }
    const serverCpuMs = (cpuMillis(server) - serverBefore) / times
    const databaseCpuMs = (cpuMillis(database) - databaseBefore) / times
    const after = await this.#meter.read()
    const calls = [...after.statements.values()].reduce((sum, each) => sum + each.calls, 0)
    const callsBefore = [...before.statements.values()].reduce((sum, each) => sum + each.calls, 0)
    const statements = (calls - callsBefore) / times
    return { operation, size, ms: median(durations), serverCpuMs, databaseCpuMs, statements }
  }

  login(address: string, password?: string): Promise<LineSession> {
    return LineSession.login(this.server.pop3, address, password)
  }

  /** A whole session: STAT and QUIT. */
  async poll(address: string): Promise<void> {
    const session = await this.login(address)
    await session.ask('STAT')
    await session.quit()
  }

  async openLmtp(): Promise<LineSession> {
    const { lmtp } = this.server
    if (lmtp === undefined) throw new Error('no LMTP')
    const session = await LineSession.open(lmtp)
    await session.hello()
    return session
  }
}

export function formatStudy({ title, sizeLabel, points }: Study): string {
  const hasMemory = points.some(({ memoryKib }) => memoryKib !== undefined)
  const head = ['operation', sizeLabel, 'ms', 'CPU server ms', 'CPU database ms', 'statements']
  const rows = points.map((point) => [
    point.operation,
    point.size.toLocaleString('en'),
    ...[point.ms, point.serverCpuMs, point.databaseCpuMs, point.statements].map((value) =>
      String(Number(value.toPrecision(3))),
    ),
    ...(hasMemory ? [point.memoryKib === undefined ? '' : point.memoryKib.toFixed(1)] : []),
  ])
  const columns = hasMemory ? [...head, 'KiB a session'] : head
  return `## ${title}\n\n${formatTable(
    columns,
    rows,
    columns.map((_, column) => column > 0),
  )}`
}

/** Of CPU, server and database together: time depends on what else the machine does. */
export function plotOf({ title, sizeLabel, points }: Study): LinePlot {
  const operations = [...new Set(points.map(({ operation }) => operation))]
  return {
    title,
    xLabel: sizeLabel,
    yLabel: 'CPU of an operation, ms',
    isXLogarithmic: true,
    isYLogarithmic: true,
    lines: operations.map((operation) => ({
      label: operation,
      points: points
        .filter((point) => point.operation === operation)
        .map(({ size, serverCpuMs, databaseCpuMs }) => ({
          x: size,
          y: Math.max(0.01, serverCpuMs + databaseCpuMs),
        })),
    })),
  }
}
