/**
 * What this node says of itself over HTTP: /livez (leave this process alone), /readyz (send clients
 * here) and /metrics. The probes read what is known already: they cost nothing, however often
 * asked, and do not wait for a database that is away. The mail is worth more than its meter: if the
 * address cannot be listened on, the log says so and the node serves all the same.
 */
import type { Log } from '../base/log.ts'
import type { ListenAddress } from '../base/network.ts'
import {
  type Page,
  type RunningHttpServer,
  startHttpServer,
} from '../server/listening/http-server.ts'
import type { Health } from './crew.ts'
import { explainListening } from './listen-failure.ts'
import { NodeMetrics } from './node-metrics.ts'

export interface NodeStatusOptions {
  /** None: nothing is served. */
  addresses: readonly ListenAddress[]
  log: Log
  version: string
  /** Whether the node was told to end. */
  isStopping: () => boolean
}

export interface RunningNodeStatus {
  /** As bound, in the form of the settings. */
  readonly addresses: readonly string[]
  stop(): Promise<void>
}

/** To be called before workers are forked. Never fails. */
export async function startNodeStatus(options: NodeStatusOptions): Promise<RunningNodeStatus> {
  const { addresses, log, version, isStopping } = options
  const metrics = new NodeMetrics(version, isStopping)
  const pages = {
    '/livez': () => healthPage(metrics.liveness(), 'alive'),
    '/readyz': () => healthPage(metrics.readiness(), 'ready'),
    '/metrics': () => metricsPage(metrics, log),
  }
  let server: RunningHttpServer | undefined
  try {
    server = await explainListening('POPGRES_HTTP_LISTEN', startHttpServer(addresses, pages))
    if (server.addresses.length > 0)
      log.info({ addresses: server.addresses }, 'health and metrics are served')
  } catch (error) {
    log.error({ error }, 'health and metrics are not served')
  }
  return {
    addresses: server?.addresses ?? [],
    stop: async () => {
      metrics.close()
      await server?.stop()
    },
  }
}

function healthPage(health: Health, what: string): Page {
  if (health.isWell) return { status: 200, text: `${what}\n` }
  return { status: 503, text: `not ${what}: ${health.reason}\n` }
}

async function metricsPage(metrics: NodeMetrics, log: Log): Promise<Page> {
  try {
    const text = await metrics.read()
    return { status: 200, type: 'text/plain; version=0.0.4; charset=utf-8', text }
  } catch (error) {
    log.error({ error }, 'the metrics could not be merged')
    return { status: 500, text: 'the metrics could not be merged; the log says why\n' }
  }
}
