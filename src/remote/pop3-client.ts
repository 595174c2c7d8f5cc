/**
 * A POP3 client that copies maildrops from another server: logs in, lists, and reads messages one
 * after the other, asking for some ahead where PIPELINING (RFC 2449 §6.6) is offered. It deletes
 * nothing. Messages are never whole in memory, lists are.
 */
import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import type { Secret } from '../base/secret.ts'
import { formatOldServer, type OldServer } from './old-server.ts'
import { withoutSaid } from './unsaid.ts'
import { SILENCE_MS, Wire } from './wire.ts'

/** LIMIT: RETRs asked for before the first is read; so few octets both sides can hold. */
const AHEAD = 16
/** A listing of a maildrop that it has to look through first. */
const LISTING_MS = 300_000
const LOGIN_MS = 40_000
/** LIMIT: by so much a message is longer than listed: some servers count line ends as one octet. */
const LONGER = 2
const LONGER_OCTETS = 1_048_576
const QUIT_MS = 5_000
const MESSAGES_MAX = 2_000_000
/** LIMIT: of a line of a reply of many: RFC 1939 §3. */
const LINE_OCTETS_MAX = 512
const CAPABILITIES_OCTETS_MAX = 65_536
/** LIMIT: of a message in LIST, and in UIDL, whose unique-ids have 70 octets at most. */
const LISTED_OCTETS_MAX = 100

export interface OldMessage {
  number: number
  octets: number
  /** undefined: it has no UIDL */
  uniqueId: string | undefined
}

export type OldLogin =
  | { kind: 'accepted' }
  /** `reply` is for the log: name and password are taken out of it */
  | { kind: 'refused'; why: 'credentials' | 'in-use' | 'temporary'; reply: string }

export interface ConnectOptions {
  /** LIMIT: messages of a maildrop, all of which are listed in memory; default: 2,000,000. */
  messagesMax?: number
  /** How long it may take, whatever it says, until it has judged the password. */
  loginMs?: number
  /** Closes the connection, also while it is opened. */
  signal?: AbortSignal
}

/** By its response code; a server that has none leaves it open. */
export type Lasting = 'for good' | 'for now' | 'unknown'

/** `refusal` is for the log. */
export type Retrieved<T> = T &
  ({ refusal: string; lasting: Lasting } | { content: AsyncIterable<Buffer> })

export class Pop3Client {
  readonly #server: OldServer
  readonly #options: ConnectOptions
  #wire: Wire
  /** That was accepted. */
  #login: { name: string; password: Secret } | undefined
  #isClosed = false
  /** What no log may hold. */
  #said: readonly Buffer[] = []
  /** As CAPA said, in upper case; empty: it has no CAPA. */
  #capabilities: readonly string[] = []

  private constructor(server: OldServer, options: ConnectOptions, wire: Wire) {
    this.#server = server
    this.#options = options
    this.#wire = wire
  }

  /** Connected, with TLS if the server is to have it. @throws {Failure} OLD_SERVER_AWAY */
  static async connect(server: OldServer, options: ConnectOptions = {}): Promise<Pop3Client> {
    const client = new Pop3Client(server, options, await Wire.open(server, options.signal))
    try {
      await client.#begin()
      return client
    } catch (error) {
      client.close()
      throw error
    }
  }

