/** Asks a node's HTTP pages, and reads the metrics as Prometheus would. */
import { vi } from 'vitest'
import type { NodeProcess } from './node-process.ts'

export interface Answer {
  status: number
  text: string
}

const WITHIN_MS = 30_000

export class StatusPages {
  readonly #address: string

  constructor(address: string) {
    this.#address = address
  }

  /** Of a node that was started with an address for them. */
  static async of(node: NodeProcess): Promise<StatusPages> {
    const { addresses } = await node.record('health and metrics are served')
    return new StatusPages(String((addresses as string[])[0]))
  }

  async ask(path: string, method = 'GET'): Promise<Answer> {
    const answer = await fetch(`http://${this.#address}${path}`, { method })
    return { status: answer.status, text: await answer.text() }
  }

  /** Asks again and again until the answer is as wanted. */
  async until(path: string, isWanted: (answer: Answer) => boolean): Promise<Answer> {
    return vi.waitFor(async () => {
      const answer = await this.ask(path)
      if (!isWanted(answer)) throw new Error(`${path} stays ${answer.status}: ${answer.text}`)
      return answer
    }, WITHIN_MS)
  }

  /** Values by `name{labels}` as they are printed. */
  async metrics(): Promise<Map<string, number>> {
    return readMetricsPage((await this.ask('/metrics')).text)
  }

  async untilMetric(series: string, isWanted: (value: number) => boolean): Promise<number> {
    let value = Number.NaN
    await vi.waitFor(async () => {
      value = (await this.metrics()).get(series) ?? Number.NaN
      if (!isWanted(value)) throw new Error(`${series} stays ${value}`)
    }, WITHIN_MS)
    return value
  }
}

function readMetricsPage(text: string): Map<string, number> {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  return new Map(
    lines.map((line) => {
      const at = line.lastIndexOf(' ')
      return [line.slice(0, at), Number(line.slice(at + 1))]
    }),
  )
}
