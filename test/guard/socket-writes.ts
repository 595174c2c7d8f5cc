/** Counts what a server in this process writes to its sockets: each is a system call at least. */
import { channel } from 'node:diagnostics_channel'
import type { Socket } from 'node:net'

type Done = (error?: Error | null) => void

export class SocketWrites {
  writes = 0
  /** Octets that the kernel has taken. */
  octetsTaken = 0
  readonly #port: number
  #isStopped = false
  readonly #accepted = channel('net.server.socket')
  readonly #watch = (message: unknown): void => this.#accept((message as { socket: Socket }).socket)

  /**
   * Of connections from now on, after their greeting: that is written before we are told.
   * @param address `host:port` of the server
   */
  constructor(address: string) {
    this.#port = Number(address.slice(address.lastIndexOf(':') + 1))
    this.#accepted.subscribe(this.#watch)
  }

  stop(): void {
    this.#isStopped = true
    this.#accepted.unsubscribe(this.#watch)
  }

  #accept(socket: Socket): void {
    if (socket.localPort !== this.#port) return
    const write = socket._write
    const writeMany = socket._writev
    socket._write = (chunk, encoding, done) =>
      write.call(socket, chunk, encoding, this.#count(chunk.length, done))
    if (writeMany === undefined) return
    socket._writev = (chunks, done) => {
      const octets = chunks.reduce((sum, { chunk }) => sum + chunk.length, 0)
      writeMany.call(socket, chunks, this.#count(octets, done))
    }
  }

  #count(octets: number, done: Done): Done {
    if (!this.#isStopped) this.writes++
    return (error) => {
      this.octetsTaken += octets
      done(error)
    }
  }
}
