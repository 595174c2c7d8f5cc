/**
 * What every client sent and was told, in the order in which this one process sent and read it. Times are
 * milliseconds of one monotonic clock since the start of the run. The checker (checker.ts) reads nothing
 * else but this and the final state of the database.
 */
import { createWriteStream, type WriteStream } from 'node:fs'
import { finished } from 'node:stream/promises'

/** Number, unique-id, octets: as LIST and UIDL say. */
export type ListEntry = readonly [number: number, uniqueId: string, octets: number]

/** Of commands: `sentAt` is when the command was sent, `at` of the event when its answer had been read. */
export type HistoryFact =
  /** Before the first RCPT. `digest` and `octets` are of the content as it must be stored. */
  | {
      type: 'delivery'
      token: string
      recipients: string[]
      digest: string
      octets: number
      node: string
    }
  /** What the sender was told of one recipient. After DATA 250: acknowledged. */
  | {
      type: 'delivery-told'
      token: string
      recipient: string
      stage: 'rcpt' | 'data'
      code: number
    }
  /** PASS is being sent. */
  | { type: 'login'; session: number; maildrop: string; node: string }
  | { type: 'login-told'; session: number; reply: string }
  | { type: 'stat'; session: number; sentAt: number; count: number; octets: number }
  /** LIST and UIDL together; what only one of them names is a violation of its own. */
  | { type: 'list'; session: number; sentAt: number; entries: ListEntry[]; mismatch?: string }
  /** `digest` of RETR: what follows the lines that the server put before. `names`: users named in those. */
  | {
      type: 'message'
      session: number
      sentAt: number
      command: 'RETR' | 'TOP'
      number: number
      token: string
      octets: number
      digest?: string
      names: string[]
    }
  /** DELE is being sent; it counts unless it is refused. */
  | { type: 'mark'; session: number; number: number }
  /** RSET was answered +OK. */
  | { type: 'unmark'; session: number; sentAt: number }
  /** Another command (DELE, NOOP) was answered +OK. */
  | { type: 'ok'; session: number; sentAt: number; command: string }
  /** A command in TRANSACTION that was answered -ERR; `number` of a DELE. */
  | {
      type: 'refused'
      session: number
      sentAt: number
      command: string
      number?: number
      reply: string
    }
  /** QUIT is being sent in TRANSACTION. */
  | { type: 'quit'; session: number }
  | { type: 'quit-told'; session: number; reply: string }
  /** The client has stopped reading: when the server ends the session it will not notice. */
  | { type: 'deaf'; session: number }
  /** The end of the connection, as the client saw or made it. */
  | { type: 'closed'; session: number; by: 'client' | 'server' }
  | {
      type: 'fault'
      name: string
      phase: 'begun' | 'over' | 'note' | 'failed' | 'skipped'
      detail?: string
    }
  | {
      type: 'window'
      kind: 'leases-lost' | 'silenced'
      node?: string
      phase: 'open' | 'over'
      id: number
    }
  /** After the faults: how long it took until this maildrop could be opened and left again. */
  | { type: 'recovered'; maildrop: string; tookMs: number; reply: string }

export type HistoryEvent = HistoryFact & { at: number }

export class History {
  readonly events: HistoryEvent[] = []
  readonly #file: WriteStream | undefined
  readonly #startedAt = performance.now()

  /** @param path of a file of JSON lines; undefined: memory only */
  constructor(path?: string) {
    this.#file = path === undefined ? undefined : createWriteStream(path)
  }

  now(): number {
    return Math.round((performance.now() - this.#startedAt) * 1000) / 1000
  }

  note(fact: HistoryFact): void {
    const event = { at: this.now(), ...fact }
    this.events.push(event)
    this.#file?.write(`${JSON.stringify(event)}\n`)
  }

  async close(): Promise<void> {
    if (this.#file === undefined) return
    this.#file.end()
    await finished(this.#file)
  }
}
