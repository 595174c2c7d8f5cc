/**
 * Opens the listening sockets of one protocol and knows every connection that came in, so that a
 * stop can tell them all, wait for them, and in the end destroy the rest. In a cluster worker
 * `listen` shares the supervisor's handle: addresses are the same in every worker.
 */
import { createServer, type Server, type Socket } from 'node:net'
import { formatListenAddress, type ListenAddress, unmapped } from '../base/network.ts'
import { Roster } from '../base/roster.ts'
import { listenOnPath } from './listening/unix-socket.ts'

/** One accepted connection, whatever it speaks. */
export interface Connection {
  /** Say goodbye at the next occasion that the protocol allows. */
  drain(): void
  destroy(): void
  readonly closed: Promise<void>
}

/**
 * LIMIT: octets buffered for writing before back-pressure sets in. Node's 16 KiB would stop a batch
 * of pipelined replies after two messages of 10 KB.
 */
const HIGH_WATER_MARK_OCTETS = 131_072

/**
 * A connection that was silent for so long is probed: once a second, ten times (libuv's figures),
 * then it is dead. So a peer that vanished between two commands is noticed within 70 s. While a
 * reply is not acknowledged the kernel does not probe but sends it again, for as long as
 * net.ipv4.tcp_retries2 says: node cannot change that, autologout ends it.
 */
const KEEP_ALIVE_MS = 60_000

export class Listener {
  readonly #servers: Server[] = []
  readonly #connections = new Roster<Connection>()
  readonly #accept: (socket: Socket) => Connection

  readonly #keepAliveMs: number

  /** @param keepAliveMs silence after which a connection is probed */
  constructor(accept: (socket: Socket) => Connection, keepAliveMs = KEEP_ALIVE_MS) {
    this.#accept = accept
    this.#keepAliveMs = keepAliveMs
  }

  /** @returns the addresses as bound, in the form of the settings */
  async open(addresses: readonly ListenAddress[]): Promise<string[]> {
    return Promise.all(addresses.map((address) => this.#listen(address)))
  }

  async #listen(address: ListenAddress): Promise<string> {
    const server = createServer(
      {
        noDelay: true,
        keepAlive: true,
        keepAliveInitialDelay: this.#keepAliveMs,
        highWaterMark: HIGH_WATER_MARK_OCTETS,
        // A peer may send its last command and close its side: it still gets its replies.
        allowHalfOpen: true,
      },
      (socket) => this.#track(this.#accept(socket)),
    )
    this.#servers.push(server)
    if ('path' in address) await listenOnPath(server, address.path)
    else await listenOnPort(server, address)
    const bound = server.address()
    if (bound === null || typeof bound === 'string') return formatListenAddress(address)
    return formatListenAddress({ host: bound.address, port: bound.port })
  }

  #track(connection: Connection): void {
    void connection.closed.then(this.#connections.enter(connection))
  }

  /** Accepts no more, and lets every connection go on by itself: resolves with the last. */
  async retire(): Promise<void> {
    for (const server of this.#servers) server.close()
    await Promise.all(this.#connections.members().map((connection) => connection.closed))
  }

  /** Accepts no more, lets every connection finish what it is in, at most for `graceMs`. */
  async close(graceMs: number): Promise<void> {
    void this.retire()
    const all = this.#connections.members()
    for (const connection of all) connection.drain()
    const timer = setTimeout(() => {
      for (const connection of all) connection.destroy()
    }, graceMs)
    await Promise.all(all.map((connection) => connection.closed))
    clearTimeout(timer)
  }
}

function listenOnPort(server: Server, address: { host: string; port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(address, resolve)
  })
}

/** Address of the peer for logs and lists; a Unix socket has none. */
export function clientOf(socket: Socket): string {
  return unmapped(socket.remoteAddress ?? 'local')
}
