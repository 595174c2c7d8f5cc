/**
 * A client for line protocols with numeric replies (LMTP): sends what it is told, octet for octet, and
 * waits for what the server says, never for time.
 */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

export class LineClient {
  readonly socket: Socket
  /** Resolves when the connection is closed. */
  readonly closed: Promise<void>
  #received = ''
  #isClosed = false
  #wake = (): void => {}

  private constructor(socket: Socket) {
    this.socket = socket
    socket.setEncoding('latin1')
    socket.on('data', (text: string) => {
      this.#received += text
      this.#wake()
    })
    socket.on('error', () => {})
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        this.#isClosed = true
        this.#wake()
        resolve()
      })
    })
  }

  /** @param address as the settings write it: host:port, [v6]:port or unix:/path */
  static async connect(address: string): Promise<LineClient> {
    const colon = address.lastIndexOf(':')
    const socket = address.startsWith('unix:')
      ? connect(address.slice('unix:'.length))
      : connect(Number(address.slice(colon + 1)), address.slice(0, colon).replace(/[[\]]/g, ''))
    const client = new LineClient(socket)
    await once(socket, 'connect')
    return client
  }

  send(octets: string | Buffer): void {
    this.socket.write(typeof octets === 'string' ? Buffer.from(octets, 'latin1') : octets)
  }

  /** Sends and waits until the kernel has taken it: a peer that does not read holds it up. */
  async sendAll(octets: Buffer): Promise<void> {
    if (!this.socket.write(octets)) await once(this.socket, 'drain')
  }

  /** Whether nothing came that was not read yet. */
  get isSilent(): boolean {
    return this.#received === ''
  }

  /** One line without its CRLF. Throws if the connection closes before. */
  async line(): Promise<string> {
    for (;;) {
      const end = this.#received.indexOf('\r\n')
      if (end >= 0) {
        const line = this.#received.slice(0, end)
        this.#received = this.#received.slice(end + 2)
        return line
      }
      if (this.#isClosed) throw new Error(`closed after: ${JSON.stringify(this.#received)}`)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }

  /** A whole reply: lines "250-…" up to the one "250 …", joined by LF. */
  async reply(): Promise<string> {
    const lines: string[] = []
    for (;;) {
      const line = await this.line()
      lines.push(line)
      if (line[3] !== '-') return lines.join('\n')
    }
  }

  async replies(count: number): Promise<string[]> {
    const all: string[] = []
    while (all.length < count) all.push(await this.reply())
    return all
  }

  /** Sends one command, reads its reply. */
  async ask(command: string): Promise<string> {
    this.send(`${command}\r\n`)
    return this.reply()
  }

  end(): void {
    this.socket.end()
  }

  destroy(): void {
    this.socket.destroy()
  }
}
