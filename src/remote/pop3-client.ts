/**
 * A POP3 client that copies maildrops from another server: logs in, lists, and reads messages one
 * after the other, asking for some ahead where PIPELINING (RFC 2449 §6.6) is offered. It deletes
 * nothing. Messages are never whole in memory, lists are.
 */
import { Failure } from '../base/failure.ts'
import type { Secret } from '../base/secret.ts'
import { formatOldServer, type OldServer } from './old-server.ts'
import { Wire } from './wire.ts'

/** LIMIT: RETRs asked for before the first is read; so few octets both sides can hold. */
const AHEAD = 16
/** A listing of a maildrop that it has to look through first. */
const LISTING_MS = 300_000
/** LIMIT: messages of a maildrop. */
const MESSAGES_MAX = 2_000_000

export interface OldMessage {
  number: number
  octets: number
  /** undefined: it has no UIDL */
  uniqueId: string | undefined
}

export type OldLogin =
  | { kind: 'accepted' }
  /** `reply` is for the log; it holds nothing that was sent */
  | { kind: 'refused'; why: 'credentials' | 'in-use' | 'temporary'; reply: string }

export type Retrieved<T> = T & ({ refusal: string } | { content: AsyncIterable<Buffer> })

export class Pop3Client {
  readonly #server: OldServer
  readonly #wire: Wire
  /** As CAPA said, in upper case; empty: it has no CAPA. */
  #capabilities: readonly string[] = []

  private constructor(server: OldServer, wire: Wire) {
    this.#server = server
    this.#wire = wire
  }

  /** Connected, with TLS if the server is to have it. @throws {Failure} OLD_SERVER_AWAY */
  static async connect(server: OldServer): Promise<Pop3Client> {
    const client = new Pop3Client(server, await Wire.open(server))
    try {
      await client.#begin()
      return client
    } catch (error) {
      client.close()
      throw error
    }
  }

  get isPipelining(): boolean {
    return this.#capabilities.includes('PIPELINING')
  }

  /** What it says of itself; undefined: CAPA is unknown to it. */
  get hasUniqueIds(): boolean | undefined {
    return this.#capabilities.length === 0 ? undefined : this.#capabilities.includes('UIDL')
  }

