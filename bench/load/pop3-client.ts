/**
 * A POP3 client that believes nothing: every reply is compared with what it has to be while it
 * arrives (replies.ts). No promises, no lines as text: callbacks, and octets where the socket puts
 * them, in one buffer for all connections. Anything wrong ends the whole job through `onWrong`.
 */
import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls, createSecureContext, type TLSSocket } from 'node:tls'
import type { Endpoint } from '../servers/server.ts'
import {
  DeliveredMessage,
  KnownContent,
  Listing,
  OkLine,
  type Reply,
  show,
  WrongReply,
} from './replies.ts'

const EMPTY = Buffer.alloc(0)
/** What a read brings is compared before the next one, and copied if it is only a beginning. */
const received = Buffer.allocUnsafeSlow(256 * 1_024)
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
  /** Told when the peer, too, has closed. */
  #closed: (() => void) | undefined

  constructor(endpoint: Endpoint, onWrong: (error: Error) => void, tls?: TlsMemory) {
    this.#onWrong = onWrong
    const { host, port } = endpoint
    const callback = (count: number): boolean => this.#take(received.subarray(0, count))
    // Half open, as else each would be shut down before it is closed.
    const where = { host, port, allowHalfOpen: true, onread: { buffer: received, callback } }
    if (endpoint.tls) {
      const session = tls?.session === undefined ? {} : { session: tls.session }
      this.#socket = connectTls({ ...where, ...TLS, ...session })
      if (tls !== undefined) this.#socket.on('session', tls.onSession)
    } else this.#socket = connectTcp(where)
    this.#socket.on('error', (error) => this.#end(`the connection broke: ${error.message}`))
    this.#socket.on('end', () => this.#end('the peer hung up'))
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

  /** @param otherwise what is said of a server that sends anything else */
  expectKnown(wire: Buffer, otherwise: string, done: () => void): void {
    this.#expected.push(new KnownContent(wire, otherwise, done))
  }

  /** @param wire of wireOf */
  expectMessage(octets: number, wire: Buffer, done: () => void): void {
    this.#expected.push(new KnownContent(wire, 'other content than was stored', done, octets))
  }

  /** A message after header lines of the server's own. */
  expectDelivered(octets: number, wire: Buffer, done: (octets: number) => void): void {
    this.#expected.push(new DeliveredMessage(octets, wire, done))
  }

  /** @param closed when the peer, too, has closed */
  quit(replied: () => void, closed: () => void): void {
    this.#mayClose = true
    this.#closed = closed
    this.expectOk(replied)
    this.write('QUIT\r\n')
  }

  destroy(): void {
    this.#mayClose = true
    this.#expected.length = 0
    this.#next = 0
    this.#socket.destroy()
  }

  /** @returns whether to read on */
  #take(chunk: Buffer): boolean {
    const octets = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    this.#rest = EMPTY
    let at = 0
    try {
      while (at < octets.length) {
        const reply = this.#expected[this.#next]
        if (reply === undefined) throw new WrongReply(`nobody asked for ${show(octets, at)}`)
        const taken = reply.take(octets, at)
        if (taken < 0) {
          this.#rest = Buffer.from(octets.subarray(at))
          return true
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
    return true
  }

  /** @param why it is wrong, unless everything has been said */
  #end(why: string): void {
    const isRight = this.#mayClose && this.#next === this.#expected.length
    this.destroy()
    if (isRight) this.#closed?.()
    else this.#onWrong(new WrongReply(why))
  }
}
