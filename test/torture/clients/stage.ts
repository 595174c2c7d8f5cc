/** What all clients of a run share: whom they play, where they go, when they stop. */
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

/** One that runs; undefined: none does. */
export function pickNode({ cluster }: Stage, random: Random): Node | undefined {
  const running = cluster.nodes.filter(({ addresses }) => addresses !== undefined)
  return running.length === 0 ? undefined : random.pick(running)
}
