/** What all clients of a run share: whom they play, where they go, when they stop. */
import type { Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import type { Cluster, Node } from '../cluster.ts'
import type { History } from '../history.ts'
import type { Random } from '../random.ts'

export const DOMAINS: readonly { name: string; secondLogin: string }[] = [
  { name: 'one.torture.test', secondLogin: 'refuse' },
  { name: 'two.torture.test', secondLogin: 'wait' },
  { name: 'three.torture.test', secondLogin: 'take-over' },
]
const LOCAL_PARTS: readonly string[] = ['ada', 'bea', 'cid', 'dot', 'eve']
export const MAILDROPS: readonly string[] = DOMAINS.flatMap(({ name }) =>
  LOCAL_PARTS.map((localPart) => `${localPart}@${name}`),
)
export const PASSWORD = 'a password to be tortured with'

export interface Stage {
  readonly cluster: Cluster
  readonly history: History
  /** Aborted: begin nothing more; a session that is open comes to its end by itself. */
  readonly stopping: AbortSignal
  /** Numbers of sessions, tokens of messages. */
  nextNumber(): number
}

/** Without a greeting another node is tried. */
const GREETING_MS = 3_000
/** A server that says nothing for that long has lost us: one of these, as clients differ. */
const PATIENCE_MS: readonly number[] = [6_000, 20_000, 90_000]

/** Goes to one node after another, each time any that runs, until the stage stops. */
export async function visitNodes(
  stage: Stage,
  random: Random,
  pauseMs: number,
  visit: (node: Node, addresses: { pop3: string; lmtp: string }) => Promise<void>,
): Promise<void> {
  while (!stage.stopping.aborted) {
    const running = stage.cluster.nodes.filter(({ addresses }) => addresses !== undefined)
    const node = running.length === 0 ? undefined : random.pick(running)
    // Refused or cut: what was told until then is in the history.
    if (node?.addresses !== undefined) await visit(node, node.addresses).catch(() => {})
    await delay(random.integer(0, node === undefined ? 300 : pauseMs))
  }
}

/** How long a client waits for its server, whose socket is destroyed then. */
export class Patience {
  readonly #greeting: NodeJS.Timeout
  readonly #rest: NodeJS.Timeout

  constructor(random: Random, socket: Socket) {
    this.#greeting = setTimeout(() => socket.destroy(), GREETING_MS)
    this.#rest = setTimeout(() => socket.destroy(), random.pick(PATIENCE_MS))
  }

  greeted(): void {
    clearTimeout(this.#greeting)
  }

  renew(): void {
    this.#rest.refresh()
  }

  end(): void {
    clearTimeout(this.#greeting)
    clearTimeout(this.#rest)
  }
}
