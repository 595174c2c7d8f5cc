/**
 * Stands between a node and its PostgreSQL and counts what goes by: statements by name, octets, and
 * round trips. A round trip begins with a request that is made after an answer: what is sent
 * together, or before anything was answered, is one.
 */
import { TcpProxy } from '../support/tcp-proxy.ts'

export interface Traffic {
  /** Names, in the order in which they were executed. */
  statements: string[]
  roundTrips: number
  octetsTo: number
  octetsFrom: number
}

const HEADER_OCTETS = 5
const SSL_REQUEST_OCTETS = 8
const STARTUP = 'startup'

/** Cuts one direction of one connection into messages. */
class Messages {
  readonly #onMessage: (kind: string, body: Buffer) => void
  /** A client begins without octets of kind: with its startup packet, perhaps asking for TLS. */
  #isStarting: boolean
  #pending = Buffer.alloc(0)

  constructor(isOfClient: boolean, onMessage: (kind: string, body: Buffer) => void) {
    this.#isStarting = isOfClient
    this.#onMessage = onMessage
  }

  write(chunk: Buffer): void {
    this.#pending = Buffer.concat([this.#pending, chunk])
    while (this.#pending.length >= HEADER_OCTETS) {
      const kindOctets = this.#isStarting ? 0 : 1
      const length = kindOctets + this.#pending.readUInt32BE(kindOctets)
      if (this.#pending.length < length) return
      const message = this.#pending.subarray(0, length)
      this.#pending = this.#pending.subarray(length)
      if (!this.#isStarting)
        this.#onMessage(String.fromCharCode(message[0] ?? 0), message.subarray(HEADER_OCTETS))
      else if (length !== SSL_REQUEST_OCTETS) {
        this.#isStarting = false
        this.#onMessage(STARTUP, message)
      }
    }
  }
}

export class DatabaseMeter {
  readonly #proxy: TcpProxy
  /** DATABASE_URL of who is to be counted. */
  readonly url: string
  readonly #directions = new Map<object, { requests: Messages; answers: Messages }>()
  /** Called when something was answered. */
  onAnswer: (() => void) | undefined
  /** Statements that are not answered yet. */
  pending = 0
  traffic: Traffic = none()
  #isAnswered = true

  private constructor(proxy: TcpProxy, url: string) {
    this.#proxy = proxy
    this.url = url
    proxy.onRequest = (chunk, _, connection) => {
      if (this.#isAnswered) this.traffic.roundTrips++
      this.#isAnswered = false
      this.traffic.octetsTo += chunk.length
      this.#directionsOf(connection).requests.write(chunk)
    }
    proxy.onAnswer = (chunk, connection) => {
      this.traffic.octetsFrom += chunk.length
      this.#directionsOf(connection).answers.write(chunk)
      this.onAnswer?.()
      return chunk
    }
  }

  static async open(databaseUrl: string): Promise<DatabaseMeter> {
    const url = new URL(databaseUrl)
    const proxy = await TcpProxy.open(Number(url.port))
    url.hostname = '127.0.0.1'
    url.port = String(proxy.port)
    return new DatabaseMeter(proxy, url.toString())
  }

  /** What goes by while `work` is carried out, until all is answered; `traffic` counts it. */
  async count(work: () => Promise<unknown>): Promise<Traffic> {
    await this.untilQuiet()
    this.traffic = none()
    this.#isAnswered = true
    await work()
    await this.untilQuiet()
    const counted = this.traffic
    this.traffic = none()
    return counted
  }

  /** Until nothing is owed, and what an answer brings about has been asked too. */
  async untilQuiet(): Promise<void> {
    for (let quietTurns = 0; quietTurns < 50; quietTurns++) {
      await new Promise((resolve) => setImmediate(resolve))
      if (this.pending > 0) quietTurns = 0
    }
  }

  close(): Promise<void> {
    return this.#proxy.close()
  }

  #directionsOf(connection: object): { requests: Messages; answers: Messages } {
    let directions = this.#directions.get(connection)
    if (directions === undefined) {
      directions = {
        requests: new Messages(true, (kind, body) => this.#request(kind, body)),
        answers: new Messages(false, (kind) => this.#answer(kind)),
      }
      this.#directions.set(connection, directions)
    }
    return directions
  }

  #request(kind: string, body: Buffer): void {
    // Bind: the portal's name, the statement's name, each with a zero at its end.
    if (kind === 'B') this.traffic.statements.push(String(body.toString('latin1').split('\0')[1]))
    // Sync, or a simple query: ReadyForQuery answers each of them.
    if (kind === 'S' || kind === 'Q' || kind === STARTUP) this.pending++
  }

  #answer(kind: string): void {
    if (kind !== 'Z') return
    this.#isAnswered = true
    this.pending--
  }
}

function none(): Traffic {
  return { statements: [], roundTrips: 0, octetsTo: 0, octetsFrom: 0 }
}
