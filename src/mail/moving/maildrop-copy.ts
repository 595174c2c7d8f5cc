/**
 * One maildrop of another POP3 server, copied into one of ours: in its order, with its unique-ids,
 * each message a commit of its own with its row in the ledger `imported`. So a copy that was cut
 * goes on where it ended, and what the user has deleted since does not come again. A message whose
 * unique-id is here already is not fetched; one without is known by its octets.
 *
 * What cannot be fetched or kept is told and left out; a maildrop that is full ends the copy, as
 * what comes later must not be before what is missing. A refusal that may pass ends it too: only
 * what the old server refuses for good, or on two connections, is left there.
 */
import { createHash } from 'node:crypto'
import { Failure, isFailure } from '../../base/failure.ts'
import type { Lasting, OldMessage, Pop3Client } from '../../remote/pop3-client.ts'
import { newBodyId } from '../../storage/bodies.ts'
import { type DeliveryStatus, deliver } from '../../storage/deliveries.ts'
import type { Database } from '../../storage/postgres/database.ts'
import { selectKnownUniqueIds, selectRoom } from '../../storage/tenants/old-servers.ts'
import { CopyCounter, copyOf, UNIQUE_ID } from '../delivery/imported-copies.ts'
import { Ingest, type IngestedMessage } from '../delivery/ingest.ts'
import { LineEnds } from '../delivery/line-ends.ts'
import { HEAD_OCTETS, receivedDate } from '../delivery/received-date.ts'

/** LIMIT: messages that are asked for a second time, each on a connection of its own. */
const REFUSED_MAX = 100

export interface CopyRequest {
  domainId: number
  userId: number
  messageMaxOctets: number
  /** Only lists; nothing is fetched or written. */
  isDryRun?: boolean
  onProgress?: (done: { octets: number; messages: number }, total: CopyTotal) => void
}

interface CopyTotal {
  octets: number
  messages: number
}

export interface CopyReport {
  imported: number
  alreadyImported: number
  skipped: { source: string; reason: string }[]
  /** The rest is still on the old server. */
  isFull: boolean
}

/**
 * @param client logged in
 * @throws {Failure} OLD_SERVER_AWAY or a storage failure, in the middle: to be begun again
 */
export async function copyMaildrop(
  db: Database,
  client: Pop3Client,
  request: CopyRequest,
): Promise<CopyReport> {
  const refused = new Set<string>()
  for (let earlier = 0; ; ) {
    const copy = new MaildropCopy(db, client, request, refused)
    const refusal = await copy.run()
    const { imported, alreadyImported, ...rest } = copy.report
    if (refusal === undefined)
      return { imported: earlier + imported, alreadyImported: alreadyImported - earlier, ...rest }
    if (refused.size > REFUSED_MAX)
      throw new Failure(
        'OLD_SERVER_AWAY',
        `it refuses more than ${REFUSED_MAX} messages: ${refusal}`,
      )
    earlier += imported
    await client.reopen()
  }
}

class MaildropCopy {
  readonly #db: Database
  readonly #client: Pop3Client
  readonly #request: CopyRequest
  /** Those that were refused before, on another connection. */
  readonly #refused: Set<string>
  readonly report: CopyReport = { imported: 0, alreadyImported: 0, skipped: [], isFull: false }
  readonly #unnamed = new CopyCounter()
  readonly #done = { octets: 0, messages: 0 }

  constructor(db: Database, client: Pop3Client, request: CopyRequest, refused: Set<string>) {
    this.#db = db
    this.#client = client
    this.#request = request
    this.#refused = refused
  }

