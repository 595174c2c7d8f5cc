/**
 * The way from one node to its PostgreSQL: a TCP proxy that can be cut, refuse, stall, slow down, swallow
 * answers, and look at what passes. Both directions keep back-pressure, so that nothing piles up here.
 *
 * Hooks see the octets of the protocol as they come from the socket, not messages: a message may come
 * in pieces and several at once.
 */
import { connect, createServer, type Server, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

export interface ProxiedConnection {
  /** 1, 2, 3 … in order of their coming. */
  readonly number: number
  /** Towards the node: what arrives on it are requests. */
  readonly client: Socket
  /** Towards PostgreSQL: what arrives on it are answers. */
  readonly target: Socket
  /** Ends both sides without a word to either (RST or FIN, as the kernel likes). */
  cut(): void
  /** Ends the node's side only: PostgreSQL carries out what it has, and its end comes with its answer. */
  cutClient(): void
}

/** @returns what is passed on instead; undefined: as it is */
export type ProxyHook = (chunk: Buffer, connection: ProxiedConnection) => Buffer | undefined

export class DatabaseProxy {
  readonly #server: Server
  readonly #connections = new Set<ProxiedConnection>()
  #count = 0
  #isRefusing = false
  #isStalled = false
  #isSwallowing = false
  #delayMs = 0
  /** Where NEW connections lead; those that are open stay where they are. */
  targetPort: number
  /** Of what goes to PostgreSQL, before it is passed on. */
  onRequest: ProxyHook | undefined
  /** Of what PostgreSQL answers, before it is passed on. */
  onAnswer: ProxyHook | undefined

  private constructor(targetPort: number) {
    this.targetPort = targetPort
    this.#server = createServer((client) => this.#accept(client))
  }

  static async open(targetPort: number): Promise<DatabaseProxy> {
    const proxy = new DatabaseProxy(targetPort)
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve))
    return proxy
  }

  get port(): number {
    const address = this.#server.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  }

  get connections(): readonly ProxiedConnection[] {
    return [...this.#connections]
  }

  /** Ends every connection. @param isRefusing new ones too, until `heal` */
  cut(isRefusing = false): void {
    this.#isRefusing = isRefusing
    for (const connection of this.connections) connection.cut()
  }

  /** Nothing passes in either direction, new connections are accepted and hear nothing; see `heal`. */
  stall(): void {
    this.#isStalled = true
    for (const { client, target } of this.#connections) {
      client.pause()
      target.pause()
    }
  }

  /** Half open: requests arrive, answers are dropped for good. Cut before you heal. */
  swallowAnswers(): void {
    this.#isSwallowing = true
  }

  /** Each piece is held for that long, in each direction. */
  slow(delayMs: number): void {
    this.#delayMs = delayMs
  }

  /** Nothing is wrong any more: what a stall has held back goes on its way. */
  heal(): void {
    this.#isRefusing = false
    this.#isSwallowing = false
    this.#delayMs = 0
    this.onRequest = undefined
    this.onAnswer = undefined
    this.#isStalled = false
    for (const { client, target } of this.#connections) {
      client.resume()
      target.resume()
    }
  }

  async close(): Promise<void> {
    this.cut(true)
    await new Promise((resolve) => this.#server.close(resolve))
  }

  #accept(client: Socket): void {
    if (this.#isRefusing) {
      client.resetAndDestroy()
      return
    }
    const target = connect({ port: this.targetPort, host: '127.0.0.1', noDelay: true })
    client.setNoDelay(true)
    const connection: ProxiedConnection = {
      number: ++this.#count,
      client,
      target,
      cut: () => {
        client.destroy()
        target.destroy()
      },
      cutClient: () => client.destroy(),
    }
    this.#connections.add(connection)
    this.#pass(client, target, connection, (chunk) => this.onRequest?.(chunk, connection) ?? chunk)
    this.#pass(target, client, connection, (chunk) =>
      this.#isSwallowing ? undefined : (this.onAnswer?.(chunk, connection) ?? chunk),
    )
    if (this.#isStalled) {
      client.pause()
      target.pause()
    }
  }

  #pass(
    from: Socket,
    to: Socket,
    connection: ProxiedConnection,
    look: (chunk: Buffer) => Buffer | undefined,
  ): void {
    const write = (chunk: Buffer): void => {
      if (to.destroyed) {
        from.end()
        return
      }
      if (to.write(chunk)) return
      from.pause()
      to.once('drain', () => {
        if (!this.#isStalled) from.resume()
      })
    }
    // What is held goes first, also when nothing is held any more: octets never overtake octets.
    let held = 0
    let last = Promise.resolve()
    from.on('data', (chunk: Buffer) => {
      const passed = look(chunk)
      if (passed === undefined || passed.length === 0) return
      if (this.#delayMs === 0 && held === 0) {
        write(passed)
        return
      }
      held++
      from.pause()
      const due = delay(this.#delayMs)
      last = last
        .then(() => due)
        .then(() => {
          held--
          write(passed)
          if (!this.#isStalled && !to.writableNeedDrain) from.resume()
        })
    })
    // The end of one side reaches the other after what was said before it; an error ends both.
    from.on('end', () => void last.then(() => to.end()))
    from.on('error', () => connection.cut())
    from.on('close', () => {
      if (from === connection.target) connection.cut()
      if (to.destroyed) this.#connections.delete(connection)
    })
  }
}
