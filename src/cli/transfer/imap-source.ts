/**
 * The INBOX of a user on a remote IMAP server, opened for reading only. What POP3 said of a message
 * there is formed of UID and UIDVALIDITY, if that server did so, or stands in its X-UIDL. A message
 * comes in stretches; of all others nothing but their numbers is in memory.
 */
import { ImapFlow } from 'imapflow'
import { refused } from '../../admin/refusal.ts'
import { type ImportItem, UnreadableMessage } from '../../admin/transfer/import-messages.ts'
import type { OldMaildrop } from '../../admin/transfer/move-in.ts'
import type { UidlFormat } from '../formats/uidl-format.ts'
import { parseXUidl } from '../formats/x-uidl.ts'

export type ImapUidl = 'uid' | 'x-uidl' | 'none'

export interface ImapServer {
  host: string
  port: number
  security: 'tls' | 'starttls' | 'none'
  uidl: ImapUidl
  format: UidlFormat
}

/** LIMIT: of one message at once in memory. */
const STRETCH_OCTETS = 262_144

interface Listed {
  uid: number
  octets: number
  receivedAt: Date | undefined
  uniqueId: string | undefined
}

export function openInbox(server: ImapServer, user: string, password: string): OldMaildrop {
  let inbox: Inbox | undefined
  const open = async (): Promise<Inbox> => {
    inbox ??= await Inbox.open(server, user, password)
    return inbox
  }
  return {
    measure: async () => (await open()).list.reduce((sum, { octets }) => sum + octets, 0),
    messages: async function* () {
      const opened = await open()
      try {
        yield* opened.messages()
      } finally {
        inbox = undefined
        await opened.close()
      }
    },
  }
}

class Inbox {
  readonly list: readonly Listed[]
  readonly #client: ImapFlow
  readonly #name: string

  private constructor(client: ImapFlow, name: string, list: readonly Listed[]) {
    this.#client = client
    this.#name = name
    this.list = list
  }

  static async open(server: ImapServer, user: string, password: string): Promise<Inbox> {
    const { host, port, security } = server
    const client = new ImapFlow({
      host,
      port,
      secure: security === 'tls',
      doSTARTTLS: security === 'starttls',
      auth: { user, pass: password },
      logger: false,
      disableAutoIdle: true,
    })
    client.on('error', () => {}) // whoever waits is told
    try {
      await client.connect()
      const { uidValidity, exists } = await client.mailboxOpen('INBOX', { readOnly: true })
      const list = exists === 0 ? [] : await listMessages(client, server, Number(uidValidity))
      return new Inbox(client, `${host}: INBOX of ${user}`, list)
    } catch (error) {
      client.close()
      throw failed(`${host}: ${user}`, error)
    }
  }

  async *messages(): AsyncGenerator<ImportItem> {
    for (const { uid, octets, receivedAt, uniqueId } of this.list)
      yield {
        source: `${this.#name}, UID ${uid}`,
        sourceOctets: octets,
        receivedAt,
        uniqueId,
        isRemote: true,
        open: () => this.#read(uid, octets),
      }
  }

  /**
   * Up to its listed size, or else to where the server has nothing more: some servers answer with
   * less than they were asked for, and some list sizes that are not true. Never what may be cut.
   */
  async *#read(uid: number, octets: number): AsyncGenerator<Buffer> {
    for (let start = 0; start === 0 || start !== octets; ) {
      const piece = await this.#fetchPiece(uid, start)
      if (piece.length === 0 && start === 0 && octets > 0)
        throw new UnreadableMessage(`the server hands out none of its ${octets} octets`)
      if (piece.length === 0) return
      yield piece
      start += piece.length
    }
  }

  async #fetchPiece(uid: number, start: number): Promise<Buffer> {
    const query = { source: { start, maxLength: STRETCH_OCTETS } }
    const answer = await this.#client.fetchOne(String(uid), query, { uid: true }).catch((error) => {
      throw failed(this.#name, error)
    })
    if (!answer) throw new UnreadableMessage('was deleted there meanwhile')
    // NIL, which is no buffer, or no answer to what was asked: RFC 3501 has "" behind the end.
    if (!Buffer.isBuffer(answer.source))
      throw new UnreadableMessage(`the server does not hand it out from octet ${start} on`)
    return answer.source
  }

  async close(): Promise<void> {
    await this.#client.logout().catch(() => this.#client.close())
  }
}

async function listMessages(
  client: ImapFlow,
  { uidl, format }: ImapServer,
  uidValidity: number,
): Promise<Listed[]> {
  const list: Listed[] = []
  const headers = uidl === 'x-uidl' ? { headers: ['X-UIDL'] } : {}
  const query = { uid: true, size: true, internalDate: true, ...headers }
  for await (const { uid, size = 0, internalDate, headers: header } of client.fetch('1:*', query)) {
    const named = uidl === 'uid' ? format({ uid, uidValidity }) : undefined
    list.push({
      uid,
      octets: size,
      receivedAt: internalDate === undefined ? undefined : new Date(internalDate),
      uniqueId: uidl === 'x-uidl' ? parseXUidl(header?.toString('latin1') ?? '') : named,
    })
  }
  return list.sort((one, other) => one.uid - other.uid)
}

/** What the server said, if it said something. */
function failed(what: string, error: unknown): Error {
  const { responseText, message } = error as { responseText?: string; message: string }
  return refused(`${what}: ${responseText ?? message}`, error)
}
