/**
 * The cluster that is tortured: one PostgreSQL, and several nodes as an operator starts them (`node
 * dist/main.js serve`), each on its own way to the database.
 */

import { type Ending, NodeProcess } from '../support/node-process.ts'
import { servingUrl } from '../support/postgres-setup.ts'
import { isRunning, untilGone } from '../support/processes.ts'
import { DatabaseProxy } from './database-proxy.ts'
import type { ClusterPlan, TortureCluster, TortureNode, TorturePostgres } from './fault.ts'
import { makePostgres } from './postgres.ts'
import { childrenOf } from './process-tree.ts'

/** Of each node: 2 + 2 + 1 processes serve. */
const WORKERS: readonly number[] = [2, 2, 1]
const WORKERS_GONE_MS = 30_000

export class Cluster implements TortureCluster {
  readonly directory: string
  readonly nodes: readonly Node[]
  #postgres: TorturePostgres

  private constructor(directory: string, postgres: TorturePostgres, nodes: readonly Node[]) {
    this.directory = directory
    this.#postgres = postgres
    this.nodes = nodes
  }

  /** @param afterDatabase is called when the tables are there and no node runs yet */
  static async start(
    plan: ClusterPlan,
    afterDatabase: (postgres: TorturePostgres) => Promise<void>,
  ): Promise<Cluster> {
    const postgres = await makePostgres(`${plan.directory}/home`, plan.parameters)
    const nodes: Node[] = []
    const cluster = new Cluster(plan.directory, postgres, nodes)
    try {
      await afterDatabase(postgres)
      for (const [index, workers] of WORKERS.entries()) {
        const proxy = await DatabaseProxy.open(postgres.port)
        nodes.push(new Node(`node ${index + 1}`, proxy, workers, postgres.url, plan))
      }
      await Promise.all(nodes.map((node) => node.start()))
      return cluster
    } catch (error) {
      await cluster.stop()
      throw error
    }
  }

  get postgres(): TorturePostgres {
    return this.#postgres
  }

  adopt(postgres: TorturePostgres): void {
    this.#postgres = postgres
    for (const { proxy } of this.nodes) proxy.targetPort = postgres.port
  }

  /** Of the nodes alone; PostgreSQL goes on. */
  async stopNodes(): Promise<void> {
    for (const node of this.nodes) node.proxy.heal()
    await Promise.all(this.nodes.map((node) => node.stop()))
  }

  async stop(): Promise<void> {
    await this.stopNodes()
    for (const { proxy } of this.nodes) await proxy.close()
    await this.#postgres.stop()
  }
}

export class Node implements TortureNode {
  readonly name: string
  readonly proxy: DatabaseProxy
  readonly workerCount: number
  readonly #env: Record<string, string>
  readonly #nodeOptions: readonly string[]
  /** All that there were, the current one last. */
  readonly #processes: NodeProcess[] = []
  #addresses: { pop3: string; lmtp: string } | undefined
  #isRunning = false

  constructor(
    name: string,
    proxy: DatabaseProxy,
    workerCount: number,
    ownerUrl: string,
    { env, nodeOptions }: ClusterPlan,
  ) {
    const url = new URL(servingUrl(ownerUrl))
    url.port = String(proxy.port)
    this.name = name
    this.proxy = proxy
    this.workerCount = workerCount
    this.#env = { DATABASE_URL: url.toString(), POPGRES_WORKERS: String(workerCount), ...env }
    this.#nodeOptions = nodeOptions
  }

  get isRunning(): boolean {
    return this.#isRunning
  }

  get process(): NodeProcess {
    const current = this.#processes.at(-1)
    if (current === undefined) throw new Error(`${this.name} was never started`)
    return current
  }

  get pid(): number {
    return this.process.pid
  }

  /** Lines of the log, of every process that there was. */
  get log(): string[] {
    return this.#processes.flatMap(({ records }) =>
      records.map((record) => JSON.stringify({ on: this.name, ...record })),
    )
  }

  /** Where clients go; undefined while it does not run. */
  get addresses(): { pop3: string; lmtp: string } | undefined {
    return this.#addresses
  }

  workers(): number[] {
    return this.#isRunning ? childrenOf(this.pid) : []
  }

  async start(
    options: { env?: Record<string, string>; nodeOptions?: string[] } = {},
  ): Promise<void> {
    if (this.#isRunning) throw new Error(`${this.name} runs already`)
    const clone = process.env.TORTURE_CLONE
    const started = new NodeProcess({
      ...(clone === undefined ? {} : { clone }),
      env: { ...this.#env, ...options.env },
      nodeOptions: [...this.#nodeOptions, ...(options.nodeOptions ?? [])],
    })
    this.#processes.push(started)
    this.#isRunning = true
    void started.exited.then(() => {
      if (this.#processes.at(-1) !== started) return
      this.#isRunning = false
      this.#addresses = undefined
    })
    this.#addresses = await started.addresses()
    await started.crew(this.workerCount)
  }

  async stop(): Promise<Ending> {
    if (this.#processes.length === 0) return { status: null, signal: null }
    const workers = this.workers()
    await this.process.destroy()
    await untilGone(() => workers.some(isRunning), WORKERS_GONE_MS)
    return await this.process.exited
  }

  async kill(): Promise<void> {
    const workers = this.workers()
    this.process.child.kill('SIGKILL')
    await this.process.exited
    await untilGone(() => workers.some(isRunning), WORKERS_GONE_MS)
  }
}
