/** One handshake: from a plain socket to an encrypted one, or to its end. */
import type { Socket } from 'node:net'
import { TLSSocket, type TLSSocketOptions } from 'node:tls'
import { Failure } from '../../base/failure.ts'
import { readClientHello } from './client-hello.ts'
import { reasonOf } from './key-pair.ts'

export class Handshake {
  /** Rejects with a Failure TLS_HANDSHAKE when the connection has ended, whoever ended it. */
  readonly broken: Promise<never>
  readonly #plain: Socket
  #reason = 'the peer is gone'
  /** A peer that has closed its side will not say the rest. */
  readonly #giveUp = (): void => this.end('the peer is gone')

  constructor(plain: Socket) {
    this.#plain = plain
    this.broken = new Promise((_, reject) => {
      const tell = (): void => reject(new Failure('TLS_HANDSHAKE', `no TLS: ${this.#reason}`))
      if (plain.closed) tell()
      else plain.once('close', tell)
    })
    // Who waits for it hears of it; it is no news once the handshake is done.
    this.broken.catch(() => {})
    plain.on('error', (error) => this.#note(error))
    plain.once('end', this.#giveUp)
    // Told only once, and perhaps before we listened.
    if (plain.readableEnded) this.#giveUp()
  }

  /** @param reason for the log */
  end(reason: string): void {
    this.#reason = reason
    this.#plain.destroy()
  }

  /** Waits for the client's hello, and leaves it to be read again. */
  async readServerName(): Promise<string | undefined> {
    const plain = this.#plain
    let octets = Buffer.alloc(0)
    for (;;) {
      const chunk: Buffer | null = plain.read()
      if (chunk !== null) octets = Buffer.concat([octets, chunk])
      const reading = readClientHello(octets)
      if (reading.kind === 'read') {
        plain.unshift(octets)
        return reading.serverName
      }
      await new Promise((resolve) => plain.once('readable', resolve))
    }
  }

  /** Does the server's side; what was left to be read is the client's first word. */
  async secure(options: TLSSocketOptions): Promise<TLSSocket> {
    if (this.#plain.destroyed) return this.broken
    const socket = new TLSSocket(this.#plain, {
      ...options,
      isServer: true,
      highWaterMark: this.#plain.writableHighWaterMark,
    } as TLSSocketOptions)
    // Node tells what is wrong with the TLS of a socket that was made by hand in this event alone,
    // before and after the handshake: unheard, it would stay open.
    socket.on('_tlsError', (error: Error) => {
      this.#note(error)
      socket.destroy(error)
    })
    socket.once('end', this.#giveUp)
    await new Promise((resolve) => socket.once('secure', resolve))
    for (const each of [this.#plain, socket]) each.off('end', this.#giveUp)
    return socket
  }

  #note(error: Error): void {
    this.#reason = reasonOf(error)
  }
}
