/**
 * Clients that go on whatever happens to the nodes: some deliver, some log in, fetch and delete.
 * Each does what a real one does: where it is told "not now", or the connection is not there, it
 * tries again a little later. What a real one would not try again is a violation.
 */
import type { Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { LineClient } from '../support/line-client.ts'
import { Pop3Client } from '../support/pop3-client.ts'
import { Ledger, Violation } from './ledger.ts'

export interface Doors {
  pop3: string
  pop3s: string
  lmtp: string
}

export interface Account {
  user: string
  password: string
}

/** How a client spends its time, so that two cores have some left. */
const THINKING_MS = 100
const REFUSED_MS = 300
/** Nothing may leave a client without a word for so long. */
const SILENCE_MS = 45_000
/** A deliverer leaves a maildrop alone that has more. */
const WAITING_MAX = 30

/** Where a client was told to come again, or was left alone; it does come again. */
export type Setback =
  | 'not connected'
  | 'closed before the greeting'
  | 'lost in a session'
  | 'QUIT unanswered'
  | 'temporary refusal'
  | 'in use'
  | 'delivery deferred'
  | 'delivery lost'

export class Traffic {
  readonly ledger = new Ledger()
  readonly #doors: Doors
  readonly #stopping = new AbortController()
  readonly #work: Promise<void>[] = []
  #setbacks = new Map<Setback, number>()
  #sessions = 0
  #deliveries = 0
  readonly #served = new Set<Set<string>>()
  #violation: unknown
  #wake = new Set<() => void>()

  constructor(doors: Doors) {
    this.#doors = doors
  }

  /** One who fetches for each account, and `deliverers` for all of them. */
  start(accounts: readonly Account[], deliverers: number): void {
    accounts.forEach((account, index) => {
      this.#work.push(this.#repeat(() => this.#fetch(account, index % 2 === 0)))
    })
    for (let index = 0; index < deliverers; index++)
      this.#work.push(this.#repeat(() => this.#deliver(accounts)))
  }

  /** Ends between two rounds. @throws the first violation */
  async stop(): Promise<void> {
    this.#stopping.abort()
    await Promise.all(this.#work)
    this.check()
  }

  check(): void {
    if (this.#violation !== undefined) throw this.#violation
  }

  /** Whole sessions and deliveries that went well since the last call, and what did not. */
  takeCounts(): {
    sessions: number
    deliveries: number
    setbacks: Partial<Record<Setback, number>>
  } {
    const counts = {
      sessions: this.#sessions,
      deliveries: this.#deliveries,
      setbacks: Object.fromEntries(this.#setbacks),
    }
    this.#sessions = 0
    this.#deliveries = 0
    this.#setbacks = new Map()
    return counts
  }

  /** Until that many more sessions and deliveries have gone well. @throws the first violation */
  async goesOn(sessions: number, deliveries: number, limitMs = 90_000): Promise<void> {
    const target = {
      sessions: this.#sessions + sessions,
      deliveries: this.#deliveries + deliveries,
    }
    const limit = AbortSignal.timeout(limitMs)
    while (this.#sessions < target.sessions || this.#deliveries < target.deliveries) {
      this.check()
      if (limit.aborted) throw new Error(`no progress: ${JSON.stringify(this.takeCounts())}`)
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          limit.removeEventListener('abort', wake)
          this.#wake.delete(wake)
          resolve()
        }
        this.#wake.add(wake)
        limit.addEventListener('abort', wake)
      })
    }
    this.check()
  }

  /** Until each of them has had a whole session from now on. @throws the first violation */
  async everyoneIsServed(accounts: readonly Account[]): Promise<void> {
    const served = new Set<string>()
    this.#served.add(served)
    while (served.size < accounts.length) await this.goesOn(1, 0)
    this.#served.delete(served)
  }

  /** Every maildrop once more, when all is quiet. @throws {Violation} */
  async verify(accounts: readonly Account[]): Promise<void> {
    for (const account of accounts) {
      const before = this.#sessions
      for (let attempt = 0; this.#sessions === before; attempt++) {
        if (attempt === 200) throw new Error(`${account.user} could not be verified`)
        await this.#fetch(account, true)
        this.check()
      }
    }
  }

  async #repeat(round: () => Promise<void>): Promise<void> {
    while (!this.#stopping.signal.aborted && this.#violation === undefined) {
      try {
        await round()
      } catch (error) {
        this.#violation ??= error
      }
      for (const wake of [...this.#wake]) wake()
    }
  }

  /** Counted, and waited for as long as a patient client does. */
  async #suffer(setback: Setback): Promise<void> {
    this.#setbacks.set(setback, (this.#setbacks.get(setback) ?? 0) + 1)
    await pause(REFUSED_MS)
  }

  async #fetch({ user, password }: Account, isTls: boolean): Promise<void> {
    let client: Pop3Client
    try {
      client = isTls
        ? await Pop3Client.connectTls(this.#doors.pop3s)
        : await Pop3Client.connect(this.#doors.pop3)
    } catch {
      return this.#suffer(isTls ? 'closed before the greeting' : 'not connected')
    }
    const setback = await withinSilence(client.socket, async () => {
      const greeting = await client.line().catch(() => undefined)
      if (greeting === undefined) return 'closed before the greeting'
      if (!greeting.startsWith('+OK')) return temporary(greeting)
      try {
        if (!isTls) await client.startTls()
        return await this.#session(client, user, password)
      } catch (error) {
        if (error instanceof Violation) throw error
        const reply = (error as Error).message
        return reply.startsWith('-ERR') ? temporary(reply) : 'lost in a session'
      }
    }).finally(() => client.socket.destroy())
    if (setback !== undefined) return this.#suffer(setback)
    this.#sessions++
    for (const served of this.#served) served.add(user)
    await pause(THINKING_MS)
  }

  async #session(client: Pop3Client, user: string, password: string): Promise<Setback | undefined> {
    await ok(client, `USER ${user}`)
    const expected = this.ledger.expected(user)
    const login = await client.ask(`PASS ${password}`)
    if (!login.startsWith('+OK')) return temporary(login)
    const { status, raw } = await client.askMulti('UIDL')
    if (!status.startsWith('+OK')) return temporary(status)
    const uniqueIds = raw.toString('latin1').match(/(?<= )\S+(?=\r\n)/g) ?? []
    const marked: string[] = []
    for (const [index, uniqueId] of uniqueIds.entries()) {
      if (!this.ledger.isKnown(user, uniqueId)) {
        const message = await client.retrieve(`RETR ${index + 1}`)
        this.ledger.retrieved(user, uniqueId, message)
      }
      if (index % 3 === 2) continue
      await ok(client, `DELE ${index + 1}`)
      marked.push(uniqueId)
    }
    this.ledger.listed(user, uniqueIds, expected)
    let reply: string
    try {
      reply = await client.ask('QUIT')
    } catch {
      this.ledger.quit(user, marked, 'unsure')
      return 'QUIT unanswered'
    }
    if (!reply.startsWith('+OK')) return temporary(reply)
    this.ledger.quit(user, marked, 'acknowledged')
    return undefined
  }

  /** One connection, some messages. */
  async #deliver(accounts: readonly Account[]): Promise<void> {
    const client = await LineClient.connect(this.#doors.lmtp).catch(() => undefined)
    if (client === undefined) return this.#suffer('not connected')
    const setback = await withinSilence(client.socket, async () => {
      const greeting = await client.reply().catch(() => undefined)
      if (greeting === undefined) return 'closed before the greeting'
      if (!greeting.startsWith('220')) return 'delivery deferred'
      if (!(await this.#tell(client, 'LHLO client.example.test'))) return 'delivery deferred'
      for (let count = 0; count < 10 && !this.#stopping.signal.aborted; count++) {
        const open = accounts.filter(({ user }) => this.ledger.waiting(user) < WAITING_MAX)
        const { user } = open[Math.floor(Math.random() * open.length)] ?? {}
        if (user === undefined) return undefined
        const end = await this.#deliverOne(client, user)
        if (end !== undefined) return end
      }
      return undefined
    }).finally(() => client.destroy())
    if (setback !== undefined) return this.#suffer(setback)
    await pause(THINKING_MS)
  }

  async #deliverOne(client: LineClient, user: string): Promise<Setback | undefined> {
    const { number, content } = this.ledger.compose(user)
    for (const command of [`MAIL FROM:<>`, `RCPT TO:<${user}>`, 'DATA'])
      if (!(await this.#tell(client, command))) return 'delivery deferred'
    // From here on it may be there, whatever comes.
    this.ledger.delivered(user, number, content, 'unsure')
    client.send(`${content.toString('latin1').replace(/(^|\r\n)\./g, '$1..')}.\r\n`)
    const reply = await client.reply().catch(() => undefined)
    if (reply === undefined) return 'delivery lost'
    if (reply.startsWith('4')) return 'delivery deferred'
    if (!reply.startsWith('250')) throw new Violation(`a delivery was answered ${reply}`)
    this.ledger.delivered(user, number, content, 'accepted')
    this.#deliveries++
    return undefined
  }

  /** @returns false: not now */
  async #tell(client: LineClient, command: string): Promise<boolean> {
    const reply = await client.ask(command).catch(() => '421')
    if (reply.startsWith('5')) throw new Violation(`${command} was answered ${reply}`)
    return !reply.startsWith('4')
  }
}

async function ok(client: Pop3Client, command: string): Promise<void> {
  const reply = await client.ask(command)
  if (!reply.startsWith('+OK')) throw new Error(reply)
}

/** @throws {Violation} if it is a refusal that tells a client to give up, or its user to act */
function temporary(reply: string): Setback {
  if (reply.startsWith('-ERR [IN-USE]')) return 'in use'
  if (reply.startsWith('-ERR [SYS/TEMP]')) return 'temporary refusal'
  throw new Violation(`a client was told ${reply}`)
}

/** @throws {Violation} if the peer says nothing for too long */
async function withinSilence<T>(socket: Socket, work: () => Promise<T>): Promise<T> {
  let isSilent = false
  socket.setTimeout(SILENCE_MS, () => {
    isSilent = true
    socket.destroy()
  })
  const result = await work()
  if (isSilent) throw new Violation('a client was left without a word')
  return result
}
