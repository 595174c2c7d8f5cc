/**
 * Brings messages from files into one maildrop, resumably: a ledger row for each message (digest
 * and n-th copy of it in this run) is written by the delivering statement itself, so a second run
 * goes on where the first was cut and never brings back what the user has deleted since. Nothing is
 * added to a message: it is stored as it lies in the file, with CRLF line ends. Which formats there
 * are is the caller's business; here messages are items that can be opened.
 */
import { createHash } from 'node:crypto'
import { Failure, isFailure } from '../../base/failure.ts'
import { Ingest } from '../../mail/delivery/ingest.ts'
import { LineEnds } from '../../mail/delivery/line-ends.ts'
import { type Recipient, selectRecipient } from '../../storage/accounts.ts'
import { newBodyId, STRETCH_OCTETS } from '../../storage/bodies.ts'
import { type DeliveryStatus, deliver } from '../../storage/deliveries.ts'
import type { Database } from '../../storage/postgres/database.ts'
import { existsImported } from '../../storage/tenants/imported.ts'
import { formatAddress, parseAddress } from '../address.ts'
import { describeReadError } from '../read-error.ts'
import { refused } from '../refusal.ts'

/** One message of a source, or why there is none. `sourceOctets` is its share of the progress. */
export type ImportItem =
  | {
      /** File, and where in it. */
      source: string
      sourceOctets: number
      receivedAt: Date | undefined
      /** The message from its first octet; may be called more than once. */
      open(): AsyncIterable<Buffer>
    }
  | { source: string; sourceOctets: number; refusal: string }

export interface ImportProgress {
  /** Sum of sourceOctets done. */
  octets: number
  messages: number
}

export interface ImportRequest {
  address: string
  items: AsyncIterable<ImportItem>
  messageMaxOctets: number
  onProgress?: (progress: ImportProgress) => void
}

export interface ImportReport {
  imported: number
  alreadyImported: number
  skipped: { source: string; reason: string }[]
}

type OpenableItem = Extract<ImportItem, { open: unknown }>

/** What one reading of a message tells; `content` only if it fits one stretch. */
interface Measured {
  octets: number
  digest: Buffer
  content: Buffer | undefined
}

/**
 * @throws {Failure} OPERATION_REFUSED if there is no such user; a storage failure as it came, in
 *   the middle of the run: run it again
 */
export async function importMessages(db: Database, request: ImportRequest): Promise<ImportReport> {
  const address = parseAddress(request.address)
  const recipient = await selectRecipient(db, address.domainName, address.localPart)
  if (recipient === undefined) throw refused(`there is no user ${formatAddress(address)}`)
  const run = new ImportRun(db, recipient, request.messageMaxOctets)
  const report: ImportReport = { imported: 0, alreadyImported: 0, skipped: [] }
  const progress = { octets: 0, messages: 0 }
  for await (const item of request.items) {
    const outcome = 'refusal' in item ? item.refusal : await run.take(item)
    if (outcome === IMPORTED) report.imported++
    else if (outcome === ALREADY_IMPORTED) report.alreadyImported++
    else report.skipped.push({ source: item.source, reason: outcome })
    progress.octets += item.sourceOctets
    progress.messages++
    request.onProgress?.({ ...progress })
  }
  return report
}

const IMPORTED = Symbol('imported')
const ALREADY_IMPORTED = Symbol('already imported')
/** A text is the reason why a message was skipped. */
type Outcome = typeof IMPORTED | typeof ALREADY_IMPORTED | string

class ImportRun {
  readonly #db: Database
  readonly #recipient: Recipient
  readonly #maxOctets: number
  /** How often a digest came up so far: two equal messages in the files are two messages. */
  readonly #copies = new Map<string, number>()

  constructor(db: Database, recipient: Recipient, maxOctets: number) {
    this.#db = db
    this.#recipient = recipient
    this.#maxOctets = maxOctets
  }

  async take(item: OpenableItem): Promise<Outcome> {
    try {
      return await this.#take(item)
    } catch (error) {
      if (isFailure(error, 'MESSAGE_TOO_LARGE')) return `larger than ${this.#maxOctets} octets`
      const reason = describeReadError(error)
      // Not the file's fault: the run ends here and can be started again.
      if (reason === undefined || error instanceof Failure) throw error
      return `cannot be read: ${reason}`
    }
  }

  async #take(item: OpenableItem): Promise<Outcome> {
    const measured = await measure(item.open(), this.#maxOctets)
    if (measured.octets === 0) return 'empty'
    const key = measured.digest.toString('base64')
    const copy = (this.#copies.get(key) ?? 0) + 1
    this.#copies.set(key, copy)
    if (measured.content !== undefined)
      return this.#deliver(item, measured, copy, newBodyId(), measured.content)
    return this.#takeLarge(item, measured, copy)
  }

  /** Read twice, so that a message that is in already writes nothing. */
  async #takeLarge(item: OpenableItem, measured: Measured, copy: number): Promise<Outcome> {
    const { domainId, userId } = this.#recipient
    if (await existsImported(this.#db, domainId, userId, measured.digest, copy))
      return ALREADY_IMPORTED
    const ingest = new Ingest(this.#db, { domainIds: [domainId], maxOctets: this.#maxOctets })
    const digest = createHash('sha256')
    const lineEnds = new LineEnds()
    for await (const chunk of item.open()) {
      const normalized = lineEnds.push(chunk)
      digest.update(normalized)
      await ingest.write(normalized)
    }
    digest.update(lineEnds.end())
    const message = await ingest.finish()
    const bodyId = message.bodyIds.get(domainId)
    if (bodyId === undefined || !digest.digest().equals(measured.digest))
      return 'changed while it was read'
    return this.#deliver(item, measured, copy, bodyId, undefined)
  }

  async #deliver(
    item: OpenableItem,
    { octets, digest }: Measured,
    copy: number,
    bodyId: string,
    content: Buffer | undefined,
  ): Promise<Outcome> {
    const { domainId, userId } = this.#recipient
    const statuses = await deliver(this.#db, {
      domainId,
      bodyId,
      bodyOctets: octets,
      content,
      recipients: [{ userId, prefix: Buffer.alloc(0) }],
      imported: { digest, copy, receivedAt: item.receivedAt, uniqueId: undefined },
    })
    return OUTCOMES[statuses.get(userId)?.status ?? 'unknown-user']
  }
}

const OUTCOMES: Record<DeliveryStatus, Outcome> = {
  delivered: IMPORTED,
  'already-imported': ALREADY_IMPORTED,
  'over-quota': 'the mailbox is full',
  'unknown-user': 'the user is gone',
}

/** @throws {Failure} MESSAGE_TOO_LARGE; errors of reading as they come */
async function measure(content: AsyncIterable<Buffer>, maxOctets: number): Promise<Measured> {
  const digest = createHash('sha256')
  const lineEnds = new LineEnds()
  let octets = 0
  let pieces: Buffer[] = []
  const add = (piece: Buffer): void => {
    octets += piece.length
    if (octets > maxOctets) throw new Failure('MESSAGE_TOO_LARGE')
    digest.update(piece)
    if (octets <= STRETCH_OCTETS) pieces.push(piece)
    else pieces = []
  }
  for await (const chunk of content) add(lineEnds.push(chunk))
  add(lineEnds.end())
  const kept = octets <= STRETCH_OCTETS ? Buffer.concat(pieces) : undefined
  return { octets, digest: digest.digest(), content: kept }
}
