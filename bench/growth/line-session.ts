/** One POP3 or LMTP session that does one thing after the other, for latency and not for load. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { PASSWORD } from '../load/content.ts'
import type { Endpoint } from '../servers/server.ts'

const LINE_END = Buffer.from('\r\n')
const TERMINATOR = Buffer.from('\r\n.\r\n')

export class LineSession {
  readonly #socket: Socket
  #chunks: Buffer[] = []
  #length = 0
  #awaited: { end: Buffer; resolve(reply: Buffer): void; reject(error: Error): void } | undefined

  static async open({ host, port }: Endpoint): Promise<LineSession> {
    const session = new LineSession(connect({ host, port, noDelay: true }))
    await session.#reply(LINE_END, '')
    return session
  }

  /** Greeted and logged in. */
  static async login(
    endpoint: Endpoint,
    address: string,
    password = PASSWORD,
  ): Promise<LineSession> {
    const session = await LineSession.open(endpoint)
    await session.ask(`USER ${address}`)
    await session.ask(`PASS ${password}`)
    return session
  }

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', (chunk: Buffer) => this.#take(chunk))
    socket.on('error', (error) => this.#awaited?.reject(error))
    socket.on('close', () => this.#awaited?.reject(new Error('the server hung up')))
  }

  /** A reply of one line. @throws unless it is a good one, as POP3 or LMTP has it */
  async ask(command: string): Promise<string> {
    const reply = (await this.#reply(LINE_END, `${command}\r\n`)).toString('latin1').trimEnd()
    if (!/^(\+OK|[23]\d\d )/.test(reply)) throw new Error(`${command}: ${reply}`)
    return reply
  }

  /** A reply that a lone dot ends. @returns its lines, without status and dot */
  async askMulti(command: string): Promise<number> {
    const reply = await this.#reply(TERMINATOR, `${command}\r\n`)
    if (!reply.subarray(0, 3).equals(Buffer.from('+OK'))) throw new Error(reply.toString())
    let lines = 0
    for (let at = reply.indexOf(10); at >= 0; at = reply.indexOf(10, at + 1)) lines++
    return lines - 2
  }

  /** LMTP: what follows LHLO comes in several lines. */
  async hello(): Promise<void> {
    const reply = await this.#reply(LINE_END, 'LHLO bench.example\r\n')
    let text = reply.toString('latin1')
    while (!/^250 .*\r\n$/m.test(text)) text += (await this.#reply(LINE_END, '')).toString('latin1')
  }

  async deliver(address: string, wire: Buffer): Promise<void> {
    await this.ask('MAIL FROM:<>')
    await this.ask(`RCPT TO:<${address}>`)
    await this.ask('DATA')
    this.#socket.write(wire)
    const reply = (await this.#reply(LINE_END, '')).toString('latin1')
    if (!reply.startsWith('250 ')) throw new Error(reply)
  }

  async quit(): Promise<void> {
    await this.ask('QUIT')
    await this.close()
  }

  async close(): Promise<void> {
    const closed = once(this.#socket, 'close')
    this.#socket.end()
    await closed
  }

  #reply(end: Buffer, sent: string): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#awaited = { end, resolve, reject }
      if (sent !== '') this.#socket.write(sent, 'latin1')
    })
  }

  /** One command at a time: a reply ends where what has come ends. */
  #take(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#length += chunk.length
    const awaited = this.#awaited
    if (awaited === undefined) return
    const tail = chunk.length >= 5 ? chunk : Buffer.concat(this.#chunks)
    const isRefusal = this.#length < 512 && this.#chunks[0]?.[0] === 45 // "-ERR"
    const end = isRefusal ? LINE_END : awaited.end
    if (this.#length < end.length || !tail.subarray(-end.length).equals(end)) return
    const reply = Buffer.concat(this.#chunks)
    this.#chunks = []
    this.#length = 0
    this.#awaited = undefined
    awaited.resolve(reply)
  }
}
