/**
 * One LMTP connection: smtp-server's protocol code with what Popgres needs otherwise. Replies may
 * bring their own enhanced status code; there is no wait for early talkers before the greeting
 * (peers are trusted, and 100 ms a connection is much for an MTA); stuffed dots are taken off in
 * one go (the library gives up its turn for each, and dot lines alone took seconds); a stop lets a
 * running transaction end and then says 421. The methods overridden here belong to smtp-server's
 * published types; test/integration/delivery holds what is relied on.
 */
import type { Socket } from 'node:net'
import type { SMTPServer, SMTPServerDataStream } from 'smtp-server'
import { SMTPConnection } from 'smtp-server/lib/smtp-connection.js'
import type { SMTPStream } from 'smtp-server/lib/smtp-stream.js'
import { unstuff } from '../protocol/wire/dot-unstuffing.ts'
import type { Connection } from './listener.ts'
import type { LmtpTransaction } from './lmtp-transaction.ts'

/** RFC 3463: class, subject, detail. */
const ENHANCED_CODE = /^[245]\.\d{1,3}\.\d{1,3} /

/**
 * A path with a quoted local part (RFC 5321 §4.1.2), which may hold blanks, "@" and brackets: what
 * stands before it, the quoted string, what follows it.
 */
const QUOTED_PATH = /^([^<"]*<)("(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\[\x20-\x7e])*")(@[^<>\s"]+>.*)$/

export interface LmtpPeer {
  /** IP address; undefined: a Unix socket. */
  address: string | undefined
  isTrusted: boolean
}

export class LmtpConnection extends SMTPConnection implements Connection {
  readonly closed: Promise<void>
  readonly peer: LmtpPeer
  transaction: LmtpTransaction | undefined
  #isDraining = false

  constructor(server: SMTPServer, socket: Socket, peer: LmtpPeer) {
    super(server, socket)
    // The library writes no reply once the peer has closed its side.
    socket.allowHalfOpen = false
    this.peer = peer
    this.closed = new Promise((resolve) => {
      socket.once('close', () => resolve())
    })
  }

  override init(): void {
    this._setListeners(() => {
      const { connections, options } = this._server
      if (connections.size > (options.maxClients ?? Number.POSITIVE_INFINITY))
        this.send(421, '4.3.2 too many connections, try again later', false)
      else this.connectionReady()
    })
  }

  /** Replies to commands that came together leave together, as RFC 2920 §3.2 wants it. */
  override _createParser(): SMTPStream {
    const parser = super._createParser()
    const write = parser._write.bind(parser)
    return Object.assign(parser, {
      _feedDataStream: feedDataStream,
      _write: (...[chunk, encoding, next]: Parameters<SMTPStream['_write']>): void => {
        this._socket.cork()
        write(chunk, encoding, (error) => {
          this._socket.uncork()
          next(error)
        })
      },
    })
  }

  /** What waits for the socket to take replies must not hold them back. */
  override _whenWritable(next: () => void): void {
    if (this._socket.writableNeedDrain)
      while (this._socket.writableCorked > 0) this._socket.uncork()
    super._whenWritable(next)
  }

  override send(code: number, text?: string | string[] | null, context?: string | false): void {
    const isCoded = typeof text === 'string' && ENHANCED_CODE.test(text)
    super.send(code, text, isCoded ? false : context)
  }

  /** The library's parser cuts at blanks and "@": it is given a plain word for a quoted string. */
  override _parseAddressCommand(
    name: string,
    command: Buffer | string,
  ): ReturnType<SMTPConnection['_parseAddressCommand']> {
    const [, before, quoted, after] = QUOTED_PATH.exec(command.toString()) ?? []
    if (quoted === undefined) return super._parseAddressCommand(name, command)
    const parsed = super._parseAddressCommand(name, `${before}quoted${after}`)
    if (parsed === false) return false
    return { ...parsed, address: `${quoted}${parsed.address.slice('quoted'.length)}` }
  }

  /** Called at the greeting, at LHLO and RSET, and when the replies after DATA were written. */
  override _resetSession(): void {
    super._resetSession()
    this.transaction = undefined
    if (this.#isDraining) setImmediate(() => this.#sayGoodbye())
  }

  drain(): void {
    this.#isDraining = true
    if (this.transaction === undefined) this.#sayGoodbye()
  }

  destroy(): void {
    this._socket.destroy()
  }

  #sayGoodbye(): void {
    if (!this._closing) this.send(421, '4.3.2 shutting down, try again later', false)
  }
}

/** In place of SMTPStream's: takes the next octets of a message. */
function feedDataStream(this: SMTPStream, chunk: Buffer, done: () => void): void {
  const octets = this._lastBytes === false ? chunk : Buffer.concat([this._lastBytes, chunk])
  const { content, rest, hasEnded } = unstuff(octets, this._atDataStart)
  this._countDataBytes(content.length)
  this._lastBytes = hasEnded ? false : rest
  if (hasEnded) {
    this._endDataMode(content, rest, done)
    return
  }
  if (rest.length < octets.length) this._atDataStart = false
  const stream = this._dataStream
  if (content.length === 0 || !stream?.writable || stream.write(content) || stream.destroyed) done()
  else whenDrained(stream, done)
}

/** One that is destroyed never drains, it only closes. */
function whenDrained(stream: SMTPServerDataStream, done: () => void): void {
  const goOn = (): void => {
    stream.off('drain', goOn)
    stream.off('close', goOn)
    done()
  }
  stream.on('drain', goOn)
  stream.on('close', goOn)
}
