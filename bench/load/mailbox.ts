/** What the replies about a user's mail have to be, computed once and kept. */

import type { Seed, User } from './content.ts'
import { accountsOf, addressOf, PASSWORD } from './content.ts'
import type { Pop3Client } from './pop3-client.ts'
import { WrongReply } from './replies.ts'

export interface Contents {
  messages: number
  octets: number
}

const UNIQUE_ID_OCTETS_MAX = 70

export class Mailboxes {
  readonly #contents: ReadonlyMap<User, Contents>
  readonly #stats = new Map<string, Buffer>()
  /** UIDL replies found well-formed: the same user's next one is compared, not read. */
  readonly #uidls = new Map<User, Buffer>()

  constructor(seed: Seed) {
    this.#contents = new Map([...accountsOf(seed)].map((account) => [account.user, account]))
  }

  contentsOf(user: User): Contents {
    const contents = this.#contents.get(user)
    if (contents === undefined) throw new Error(`${addressOf(user)} is not seeded`)
    return contents
  }

  /** What follows "+OK " in the reply to STAT. */
  statOf(user: User): Buffer {
    const { messages, octets } = this.contentsOf(user)
    const text = `${messages} ${messages * octets}`
    const stat = this.#stats.get(text) ?? Buffer.from(text)
    this.#stats.set(text, stat)
    return stat
  }

  /** UIDL; what it says has to be the same the next time. */
  askUidl(client: Pop3Client, user: User, count: number, done: () => void): void {
    const known = this.#uidls.get(user)
    if (known !== undefined) client.expectKnown(known, 'other unique-ids now', done)
    else
      client.expectListing((body) => {
        checkUniqueIds(body, count)
        this.#uidls.set(user, body)
        done()
      })
    client.write('UIDL\r\n')
  }
}

/**
 * RFC 1939 §7: each message once, in their order, with unique-ids that are unique.
 * @param count of messages, if it is known
 * @returns the count
 * @throws {WrongReply}
 */
export function checkUniqueIds(body: Buffer, count?: number): number {
  const lines = body.toString('latin1').split('\r\n').slice(0, -2)
  if (lines.length !== (count ?? lines.length))
    throw new WrongReply(`UIDL of ${count} messages has ${lines.length} lines`)
  const ids = new Set<string>()
  for (const [at, line] of lines.entries()) {
    const start = `${at + 1} `
    const id = line.slice(start.length)
    const isWellFormed = /^[!-~]+$/.test(id) && id.length <= UNIQUE_ID_OCTETS_MAX
    if (!line.startsWith(start) || !isWellFormed) throw new WrongReply(`UIDL says "${line}"`)
    ids.add(id)
  }
  if (ids.size !== lines.length) throw new WrongReply('UIDL names a unique-id twice')
  return ids.size
}

/** The reply to LIST after its status line. */
export function listOf({ messages, octets }: Contents): Buffer {
  const lines = Array.from({ length: messages }, (_, at) => `${at + 1} ${octets}\r\n`)
  return Buffer.from(`${lines.join('')}.\r\n`)
}

export const userCommand = (user: User): string => `USER ${addressOf(user)}\r\n`
export const PASS = `PASS ${PASSWORD}\r\n`