  /** @throws {Failure} OLD_SERVER_AWAY, also if it takes no passwords as they are */
  async logIn(name: string, password: Secret): Promise<OldLogin> {
    const octets = password.reveal()
    // A line end would begin another command; no server could have such a password anyway.
    if ([0, 10, 13].some((octet) => octets.includes(octet)))
      return { kind: 'refused', why: 'credentials', reply: 'cannot be sent' }
    const sasl = this.#capabilities.find((line) => line.startsWith('SASL '))?.split(' ') ?? []
    const isKnown = this.#capabilities.length > 0
    if (sasl.includes('PLAIN')) return this.#judge(await this.#plain(name, octets))
    if (isKnown && !this.#capabilities.includes('USER'))
      throw this.#away('it takes no passwords on this connection: TLS is missing, or USER')
    const first = await this.#ask(`USER ${name}`)
    if (!isOk(first)) return this.#judge(first)
    return this.#judge(await this.#ask(Buffer.concat([Buffer.from('PASS '), octets])))
  }

  /** All messages, in their order. */
  async list(): Promise<OldMessage[]> {
    const usual = this.#wire.silenceMs
    this.#wire.silenceMs = LISTING_MS
    const sizes = await this.#askPairs('LIST')
    if (sizes === undefined) throw this.#away('it does not list the messages')
    const uniqueIds = await this.#askPairs('UIDL')
    this.#wire.silenceMs = usual
    return [...sizes]
      .map(([number, size]) => ({
        number,
        octets: Number.parseInt(size, 10) || 0,
        uniqueId: uniqueIds?.get(number),
      }))
      .sort((a, b) => a.number - b.number)
  }

  /** In the order of `messages`. What is not read of one is skipped before the next comes. */
  async *retrieve<T extends { number: number }>(
    messages: readonly T[],
  ): AsyncGenerator<Retrieved<T>> {
    let sentCount = 0
    for (const [at, message] of messages.entries()) {
      const wanted = Math.min(messages.length, at + (this.isPipelining ? AHEAD : 1))
      const next = messages.slice(sentCount, wanted)
      sentCount = wanted
      if (next.length > 0) this.#wire.send(next.map(({ number }) => `RETR ${number}\r\n`).join(''))
      const status = await this.#wire.line()
      if (!isOk(status)) {
        yield { ...message, refusal: status }
        continue
      }
      const body = this.#wire.body()
      // Not by for await, which would close it for who reads half of it.
      const content = { [Symbol.asyncIterator]: () => ({ next: () => body.next() }) }
      yield { ...message, content }
      while (!(await body.next()).done);
    }
  }

  /**
   * Until the old server has closed the connection, which it counts until then; but not long.
   */
  async quit(): Promise<void> {
    this.#wire.silenceMs = 5_000
    const isOver = async () => {
      await this.#ask('QUIT')
      await this.#wire.line()
    }
    await isOver().catch(() => {})
    this.close()
  }

  close(): void {
    this.#wire.close()
  }

  async #begin(): Promise<void> {
    if (!isOk(await this.#wire.line())) throw this.#away('it does not greet')
    if (this.#server.security === 'stls') {
      if (!isOk(await this.#ask('STLS'))) throw this.#away('it refuses STLS')
      await this.#wire.secure()
    }
    const lines = await this.#askLines('CAPA')
    this.#capabilities = (lines ?? []).map((line) => line.toUpperCase().trim())
  }

  #plain(name: string, password: Buffer): Promise<string> {
    const response = Buffer.concat([Buffer.from(`\0${name}\0`), password]).toString('base64')
    return this.#ask('AUTH PLAIN').then((reply) =>
      reply.startsWith('+ ') || reply === '+' ? this.#ask(response) : reply,
    )
  }

  async #ask(line: Buffer | string): Promise<string> {
    this.#wire.send(Buffer.concat([Buffer.from(line), CRLF]))
    return await this.#wire.line()
  }

  /** @returns undefined if it was refused */
  async #askLines(command: string): Promise<string[] | undefined> {
    if (!isOk(await this.#ask(command))) return undefined
    const lines: string[] = []
    let rest = ''
    for await (const octets of this.#wire.body()) {
      const parts = (rest + octets.toString('latin1')).split(/\r?\n/)
      rest = parts.pop() ?? ''
      for (const part of parts) lines.push(part)
      if (lines.length > MESSAGES_MAX || rest.length > 4_096)
        throw this.#away(`its reply to ${command} has no end`)
    }
    return lines
  }

  async #askPairs(command: string): Promise<Map<number, string> | undefined> {
    const lines = await this.#askLines(command)
    return (
      lines &&
      new Map(
        lines.flatMap((line) => {
          const [, number, value] = /^(\d{1,9}) +(\S+)/.exec(line) ?? []
          return number === undefined || value === undefined ? [] : [[Number(number), value]]
        }),
      )
    )
  }

  /**
   * By the response codes of RFC 2449 §8 and RFC 3206. Servers that have none say in words that the
   * maildrop is locked; to take that for a wrong password would be a lie to the user.
   */
  #judge(reply: string): OldLogin {
    if (isOk(reply)) return { kind: 'accepted' }
    const code = /^-ERR \[([A-Z/-]+)\]/i.exec(reply)?.[1]?.toUpperCase()
    const shown = reply.slice(0, 200)
    if (code === 'AUTH') return { kind: 'refused', why: 'credentials', reply: shown }
    if (code === 'IN-USE' || /\block(?:ed)?\b|in use/i.test(reply))
      return { kind: 'refused', why: 'in-use', reply: shown }
    const isOther =
      code !== undefined ||
      this.#capabilities.includes('AUTH-RESP-CODE') ||
      /temporar|try again|later/i.test(reply)
    return { kind: 'refused', why: isOther ? 'temporary' : 'credentials', reply: shown }
  }

  #away(what: string): Failure {
    return new Failure('OLD_SERVER_AWAY', `${formatOldServer(this.#server)}: ${what}`)
  }
}

const CRLF = Buffer.from('\r\n')

const isOk = (line: string): boolean => /^\+OK(?: |$)/i.test(line)
