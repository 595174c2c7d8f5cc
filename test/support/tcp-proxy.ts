/**
 * A TCP proxy that stands between a node and its PostgreSQL (or between a client and a node) and can
 * misbehave on demand: swallow what the server answers, cut, refuse. Events, never time.
 */
import { connect, createServer, type Server, type Socket } from 'node:net'

export class TcpProxy {
  readonly #server: Server
  readonly #targetPort: number
  readonly #pairs = new Set<{ client: Socket; target: Socket }>()
  #isRefusing = false
  #isSilent = false
  /** Called with each chunk that the server answers; what it returns is passed on instead. */
  onAnswer: ((chunk: Buffer, connection: object) => Buffer) | undefined
  /** Called with each chunk that goes to the server, before it is passed on. */
  onRequest: ((chunk: Buffer, cut: () => void, connection: object) => void) | undefined

  /** Called with how many are connected, when somebody comes. */
  onOpenCount: ((count: number) => void) | undefined

  private constructor(targetPort: number) {
    this.#targetPort = targetPort
    this.#server = createServer((client) => this.#accept(client))
  }

  static async open(targetPort: number): Promise<TcpProxy> {
    const proxy = new TcpProxy(targetPort)
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve))
    return proxy
  }

  get port(): number {
    const address = this.#server.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  }

  /** From now on the server's answers are dropped; requests still arrive. */
  swallowAnswers(): void {
    this.#isSilent = true
  }

  /** Every connection is cut; new ones too if `isRefusing`. */
  cut(isRefusing: boolean): void {
    this.#isRefusing = isRefusing
    for (const { client, target } of this.#pairs) {
      client.destroy()
      target.destroy()
    }
  }

  /** Who is connected stays so; nobody else gets in. */
  refuse(): void {
    this.#isRefusing = true
  }

  /** As if nothing had been. */
  heal(): void {
    this.#isRefusing = false
    this.#isSilent = false
    this.onRequest = undefined
    this.onAnswer = undefined
  }

  async close(): Promise<void> {
    this.cut(true)
    await new Promise((resolve) => this.#server.close(resolve))
  }

  #accept(client: Socket): void {
    if (this.#isRefusing) {
      client.destroy()
      return
    }
    const target = connect(this.#targetPort, '127.0.0.1')
    const pair = { client, target }
    this.#pairs.add(pair)
    this.onOpenCount?.(this.#pairs.size)
    const cut = () => {
      client.destroy()
      target.destroy()
      this.#pairs.delete(pair)
    }
    client.on('data', (chunk: Buffer) => {
      target.write(chunk)
      const cutClient = () => {
        client.destroy()
        this.#pairs.delete(pair)
      }
      this.onRequest?.(chunk, cutClient, pair)
    })
    target.on('data', (chunk: Buffer) => {
      if (!this.#isSilent) client.write(this.onAnswer?.(chunk, pair) ?? chunk)
    })
    for (const socket of [client, target]) socket.on('error', cut).on('close', cut)
  }
}
