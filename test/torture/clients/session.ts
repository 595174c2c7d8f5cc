/** A session in TRANSACTION whose every command and answer goes into the history. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Pop3Client } from '../../support/pop3-client.ts'
import type { History, ListEntry } from '../history.ts'
import type { Random } from '../random.ts'
import { examine } from './content.ts'

export class ReaderSession {
  readonly #history: History
  readonly #client: Pop3Client
  readonly #session: number
  #entries: readonly ListEntry[] = []
  readonly #marked = new Set<number>()
  #isOver = false

  constructor(history: History, client: Pop3Client, session: number) {
    this.#history = history
    this.#client = client
    this.#session = session
    for (const event of ['end', 'close'] as const)
      client.socket.once(event, () => this.#noteClosed('server'))
  }

  /** Of the messages that are listed and not marked. */
  get numbers(): number[] {
    return this.#entries.map(([number]) => number).filter((number) => !this.#marked.has(number))
  }

  async stat(): Promise<void> {
    const { session, sentAt } = this.#asked()
    const reply = await this.#client.ask('STAT')
    const [, count, octets] = /^\+OK (\d+) (\d+)/.exec(reply) ?? []
    if (count === undefined) this.#refused(sentAt, 'STAT', reply)
    else
      this.#history.note({
        type: 'stat',
        session,
        sentAt,
        count: Number(count),
        octets: Number(octets),
      })
  }

  async list(): Promise<void> {
    const { session, sentAt } = this.#asked()
    const list = await this.#client.askMulti('LIST')
    if (!list.status.startsWith('+OK')) return this.#refused(sentAt, 'LIST', list.status)
    const uidl = await this.#client.askMulti('UIDL')
    if (!uidl.status.startsWith('+OK')) return this.#refused(sentAt, 'UIDL', uidl.status)
    const octets = new Map(pairs(list.raw).map(([number, text]) => [number, Number(text)]))
    const entries = pairs(uidl.raw).map(
      ([number, uniqueId]): ListEntry => [number, uniqueId, octets.get(number) ?? -1],
    )
    const isSame = entries.length === octets.size && entries.every(([, , size]) => size >= 0)
    const mismatch = isSame ? {} : { mismatch: `LIST has ${[...octets.keys()]}` }
    this.#history.note({ type: 'list', session, sentAt, entries, ...mismatch })
    // What is marked is not in it, but is still known.
    const known = new Map([...this.#entries, ...entries].map((entry) => [entry[0], entry]))
    this.#entries = [...known.values()].sort(([one], [other]) => one - other)
  }

  async retrieve(number: number): Promise<void> {
    await this.#fetch('RETR', number, `RETR ${number}`)
  }

  async top(number: number): Promise<void> {
    await this.#fetch('TOP', number, `TOP ${number} 5`)
  }

  /** RETR whose answer is not read for a while. */
  async retrieveDeaf(ms: number, random: Random): Promise<void> {
    const { numbers } = this
    if (numbers.length === 0) return
    const number = random.pick(numbers)
    this.#history.note({ type: 'deaf', session: this.#session })
    this.#client.socket.pause()
    const wait = delay(ms).then(() => this.#client.socket.resume())
    await this.#fetch('RETR', number, `RETR ${number}`)
    await wait
  }

  async mark(number: number): Promise<void> {
    const { sentAt } = this.#asked()
    this.#history.note({ type: 'mark', session: this.#session, number })
    this.#marked.add(number)
    this.#markTold(number, sentAt, await this.#client.ask(`DELE ${number}`))
  }

  async reset(): Promise<void> {
    const { session, sentAt } = this.#asked()
    const reply = await this.#client.ask('RSET')
    if (!reply.startsWith('+OK')) return this.#refused(sentAt, 'RSET', reply)
    this.#marked.clear()
    this.#history.note({ type: 'unmark', session, sentAt })
  }

  async noop(): Promise<void> {
    const { sentAt } = this.#asked()
    this.#ok(sentAt, 'NOOP', await this.#client.ask('NOOP'))
  }

  async quit(): Promise<string> {
    this.#history.note({ type: 'quit', session: this.#session })
    return this.#quitTold(await this.#client.ask('QUIT'))
  }

  /** All in one write (RFC 2449 §6.6). */
  async markAndQuit(numbers: readonly number[]): Promise<void> {
    const { session, sentAt } = this.#asked()
    for (const number of numbers) this.#history.note({ type: 'mark', session, number })
    this.#history.note({ type: 'quit', session })
    this.#client.send(`${numbers.map((number) => `DELE ${number}\r\n`).join('')}QUIT\r\n`)
    for (const number of numbers) this.#markTold(number, sentAt, await this.#client.line())
    this.#quitTold(await this.#client.line())
  }

  /** @param ms how long the connection lives on; undefined: no longer than the write */
  async quitAndGo(ms?: number): Promise<void> {
    this.#history.note({ type: 'quit', session: this.#session })
    this.#client.send('QUIT\r\n')
    if (ms !== undefined) await delay(ms)
    this.leave()
  }

  /** QUIT, and nothing more will come from here; its answer is still read. */
  async halfClose(): Promise<void> {
    this.#history.note({ type: 'quit', session: this.#session })
    this.#client.socket.end('QUIT\r\n')
    this.#quitTold(await this.#client.line())
  }

  /** Goes away, if it has not yet. */
  leave(): void {
    this.#noteClosed('client')
    this.#client.socket.destroy()
  }

  async #fetch(command: 'RETR' | 'TOP', number: number, line: string): Promise<void> {
    const { session, sentAt } = this.#asked()
    const { status, raw } = await this.#client.askMulti(line)
    if (!status.startsWith('+OK')) return this.#refused(sentAt, command, status)
    const octets = Buffer.from(raw.toString('latin1').replace(/(^|\r\n)\./g, '$1'), 'latin1')
    const { token, digest, names } = examine(octets)
    const whole = command === 'RETR' ? { digest } : {}
    const size = octets.length
    const fact = { type: 'message', session, sentAt, command, number, token, names } as const
    this.#history.note({ ...fact, octets: size, ...whole })
  }

  #asked(): { session: number; sentAt: number } {
    return { session: this.#session, sentAt: this.#history.now() }
  }

  #markTold(number: number, sentAt: number, reply: string): void {
    if (reply.startsWith('+OK')) this.#ok(sentAt, 'DELE', reply)
    else this.#refused(sentAt, 'DELE', reply, number)
  }

  #ok(sentAt: number, command: string, reply: string): void {
    if (reply.startsWith('+OK'))
      this.#history.note({ type: 'ok', session: this.#session, sentAt, command })
    else this.#refused(sentAt, command, reply)
  }

  #refused(sentAt: number, command: string, reply: string, number?: number): void {
    const which = number === undefined ? {} : { number }
    const { session } = this.#asked()
    this.#history.note({ type: 'refused', session, sentAt, command, ...which, reply })
  }

  #quitTold(reply: string): string {
    this.#history.note({ type: 'quit-told', session: this.#session, reply })
    return reply
  }

  #noteClosed(by: 'client' | 'server'): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#history.note({ type: 'closed', session: this.#session, by })
  }
}

/** Of a LIST or UIDL: number and what follows it. */
function pairs(raw: Buffer): [number, string][] {
  const lines = raw.toString('latin1').split('\r\n').slice(0, -1)
  return lines.map((line) => {
    const blank = line.indexOf(' ')
    return [Number(line.slice(0, blank)), line.slice(blank + 1)]
  })
}
