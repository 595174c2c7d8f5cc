/**
 * What the clients were told, and what therefore must be in each maildrop. A message is known by a
 * number of its own in its Subject; the ledger is fed by the clients and throws where a reply
 * contradicts what was said before.
 */
import { createHash } from 'node:crypto'

type Delivery =
  /** 250 was read: it is there. */
  | 'accepted'
  /** 4xx, or the connection broke before the reply: it may be there, once. */
  | 'unsure'

interface Message {
  hash: string
  delivery: Delivery
  uniqueId: string | undefined
  /** `unsure`: QUIT was sent and its reply was lost. */
  deletion: 'none' | 'unsure' | 'acknowledged'
}

export class Ledger {
  readonly #maildrops = new Map<string, Map<number, Message>>()
  #lastNumber = 0

  /** @returns the message to send */
  compose(user: string): { number: number; content: Buffer } {
    const number = ++this.#lastNumber
    const lines = Array.from(
      { length: 1 + (number % 40) },
      (_, i) => `${i % 5 === 0 ? '.' : ''}${number}/${i} ${'x'.repeat((number * 7 + i) % 60)}`,
    )
    const text = [`Subject: ${number}`, `To: ${user}`, '', ...lines, ''].join('\r\n')
    return { number, content: Buffer.from(text, 'latin1') }
  }

  /** The reply to DATA, or its loss. */
  delivered(user: string, number: number, content: Buffer, delivery: Delivery): void {
    const messages = this.#messagesOf(user)
    const known = messages.get(number)
    // It may have been fetched before its deliverer read the reply.
    if (known !== undefined) known.delivery = delivery
    else
      messages.set(number, {
        hash: hashOf(content),
        delivery,
        uniqueId: undefined,
        deletion: 'none',
      })
  }

  /** Numbers of what a session that begins now must see. */
  expected(user: string): Set<number> {
    const numbers = new Set<number>()
    for (const [number, message] of this.#messagesOf(user))
      if (message.delivery === 'accepted' && message.deletion === 'none') numbers.add(number)
    return numbers
  }

  /** How many a session may find. */
  waiting(user: string): number {
    return this.expected(user).size
  }

  /** @returns whether its octets are known already */
  isKnown(user: string, uniqueId: string): boolean {
    return this.#find(user, uniqueId) !== undefined
  }

  /** @param content as RETR gave it */
  retrieved(user: string, uniqueId: string, content: Buffer): void {
    const number = Number(/^Subject: (\d+)\r$/m.exec(content.toString('latin1'))?.[1])
    const message = this.#messagesOf(user).get(number)
    if (message === undefined) throw new Violation(`${user} has a message that nobody sent him`)
    // What stands before the first line of ours was added on the way.
    const own = content.subarray(content.indexOf(`Subject: ${number}\r\n`))
    if (hashOf(own) !== message.hash) throw new Violation(`message ${number} was changed`)
    if (message.uniqueId !== undefined && message.uniqueId !== uniqueId)
      throw new Violation(`message ${number} is there twice: ${message.uniqueId}, ${uniqueId}`)
    message.uniqueId = uniqueId
  }

  /**
   * The whole list of a session, all of it retrieved before.
   * @param expected as it was before the login
   */
  listed(user: string, uniqueIds: readonly string[], expected: ReadonlySet<number>): void {
    const listed = new Set<number>()
    for (const uniqueId of uniqueIds) {
      const [number, message] = this.#find(user, uniqueId) ?? []
      if (number === undefined || message === undefined)
        throw new Violation(`${user}: unique-id ${uniqueId} is of no message`)
      if (message.deletion === 'acknowledged')
        throw new Violation(`message ${number} of ${user} came back after an acknowledged QUIT`)
      listed.add(number)
    }
    for (const number of expected)
      if (!listed.has(number)) throw new Violation(`message ${number} of ${user} is lost`)
    this.#decide(user, listed)
  }

  /** QUIT's reply, or its loss. */
  quit(user: string, uniqueIds: readonly string[], deletion: Message['deletion']): void {
    for (const uniqueId of uniqueIds) {
      const found = this.#find(user, uniqueId)
      if (found !== undefined) found[1].deletion = deletion
    }
  }

  /** A QUIT whose reply was lost deleted all of its messages or none. */
  #decide(user: string, listed: ReadonlySet<number>): void {
    const unsure = [...this.#messagesOf(user)].filter(([, { deletion }]) => deletion === 'unsure')
    const present = unsure.filter(([number]) => listed.has(number))
    if (present.length > 0 && present.length < unsure.length)
      throw new Violation(
        `a QUIT of ${user} deleted ${unsure.length - present.length} of ${unsure.length}`,
      )
    for (const [number, message] of unsure)
      message.deletion = listed.has(number) ? 'none' : 'acknowledged'
  }

  get counts(): Record<string, number> {
    const all = [...this.#maildrops.values()].flatMap((messages) => [...messages.values()])
    const count = (is: (message: Message) => boolean): number => all.filter(is).length
    return {
      accepted: count(({ delivery }) => delivery === 'accepted'),
      unsure: count(({ delivery }) => delivery === 'unsure'),
      'unsure and there': count((one) => one.delivery === 'unsure' && one.uniqueId !== undefined),
      fetched: count(({ uniqueId }) => uniqueId !== undefined),
      deleted: count(({ deletion }) => deletion === 'acknowledged'),
    }
  }

  #messagesOf(user: string): Map<number, Message> {
    const messages = this.#maildrops.get(user) ?? new Map<number, Message>()
    this.#maildrops.set(user, messages)
    return messages
  }

  #find(user: string, uniqueId: string): [number, Message] | undefined {
    return [...this.#messagesOf(user)].find(([, message]) => message.uniqueId === uniqueId)
  }
}

/** Something that a server which loses nothing never does. */
export class Violation extends Error {
  override readonly name = 'Violation'
}

const hashOf = (content: Buffer): string => createHash('sha256').update(content).digest('hex')
