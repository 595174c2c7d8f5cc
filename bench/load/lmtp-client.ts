/** An LMTP client: one message a transaction on a connection that stays open. */
import { connect, type Socket } from 'node:net'
import type { Endpoint } from '../servers/server.ts'
import { addressOf, DOMAIN, type User } from './content.ts'
import { WrongReply } from './replies.ts'

const DATA = 'DATA\r\n'
/** A read is taken before the next one, of whichever connection. */
const received = Buffer.allocUnsafeSlow(64 * 1_024)

export class LmtpClient {
  readonly #socket: Socket
  readonly #onWrong: (error: Error) => void
  #rest = ''
  /** Codes of the replies to what was asked last. */
  #codes: readonly string[] = []
  /** How many of them have come. */
  #come = 0
  #done = (): void => {}
  #mayPipeline = false
  #mayClose = false

  constructor({ host, port }: Endpoint, onWrong: (error: Error) => void) {
    this.#onWrong = onWrong
    const callback = (count: number): boolean => this.#take(received.toString('latin1', 0, count))
    this.#socket = connect({ host, port, onread: { buffer: received, callback } })
    this.#socket.on('error', (error) => this.#wrong(`LMTP broke: ${error.message}`))
    this.#socket.on('close', () => {
      if (!this.#mayClose) this.#wrong('LMTP hung up')
    })
  }

  /** Greeting and LHLO. */
  open(done: () => void): void {
    this.#expect(['220'], () => this.#ask(`LHLO ${DOMAIN}\r\n`, ['250'], done))
  }

  /** @param wire of wireOf */
  deliver(to: User, wire: Buffer, done: () => void): void {
    const mail = `MAIL FROM:<sender@${DOMAIN}>\r\n`
    const rcpt = `RCPT TO:<${addressOf(to)}>\r\n`
    const send = (): void => this.#ask(wire, ['250'], done)
    if (this.#mayPipeline) this.#ask(mail + rcpt + DATA, ['250', '250', '354'], send)
    else
      this.#ask(mail, ['250'], () => {
        this.#ask(rcpt, ['250'], () => this.#ask(DATA, ['354'], send))
      })
  }

  close(): void {
    this.#mayClose = true
    this.#socket.end('QUIT\r\n')
  }

  #ask(octets: string | Buffer, codes: readonly string[], done: () => void): void {
    this.#expect(codes, done)
    this.#socket.write(octets, 'latin1')
  }

  #expect(codes: readonly string[], done: () => void): void {
    this.#codes = codes
    this.#come = 0
    this.#done = done
  }

  /** @returns whether to read on */
  #take(text: string): boolean {
    const lines = (this.#rest + text).split('\r\n')
    this.#rest = lines.pop() ?? ''
    for (const line of lines) {
      if (/^250[ -]PIPELINING/i.test(line)) this.#mayPipeline = true
      if (line[3] === '-' || this.#mayClose) continue
      const code = this.#codes[this.#come++]
      if (code === undefined || !line.startsWith(code)) {
        this.#wrong(`LMTP says "${line}", expected ${code ?? 'nothing'}`)
        return true
      }
      if (this.#come === this.#codes.length) this.#done()
    }
    return true
  }

  #wrong(why: string): void {
    if (this.#mayClose) return
    this.#mayClose = true
    this.#socket.destroy()
    this.#onWrong(new WrongReply(why))
  }
}
