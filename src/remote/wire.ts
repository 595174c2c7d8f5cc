/**
 * A connection to another server, read as it is wanted: nothing is taken from the socket that
 * nobody asked for, so memory stays bounded and a slow reader slows the sender. Whatever goes wrong
 * is one failure, OLD_SERVER_AWAY: its own users are not at fault.
 */
import { connect, isIP, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { Failure } from '../base/failure.ts'
import { LF } from '../protocol/wire/ascii.ts'
import { unstuff } from '../protocol/wire/dot-unstuffing.ts'
import { formatOldServer, type OldServer } from './old-server.ts'

const CONNECT_MS = 10_000
/** LIMIT: RFC 1939 allows 512 octets; some are longer. */
const LINE_MAX_OCTETS = 4_096
/** How long it may be silent while something of it is waited for. */
export const SILENCE_MS = 60_000
/** LIMIT: who is slower than 200 octets a second, for longer than it may be silent, is given up. */
const MS_AN_OCTET = 5
const EMPTY = Buffer.alloc(0)

export class Wire {
  readonly #server: OldServer
  #socket: Socket
  #held: Buffer = EMPTY
  #failure: Failure | undefined
  #wake: () => void = () => {}
  readonly #read = (): void => this.#wake()
  #silenceMs = SILENCE_MS
  /** How long it may still be waited for: waiting spends it, octets that come earn it back. */
  #leftMs = SILENCE_MS
  #deadline: NodeJS.Timeout | undefined

  private constructor(server: OldServer, socket: Socket) {
    this.#server = server
    this.#socket = socket
  }

  /**
   * @param signal closes it, also while it is opened
   * @throws {Failure} OLD_SERVER_AWAY, also for a certificate that does not prove who it is
   */
  static async open(server: OldServer, signal?: AbortSignal): Promise<Wire> {
    const wire = new Wire(server, connect({ host: server.host, port: server.port }))
    const abort = (): void => wire.close(new Error('given up'))
    signal?.addEventListener('abort', abort)
    wire.#socket.once('close', () => signal?.removeEventListener('abort', abort))
    if (signal?.aborted) abort()
    await wire.#begin('connect')
    if (server.security === 'tls') await wire.secure()
    return wire
  }

  /** TLS from here on. What came before it in the clear is not believed. */
  async secure(): Promise<void> {
    if (this.#held.length > 0 || this.#socket.read() !== null)
      throw this.#fail(new Error('it said more before TLS than it was asked for'))
    const { host, authority } = this.#server
    this.#socket.off('readable', this.#read)
    this.#socket = connectTls({
      socket: this.#socket,
      host,
      ...(isIP(host) === 0 && { servername: host }),
      ...(authority !== undefined && { ca: authority }),
    })
    await this.#begin('secureConnect')
  }

  /** How long it may be silent from here on, while something of it is waited for. */
  set silenceMs(ms: number) {
    this.#silenceMs = ms
    this.#leftMs = ms
  }

  /** Closes it then, whatever it says until then. @param ms undefined: not any more */
  endIn(ms: number | undefined): void {
    clearTimeout(this.#deadline)
    if (ms === undefined || this.#failure !== undefined) return
    this.#deadline = setTimeout(() => this.close(new Error('it takes too long')), ms)
  }

  send(octets: Buffer | string): void {
    if (this.#failure === undefined) this.#socket.write(octets)
  }

  /** The next line, as latin1, without its line end. @throws {Failure} OLD_SERVER_AWAY */
  async line(): Promise<string> {
    for (let from = 0; ; ) {
      const end = this.#held.indexOf(LF, from)
      const isTooLong = (end === -1 ? this.#held.length : end) > LINE_MAX_OCTETS
      if (isTooLong) throw this.#fail(new Error('it sent a line that is too long'))
      if (end !== -1) {
        const line = this.#held.toString('latin1', 0, end).replace(/\r$/, '')
        this.#held = this.#held.subarray(end + 1)
        return line
      }
      from = this.#held.length
      await this.#more()
    }
  }

  /** The octets of a multi-line reply up to its end, unstuffed. To be read to the end. */
  async *body(): AsyncGenerator<Buffer> {
    for (let isFirst = true; ; await this.#more()) {
      const { content, rest, hasEnded } = unstuff(this.#held, isFirst)
      // Also by a dot alone, which is no content.
      if (rest.length < this.#held.length) isFirst = false
      this.#held = rest
      if (content.length > 0) yield content
      if (hasEnded) return
    }
  }

  /** Reads on, for nothing, until the connection ends. Always throws. */
  async drain(): Promise<never> {
    for (;;) {
      this.#held = EMPTY
      await this.#more()
    }
  }

  /** @param error undefined: nothing went wrong */
  close(error?: Error): void {
    this.#failure ??= new Failure('OLD_SERVER_AWAY', this.#tell(error ?? new Error('closed')))
    clearTimeout(this.#deadline)
    this.#socket.destroy()
    this.#wake()
  }

  async #begin(event: 'connect' | 'secureConnect'): Promise<void> {
    const socket = this.#socket
    const isReady = new Promise<void>((resolve) => socket.once(event, () => resolve()))
    const isOver = new Promise<void>((resolve) => {
      this.#wake = resolve
    })
    const end = (error: Error): void => {
      // Of what lies below TLS by now, TLS tells.
      if (socket === this.#socket) this.close(error)
    }
    socket.on('error', end)
    for (const event of ['end', 'close'])
      socket.on(event, () => end(new Error('it closed the connection')))
    const timer = setTimeout(() => this.close(new Error('it does not answer')), CONNECT_MS)
    await Promise.race([isReady, isOver])
    clearTimeout(timer)
    if (this.#failure !== undefined) throw this.#failure
    socket.on('readable', this.#read)
  }

  async #more(): Promise<void> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure
      const isAwake = new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      const chunk: Buffer | null = this.#socket.read()
      if (chunk !== null) {
        this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk])
        this.#leftMs = Math.min(this.#silenceMs, this.#leftMs + chunk.length * MS_AN_OCTET)
        return
      }
      const began = performance.now()
      const error = new Error('it fell silent, or is too slow')
      const timer = setTimeout(() => this.close(error), this.#leftMs)
      await isAwake
      clearTimeout(timer)
      this.#leftMs -= performance.now() - began
    }
  }

  #fail(error: Error): Failure {
    this.close(error)
    return this.#failure as Failure
  }

  #tell({ message }: Error): string {
    return `the POP3 server ${formatOldServer(this.#server)}: ${message}`
  }
}