  /**
   * A new connection in place of this one, logged in as it was.
   * @throws {Failure} OLD_SERVER_AWAY, also if it does not let the user in again
   */
  async reopen(): Promise<void> {
    assert(this.#login, 'who was not let in has nothing to open again')
    const { name, password } = this.#login
    await this.#leave()
    if (this.#isClosed) throw this.#away('closed')
    this.#wire = await Wire.open(this.#server, this.#options.signal)
    if (this.#isClosed) this.#wire.close()
    await this.#begin()
    const answer = await this.logIn(name, password)
    if (answer.kind === 'refused') throw this.#away(`no second login: ${answer.reply}`)
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
    const answer = await this.#logIn(name, password)
    this.#wire.endIn(undefined)
    if (answer.kind === 'accepted') this.#login = { name, password }
    return answer
  }

  async #logIn(name: string, password: Secret): Promise<OldLogin> {
    const octets = password.reveal()
    this.#said = [octets, plainOf(name, octets), Buffer.from(name)]
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

  /**
   * All messages, in their order.
   * @throws {Failure} OLD_SERVER_AWAY; OPERATION_REFUSED if they are more than this client takes
   */
  async list(): Promise<OldMessage[]> {
    this.#wire.silenceMs = LISTING_MS
    const messages = new Map<number, OldMessage>()
    const refusal = await this.#askPairs('LIST', (number, size) => {
      messages.set(number, { number, octets: Number.parseInt(size, 10) || 0, uniqueId: undefined })
    })
    if (refusal !== undefined) throw this.#away('it does not list the messages')
    await this.#name(messages)
    this.#wire.silenceMs = SILENCE_MS
    return [...messages.values()].sort((a, b) => a.number - b.number)
  }

  /**
   * With all its unique-ids, or with none if it has no UIDL: to give new ones to messages that have
   * some would make clients fetch them again.
   */
  async #name(messages: ReadonlyMap<number, OldMessage>): Promise<void> {
    let namedCount = 0
    const refusal = await this.#askPairs('UIDL', (number, uniqueId) => {
      const message = messages.get(number)
      if (message === undefined) return
      if (message.uniqueId === undefined) namedCount += 1
      message.uniqueId = uniqueId
    })
    const isForNow = refusal !== undefined && lastingOf(refusal) === 'for now'
    if (refusal !== undefined && (this.hasUniqueIds || isForNow))
      throw this.#away(`it refuses UIDL: ${withoutSaid(refusal, this.#said)}`)
    if (refusal === undefined && namedCount < messages.size)
      throw this.#away(`it says unique-ids of ${namedCount} of ${messages.size} messages`)
  }

  /**
   * In the order of `messages`. What is not read of one is skipped before the next comes.
   * @throws {Failure} OLD_SERVER_AWAY, also for a message that is far longer than it was listed
   */
  async *retrieve<T extends { number: number; octets: number }>(
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
        const refusal = withoutSaid(status, this.#said)
        yield { ...message, refusal, lasting: lastingOf(status) }
        continue
      }
      const body = this.#bodyOf(message)
      // Not by for await, which would close it for who reads half of it.
      const content = { [Symbol.asyncIterator]: () => ({ next: () => body.next() }) }
      yield { ...message, content }
      while (!(await body.next()).done);
    }
  }

  async *#bodyOf({ number, octets }: { number: number; octets: number }): AsyncGenerator<Buffer> {
    let count = 0
    for await (const chunk of this.#wire.body()) {
      count += chunk.length
      if (count > octets * LONGER + LONGER_OCTETS) {
        this.close()
        throw this.#away(`message ${number} is longer than ${octets} octets, as it was listed`)
      }
      yield chunk
    }
  }

  /** Until the old server has closed the connection, which it counts until then; but not long. */
  async quit(): Promise<void> {
    await this.#leave()
    this.close()
  }

  close(): void {
    this.#isClosed = true
    this.#wire.close()
  }

  async #leave(): Promise<void> {
    this.#wire.silenceMs = QUIT_MS
    this.#wire.endIn(2 * QUIT_MS)
    this.#wire.send('QUIT\r\n')
    await this.#wire.drain().catch(() => {})
  }

  async #begin(): Promise<void> {
    this.#wire.endIn(this.#options.loginMs ?? LOGIN_MS)
    if (!isOk(await this.#wire.line())) throw this.#away('it does not greet')
    if (this.#server.security === 'stls') {
      if (!isOk(await this.#ask('STLS'))) throw this.#away('it refuses STLS')
      await this.#wire.secure()
    }
    const capabilities: string[] = []
    const take = (line: string) => capabilities.push(line.toUpperCase().trim())
    await this.#askLines('CAPA', CAPABILITIES_OCTETS_MAX, take)
    this.#capabilities = capabilities
  }

  #plain(name: string, password: Buffer): Promise<string> {
    const response = plainOf(name, password).toString('base64')
    return this.#ask('AUTH PLAIN').then((reply) =>
      reply.startsWith('+ ') || reply === '+' ? this.#ask(response) : reply,
    )
  }

  async #ask(line: Buffer | string): Promise<string> {
    this.#wire.send(Buffer.concat([Buffer.from(line), CRLF]))
    return await this.#wire.line()
  }

  /**
   * Line by line as it comes, so that nothing else waits for a long reply, and none has no end.
   * @returns the refusal, if it was refused
   */
  async #askLines(
    command: string,
    octetsMax: number,
    take: (line: string) => void,
  ): Promise<string | undefined> {
    const status = await this.#ask(command)
    if (!isOk(status)) return status
    let rest = ''
    let octets = 0
    for await (const chunk of this.#wire.body()) {
      const lines = (rest + chunk.toString('latin1')).split(/\r?\n/)
      rest = lines.pop() ?? ''
      octets += chunk.length
      if (octets > octetsMax || [rest, ...lines].some(({ length }) => length > LINE_OCTETS_MAX))
        throw this.#away(`its reply to ${command} is too long`)
      for (const line of lines) take(line)
    }
    return undefined
  }

  async #askPairs(
    command: string,
    take: (number: number, value: string) => void,
  ): Promise<string | undefined> {
    const { messagesMax = MESSAGES_MAX } = this.#options
    let count = 0
    return await this.#askLines(command, messagesMax * LISTED_OCTETS_MAX, (line) => {
      const [, number, value] = /^(\d{1,9}) +(\S+)/.exec(line) ?? []
      if (number === undefined || value === undefined) return
      count += 1
      if (count > messagesMax)
        throw new Failure(
          'OPERATION_REFUSED',
          `the old maildrop has over ${messagesMax} messages: "popgres import pop3" takes more`,
        )
      take(Number(number), value)
    })
  }

  /**
   * By the response codes of RFC 2449 §8 and RFC 3206. Servers that have none say in words that the
   * maildrop is locked; to take that for a wrong password would be a lie to the user.
   */
  #judge(reply: string): OldLogin {
    if (isOk(reply)) return { kind: 'accepted' }
    const code = responseCode(reply)
    const shown = withoutSaid(reply, this.#said)
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

/** RFC 4616 §2 */
const plainOf = (name: string, password: Buffer): Buffer =>
  Buffer.concat([Buffer.from(`\0${name}\0`), password])

const CRLF = Buffer.from('\r\n')

/** RFC 2449 §8, in upper case. */
const responseCode = (reply: string): string | undefined =>
  /^-ERR \[([A-Z/-]+)\]/i.exec(reply)?.[1]?.toUpperCase()

function lastingOf(reply: string): Lasting {
  const code = responseCode(reply)
  if (code === undefined) return 'unknown'
  return code === 'SYS/PERM' ? 'for good' : 'for now'
}

const isOk = (line: string): boolean => /^\+OK(?: |$)/i.test(line)
