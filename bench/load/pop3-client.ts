/**
 * A POP3 client that believes nothing: every reply is compared with what it has to be while it
 * arrives (replies.ts). No promises, no lines as text: callbacks, and Buffers as the socket brings
 * them. Anything wrong ends the whole job through `onWrong`.
 */
import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls, createSecureContext, type TLSSocket } from 'node:tls'
import type { Endpoint } from '../servers/server.ts'
import {
  DeliveredMessage,
  Listing,
  OkLine,
  type Reply,
  show,
  WholeMessage,
  WrongReply,
} from './replies.ts'

const EMPTY = Buffer.alloc(0)
/** One for all connections: each would make its own, and fill it with every CA there is. */
const secureContext = createSecureContext()
const TLS = { secureContext, rejectUnauthorized: false, checkServerIdentity: () => undefined }

/** Sessions of TLS, kept to be resumed. */
export interface TlsMemory {
  session: Buffer | undefined
  onSession: (session: Buffer) => void
}

export class Pop3Client {
  readonly #socket: Socket
  readonly #onWrong: (error: Error) => void
  readonly #expected: Reply[] = []
  /** Of the next reply in `#expected`. */
  #next = 0
  #rest: Buffer = EMPTY
  #mayClose = false

  constructor(endpoint: Endpoint, onWrong: (error: Error) => void, tls?: TlsMemory) {
    this.#onWrong = onWrong
    const { host, port } = endpoint
    if (endpoint.tls) {
      const session = tls?.session === undefined ? {} : { session: tls.session }
      this.#socket = connectTls({ host, port, ...TLS, ...session })
      if (tls !== undefined) this.#socket.on('session', tls.onSession)
    } else this.#socket = connectTcp({ host, port })
    this.#socket.on('data', (chunk: Buffer) => this.#take(chunk))
    this.#socket.on('error', (error) => this.#wrong(`the connection broke: ${error.message}`))
    this.#socket.on('end', () => {
      if (!this.#mayClose || this.#next < this.#expected.length) this.#wrong('the peer hung up')
    })
  }

  get isResumed(): boolean {
    return (this.#socket as TLSSocket).isSessionReused?.() ?? false
  }

  write(text: string): void {
    this.#socket.write(text, 'latin1')
  }

  /** @param start what has to follow "+OK " */
  expectOk(done: () => void, start?: Buffer): void {
    this.#expected.push(new OkLine(done, start))
  }

  expectListing(done: (body: Buffer) => void): void {
    this.#expected.push(new Listing(done))
  }

  /** @param wire of wireOf */
  expectMessage(octets: number, wire: Buffer, done: () => void): void {
    this.#expected.push(new WholeMessage(octets, wire, done))
  }

  /** A message after header lines of the server's own. */
  expectDelivered(octets: number, wire: Buffer, done: (octets: number) => void): void {
    this.#expected.push(new DeliveredMessage(octets, wire, done))
  }

  /** @param closed when the peer, too, has closed */
  quit(replied: () => void, closed: () => void): void {
    this.#mayClose = true
    this.#socket.once('close', closed)
    this.expectOk(replied)
    this.write('QUIT\r\n')
  }

  destroy(): void {
    this.#mayClose = true
    this.#expected.length = 0
    this.#next = 0
    this.#socket.destroy()
  }

  #take(chunk: Buffer): void {
    const octets = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    this.#rest = EMPTY
    let at = 0
    try {
      while (at < octets.length) {
        const reply = this.#expected[this.#next]
        if (reply === undefined) throw new WrongReply(`nobody asked for ${show(octets, at)}`)
        const taken = reply.take(octets, at)
        if (taken < 0) {
          this.#rest = octets.subarray(at)
          return
        }
        at = taken
        if (!reply.isDone) continue
        this.#next += 1
        if (this.#next === this.#expected.length) {
          this.#expected.length = 0
          this.#next = 0
        }
        reply.done()
      }
    } catch (error) {
      this.destroy()
      this.#onWrong(error as Error)
    }
  }

  #wrong(why: string): void {
    if (this.#mayClose && this.#next >= this.#expected.length) return
    this.destroy()
    this.#onWrong(new WrongReply(why))
  }
}
