/** What the replies about a user's mail have to be, computed once and kept. */

import type { Seed, User } from './content.ts'
import { accountsOf, addressOf, PASSWORD } from './content.ts'
import { WrongReply } from './replies.ts'

interface Contents {
  messages: number
  octets: number
}

const UNIQUE_ID_OCTETS_MAX = 70

export class Mailboxes {
  readonly #contents: ReadonlyMap<User, Contents>
  readonly #stats = new Map<string, Buffer>()
  /** UIDL replies found well-formed: the same user's next one has to be the same. */
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

  /** @throws {WrongReply} */
  checkUidl(user: User, body: Buffer): void {
    const known = this.#uidls.get(user)
    if (known?.equals(body)) return
    if (known !== undefined) throw new WrongReply(`${addressOf(user)} has other unique-ids now`)
    checkUniqueIds(body, this.contentsOf(user).messages)
    this.#uidls.set(user, body)
  }
}

/**
 * RFC 1939 §7: each message once, in their order, with unique-ids that are unique.
 * @throws {WrongReply}
 */
export function checkUniqueIds(body: Buffer, count: number): string[] {
  const lines = body.toString('latin1').split('\r\n')
  if (lines.pop() !== '' || lines.length !== count)
    throw new WrongReply(`UIDL of ${count} messages has ${lines.length} lines`)
  const ids = lines.map((line, at) => {
    const start = `${at + 1} `
    const id = line.slice(start.length)
    const isWellFormed = /^[!-~]+$/.test(id) && id.length <= UNIQUE_ID_OCTETS_MAX
    if (!line.startsWith(start) || !isWellFormed) throw new WrongReply(`UIDL says "${line}"`)
    return id
  })
  if (new Set(ids).size !== count) throw new WrongReply('UIDL names a unique-id twice')
  return ids
}

/** @throws {WrongReply} */
export function checkList(body: Buffer, { messages, octets }: Contents): void {
  const lines = Array.from({ length: messages }, (_, at) => `${at + 1} ${octets}\r\n`)
  if (!body.equals(Buffer.from(lines.join(''))))
    throw new WrongReply(`LIST is not ${messages} × ${octets} octets`)
}

export const userCommand = (user: User): string => `USER ${addressOf(user)}\r\n`
export const PASS = `PASS ${PASSWORD}\r\n`
