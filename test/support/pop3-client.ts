/**
 * A POP3 client for tests that sees every octet: it waits for what the server says, never for time.
 */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { type ConnectionOptions, type TLSSocket, connect as tlsConnect } from 'node:tls'

/** A test that looks at certificates says what it trusts; the others trust all. */
const ANY_CERTIFICATE: ConnectionOptions = { rejectUnauthorized: false, ALPNProtocols: ['pop3'] }

export class Pop3Client {
  /** Resolves when the connection is closed, with whatever was not read. */
  readonly closed: Promise<Buffer>
  #socket: Socket
  /** Of twice what it has had to hold: appending to a long message costs what is appended. */
  #store = Buffer.allocUnsafeSlow(65_536)
  /** What was not read yet, in the store. */
  #buffer = this.#store.subarray(0, 0)
  #wake: (() => void) | undefined
  #isClosed = false
  readonly #receive = (chunk: Buffer): void => {
    let begin = this.#buffer.byteOffset
    const end = this.#buffer.length + chunk.length
    if (begin + end > this.#store.length) {
      this.#store = Buffer.allocUnsafeSlow(2 * Math.max(end, 32_768))
      this.#buffer.copy(this.#store)
      begin = 0
    }
    chunk.copy(this.#store, begin + end - chunk.length)
    this.#buffer = this.#store.subarray(begin, begin + end)
    this.#wake?.()
  }

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', this.#receive)
    socket.on('error', () => undefined)
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        this.#isClosed = true
        this.#wake?.()
        resolve(this.#buffer)
      })
    })
  }

  /**
   * @param address `host:port`; the greeting is read by `line()`
   * @param allowHalfOpen its side stays open when the server closes the other
   */
  static async connect(address: string, allowHalfOpen = false): Promise<Pop3Client> {
    const socket = connect({ ...portOf(address), allowHalfOpen })
    const client = new Pop3Client(socket)
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    return client
  }

  /** @param address of a POP3S listener; throws the error of a handshake that fails */
  static async connectTls(address: string, options: ConnectionOptions = {}): Promise<Pop3Client> {
    const socket = tlsConnect({ ...portOf(address), ...ANY_CERTIFICATE, ...options })
    const client = new Pop3Client(socket)
    await once(socket, 'secureConnect')
    return client
  }

  /** As accepted, or the TLS on top of it. */
  get socket(): Socket {
    return this.#socket
  }

  /** Says STLS and does the handshake. Throws the error of one that fails. */
  async startTls(options: ConnectionOptions = {}): Promise<TLSSocket> {
    const reply = await this.ask('STLS')
    if (!reply.startsWith('+OK')) throw new Error(reply)
    return this.shakeHands(options)
  }

  /** The handshake after an STLS that was said otherwise. */
  async shakeHands(options: ConnectionOptions = {}): Promise<TLSSocket> {
    this.#socket.off('data', this.#receive)
    const socket = tlsConnect({ socket: this.#socket, ...ANY_CERTIFICATE, ...options })
    socket.on('data', this.#receive)
    await once(socket, 'secureConnect')
    socket.on('error', () => undefined)
    this.#socket = socket
    return socket
  }

  /** Connected, greeted and logged in. */
  static async login(address: string, user: string, password: string): Promise<Pop3Client> {
    const client = await Pop3Client.connect(address)
    await client.line()
    await client.ask(`USER ${user}`)
    const reply = await client.ask(`PASS ${password}`)
    if (reply.startsWith('+OK')) return client
    client.#socket.destroy()
    throw new Error(reply)
  }

  send(text: string): void {
    this.#socket.write(text, 'latin1')
  }

  /** Sends one command, reads one line. */
  async ask(command: string): Promise<string> {
    this.send(`${command}\r\n`)
    return this.line()
  }

  /** Sends one command, reads its multi-line reply: status line and the octets up to the terminator. */
  async askMulti(command: string): Promise<{ status: string; raw: Buffer }> {
    const status = await this.ask(command)
    if (!status.startsWith('+OK')) return { status, raw: Buffer.alloc(0) }
    await this.#has(3)
    if (this.#buffer.subarray(0, 3).toString() === '.\r\n') {
      this.#take(3)
      return { status, raw: Buffer.alloc(0) }
    }
    const end = await this.#find('\r\n.\r\n')
    const raw = this.#take(end + 2)
    this.#take(3)
    return { status, raw }
  }

  /** A message as RETR gave it, its dots unstuffed. */
  async retrieve(command: string): Promise<Buffer> {
    const { status, raw } = await this.askMulti(command)
    if (!status.startsWith('+OK')) throw new Error(status)
    return Buffer.from(raw.toString('latin1').replace(/(^|\r\n)\./g, '$1'), 'latin1')
  }

  /** One line without its CRLF. Throws if the connection closes before. */
  async line(): Promise<string> {
    const end = await this.#find('\r\n')
    return this.#take(end + 2)
      .subarray(0, end)
      .toString('latin1')
  }

  async #has(octets: number): Promise<boolean> {
    while (this.#buffer.length < octets) {
      if (this.#isClosed) return false
      await this.#more()
    }
    return true
  }

  async #find(text: string): Promise<number> {
    let from = 0
    for (;;) {
      const at = this.#buffer.indexOf(text, from, 'latin1')
      if (at >= 0) return at
      if (this.#isClosed) throw new Error(`closed after: ${this.#buffer.toString('latin1')}`)
      from = Math.max(0, this.#buffer.length - text.length)
      await this.#more()
    }
  }

  #more(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = undefined
        resolve()
      }
    })
  }

  #take(octets: number): Buffer {
    const taken = this.#buffer.subarray(0, octets)
    this.#buffer = this.#buffer.subarray(octets)
    return taken
  }
}

function portOf(address: string): { host: string; port: number } {
  const colon = address.lastIndexOf(':')
  return { host: address.slice(0, colon), port: Number(address.slice(colon + 1)) }
}
