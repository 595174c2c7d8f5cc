/** What the machine itself can do, for comparison: bare argon2, and commits that are on the disk. */
import { availableParallelism } from 'node:os'
import argon2 from 'argon2'
import pg from 'pg'
import { PASSWORD } from '../load/content.ts'
import type { Row } from '../report/results.ts'

const ARGON2 = { type: argon2.argon2id, memoryCost: 19_456, timeCost: 2, parallelism: 1 }
const CLIENTS = 16

interface Measured {
  operations: number
  seconds: number
  cpuMs: number
  latencies: number[]
}

async function measure(
  atOnce: number,
  seconds: number,
  once: (client: number) => Promise<unknown>,
): Promise<Measured> {
  const began = performance.now()
  const cpu = process.cpuUsage()
  const latencies: number[] = []
  const loops = Array.from({ length: atOnce }, async (_, client) => {
    while (performance.now() < began + seconds * 1_000) {
      const asked = performance.now()
      await once(client)
      latencies.push(performance.now() - asked)
    }
  })
  await Promise.all(loops)
  const { user, system } = process.cpuUsage(cpu)
  const took = (performance.now() - began) / 1_000
  latencies.sort((a, b) => a - b)
  return { operations: latencies.length, seconds: took, cpuMs: (user + system) / 1_000, latencies }
}

const toRow = (workload: string, unit: string, measured: Measured): Row => {
  const { operations, seconds, cpuMs, latencies } = measured
  const at = (share: number): number => latencies[Math.floor(latencies.length * share)] ?? 0
  return {
    workload,
    server: 'popgres',
    unit,
    rate: operations / seconds,
    generatorCpuMs: (cpuMs / operations) * 1_000,
    latencyMs: { p50: at(0.5), p99: at(0.99) },
  }
}

/** As many at once as there are cores, and nothing else to do. */
export async function measureArgon2(seconds: number): Promise<Row> {
  const hash = await argon2.hash(PASSWORD, ARGON2)
  const once = (): Promise<boolean> => argon2.verify(hash, PASSWORD)
  return toRow('bare-argon2', 'verifications', await measure(availableParallelism(), seconds, once))
}

/** One row a commit; with one client for the latency, with many for the rate. */
export async function measureCommits(url: string, seconds: number): Promise<Row> {
  const clients = Array.from({ length: CLIENTS }, () => new pg.Client(url))
  await Promise.all(clients.map((client) => client.connect()))
  try {
    const [first] = clients
    await first?.query('create table if not exists bench_commits (at timestamptz not null)')
    const once = (client: number): Promise<unknown> =>
      clients[client]?.query('insert into bench_commits values (now())') ?? Promise.resolve()
    const alone = await measure(1, seconds / 2, once)
    const together = await measure(CLIENTS, seconds / 2, once)
    await first?.query('drop table bench_commits')
    const row = toRow('durable-commit', 'commits', together)
    const commitMs = alone.latencies[Math.floor(alone.operations / 2)] ?? 0
    return { ...row, figures: { commitMs }, note: 'rate: 16 clients; commit: one' }
  } finally {
    await Promise.all(clients.map((client) => client.end()))
  }
}
