/** A bare POP3 session of ours that keeps a maildrop open while a client tries to get in. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { HOST, PASSWORD } from './server.ts'

export class Holder {
  readonly #socket: Socket
  #text = ''

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('error', () => {})
    socket.on('data', (chunk) => {
      this.#text += chunk.toString('latin1')
      socket.emit('text')
    })
  }

  /** Logs in; the maildrop is ours until `quit` or `drop`. */
  static async open(port: number, address: string): Promise<Holder> {
    const socket = connect(port, HOST)
    const holder = new Holder(socket)
    await holder.#line()
    for (const command of [`USER ${address}`, `PASS ${PASSWORD}`]) await holder.ask(command)
    return holder
  }

  /** @throws if the reply is not +OK */
  async ask(command: string): Promise<string> {
    this.#socket.write(`${command}\r\n`)
    const reply = await this.#line()
    if (!reply.startsWith('+OK')) throw new Error(`${command.split(' ')[0]}: ${reply}`)
    return reply
  }

  async quit(): Promise<void> {
    const closed = once(this.#socket, 'close')
    await this.ask('QUIT')
    await closed
  }

  drop(): void {
    this.#socket.destroy()
  }

  async #line(): Promise<string> {
    while (!this.#text.includes('\r\n')) await once(this.#socket, 'text')
    const end = this.#text.indexOf('\r\n')
    const line = this.#text.slice(0, end)
    this.#text = this.#text.slice(end + 2)
    return line
  }
}
