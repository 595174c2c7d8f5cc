/** An LMTP client: one message a transaction on a connection that stays open. */
import { connect, type Socket } from 'node:net'
import type { Endpoint } from '../servers/server.ts'
import { addressOf, DOMAIN, type User } from './content.ts'
import { WrongReply } from './replies.ts'

export class LmtpClient {
  readonly #socket: Socket
  readonly #onWrong: (error: Error) => void
  #rest = ''
  #waiting: { code: string; done: () => void }[] = []
  #mayPipeline = false
  #mayClose = false

  constructor(endpoint: Endpoint, onWrong: (error: Error) => void) {
    this.#onWrong = onWrong
    this.#socket = connect({ host: endpoint.host, port: endpoint.port })
    this.#socket.setEncoding('latin1')
    this.#socket.on('data', (text: string) => this.#take(text))
    this.#socket.on('error', (error) => this.#wrong(`LMTP broke: ${error.message}`))
    this.#socket.on('close', () => {
      if (!this.#mayClose) this.#wrong('LMTP hung up')
    })
  }

  /** Greeting and LHLO. */
  async open(): Promise<void> {
    await this.#expect('220')
    this.#socket.write(`LHLO ${DOMAIN}\r\n`)
    await this.#expect('250')
  }

  /** @param wire of wireOf */
  async deliver(to: User, wire: Buffer): Promise<void> {
    const commands = [`MAIL FROM:<sender@${DOMAIN}>\r\n`, `RCPT TO:<${addressOf(to)}>\r\n`]
    if (this.#mayPipeline) {
      const replies = [this.#expect('250'), this.#expect('250'), this.#expect('354')]
      this.#socket.write(`${commands.join('')}DATA\r\n`)
      await Promise.all(replies)
    } else
      for (const command of [...commands, 'DATA\r\n']) {
        this.#socket.write(command)
        await this.#expect(command.startsWith('DATA') ? '354' : '250')
      }
    this.#socket.write(wire)
    await this.#expect('250')
  }

  close(): void {
    this.#mayClose = true
    this.#socket.end('QUIT\r\n')
    this.#socket.resume()
  }

  #expect(code: string): Promise<void> {
    return new Promise((done) => {
      this.#waiting.push({ code, done })
    })
  }

  #take(text: string): void {
    const lines = (this.#rest + text).split('\r\n')
    this.#rest = lines.pop() ?? ''
    for (const line of lines) {
      if (/^250[ -]PIPELINING/i.test(line)) this.#mayPipeline = true
      if (line[3] === '-') continue
      const waiting = this.#waiting.shift()
      if (waiting === undefined && this.#mayClose) continue
      if (waiting === undefined || !line.startsWith(waiting.code)) {
        this.#wrong(`LMTP says "${line}", expected ${waiting?.code ?? 'nothing'}`)
        return
      }
      waiting.done()
    }
  }

  #wrong(why: string): void {
    if (this.#mayClose) return
    this.#mayClose = true
    this.#socket.destroy()
    this.#onWrong(new WrongReply(why))
  }
}