  /** @returns the refusal of a message that ended it, to be asked for again */
  async run(): Promise<string | undefined> {
    const { domainId, userId, isDryRun, onProgress } = this.#request
    const listed = withoutRepeats(await this.#client.list())
    const known = await selectKnownUniqueIds(this.#db, domainId, userId)
    const isKnown = ({ uniqueId }: OldMessage) => uniqueId !== undefined && known.has(uniqueId)
    const wanted = listed.filter((message) => !isKnown(message))
    const total = { messages: wanted.length, octets: sum(wanted) }
    this.report.alreadyImported = listed.length - wanted.length
    if (isDryRun) this.report.imported = wanted.length
    if (isDryRun) return undefined
    const fitting = await this.#choose(wanted)
    for (const message of fitting) if (this.#isTooLarge(message)) this.#skipLarge(message)
    const readable = fitting.filter((message) => !this.#isTooLarge(message))
    for await (const message of this.#client.retrieve(readable)) {
      if ('refusal' in message) {
        if (!this.#isLeft(message, message)) return message.refusal
      } else if (!(await this.#take(message, message.content))) return undefined
      this.#done.octets += message.octets
      this.#done.messages += 1
      onProgress?.({ ...this.#done }, total)
    }
    const [next] = wanted.slice(fitting.length)
    if (next !== undefined) this.#end(next)
    return undefined
  }

  /** Those before the first that has no room, by what was listed: the others are not even read. */
  async #choose(wanted: readonly OldMessage[]): Promise<readonly OldMessage[]> {
    const { domainId, userId } = this.#request
    const room = await selectRoom(this.#db, domainId, userId)
    let [octets, messages] = [0, 0]
    const end = wanted.findIndex((message) => {
      // Of those without a unique-id some may be here already.
      if (message.uniqueId === undefined || this.#isTooLarge(message)) return false
      octets += message.octets
      messages += 1
      return octets > room.octets || messages > room.messages
    })
    return end === -1 ? wanted : wanted.slice(0, end)
  }

  #isTooLarge({ octets }: OldMessage): boolean {
    return octets > this.#request.messageMaxOctets
  }

  /**
   * @returns false: it may be handed out yet, on another connection
   * @throws {Failure} OLD_SERVER_AWAY: not for now
   */
  #isLeft(
    message: OldMessage,
    { refusal, lasting }: { refusal: string; lasting: Lasting },
  ): boolean {
    if (lasting === 'for now')
      throw new Failure('OLD_SERVER_AWAY', `message ${message.number} is refused: ${refusal}`)
    const key = message.uniqueId ?? `number ${message.number}`
    const isLeft = lasting === 'for good' || this.#refused.has(key)
    if (isLeft) this.#skip(message, refusal)
    else this.#refused.add(key)
    return isLeft
  }

  /** @returns false: nothing more has room */
  async #take(message: OldMessage, content: AsyncIterable<Buffer>): Promise<boolean> {
    try {
      const status = await this.#deliver(message, content)
      if (status === 'empty') this.#skip(message, 'empty')
      else if (status === 'delivered') this.report.imported += 1
      else if (status === 'already-imported') this.report.alreadyImported += 1
      else if (status === 'over-quota') this.#end(message)
      else this.#skip(message, 'the user is gone')
    } catch (error) {
      if (!isFailure(error, 'MESSAGE_TOO_LARGE')) throw error
      this.#skipLarge(message)
    }
    return !this.report.isFull
  }

  async #deliver(
    { uniqueId }: OldMessage,
    content: AsyncIterable<Buffer>,
  ): Promise<DeliveryStatus | 'empty'> {
    const { domainId, userId } = this.#request
    const { message, digest, head, ingest } = await this.#ingest(content)
    if (message.octets === 0) return 'empty'
    const results = await deliver(this.#db, {
      domainId,
      bodyId: message.bodyIds.get(domainId) ?? newBodyId(),
      bodyOctets: message.octets,
      content: message.content,
      recipients: [{ userId, prefix: Buffer.alloc(0) }],
      imported: {
        digest,
        copy: uniqueId === undefined ? this.#unnamed.count(digest) : copyOf(uniqueId),
        receivedAt: receivedDate(head, new Date()),
        uniqueId: uniqueId !== undefined && UNIQUE_ID.test(uniqueId) ? uniqueId : undefined,
      },
    })
    const status = results.get(userId)?.status ?? 'unknown-user'
    if (status !== 'delivered') await ingest.discard()
    return status
  }

  /** As it comes: what is longer than a stretch is written meanwhile. */
  async #ingest(
    content: AsyncIterable<Buffer>,
  ): Promise<{ message: IngestedMessage; digest: Buffer; head: Buffer; ingest: Ingest }> {
    const { domainId, messageMaxOctets: maxOctets } = this.#request
    const ingest = new Ingest(this.#db, { domainIds: [domainId], maxOctets })
    const hash = createHash('sha256')
    const lineEnds = new LineEnds()
    const head: Buffer[] = []
    let octets = 0
    const add = async (chunk: Buffer): Promise<void> => {
      if (octets < HEAD_OCTETS) head.push(chunk)
      octets += chunk.length
      hash.update(chunk)
      await ingest.write(chunk)
    }
    try {
      for await (const chunk of content) await add(lineEnds.push(chunk))
      await add(lineEnds.end())
      const message = await ingest.finish()
      return { message, digest: hash.digest(), head: Buffer.concat(head), ingest }
    } catch (error) {
      await ingest.discard()
      throw error
    }
  }

  #end(message: OldMessage): void {
    this.report.isFull = true
    this.#skip(message, 'the mailbox is full: this message and those after it were left there')
  }

  #skipLarge(message: OldMessage): void {
    this.#skip(message, `larger than ${this.#request.messageMaxOctets} octets`)
  }

  #skip({ number }: OldMessage, reason: string): void {
    this.report.skipped.push({ source: `message ${number}`, reason })
  }
}

/** RFC 1939 §7 forbids them; of two messages with one unique-id only the first has it here. */
function withoutRepeats(messages: readonly OldMessage[]): OldMessage[] {
  const seen = new Set<string>()
  return messages.map((message) => {
    const isRepeat = message.uniqueId !== undefined && seen.has(message.uniqueId)
    if (message.uniqueId !== undefined) seen.add(message.uniqueId)
    return isRepeat ? { ...message, uniqueId: undefined } : message
  })
}

const sum = (messages: readonly OldMessage[]): number =>
  messages.reduce((octets, message) => octets + message.octets, 0)
