/**
 * Brings messages from elsewhere into one maildrop, resumably: a ledger row for each message is
 * written by the delivering statement itself, so a second run goes on where the first was cut and
 * never brings back what the user has deleted since (import-ledger.ts). Nothing is added to a
 * message: it is stored as it lies there, with CRLF line ends. Which sources there are is the
 * caller's business; here messages are items that can be opened.
 */
import { createHash } from 'node:crypto'
import { Failure, isFailure } from '../../base/failure.ts'
import { Ingest } from '../../mail/delivery/ingest.ts'
import { LineEnds } from '../../mail/delivery/line-ends.ts'
import { newBodyId, STRETCH_OCTETS } from '../../storage/bodies.ts'
import { type DeliveryStatus, deliver } from '../../storage/deliveries.ts'
import type { Database } from '../../storage/postgres/database.ts'
import { requireUser } from '../operations/users.ts'
import { describeReadError } from '../read-error.ts'
import { ALREADY_IMPORTED, ImportLedger, type LedgerUser } from './import-ledger.ts'

/** One message of a source, or why there is none. `sourceOctets` is its share of the progress. */
export type ImportItem =
  | {
      /** File, and where in it. */
      source: string
      sourceOctets: number
      receivedAt: Date | undefined
      /** What UIDL said of it on the old server; absent: a new one is made. */
      uniqueId?: string | undefined
      /** Reading it costs more than a look-up: one whose unique-id is in already is not opened. */
      isRemote?: boolean
      /** The message from its first octet; may be called more than once. */
      open(): AsyncIterable<Buffer>
    }
  | {
      source: string
      sourceOctets: number
      refusal: string
      /** It is there and could not be read now: this message, or nobody knows how many. */
      unread?: 'message' | 'source'
    }

export interface ImportProgress {
  /** Sum of sourceOctets done. */
  octets: number
  messages: number
}

export interface ImportOptions {
  items: AsyncIterable<ImportItem>
  messageMaxOctets: number
  /** Everything is read, nothing written. */
  isDryRun?: boolean
  /** A message whose unique-id cannot be kept comes in with a new one instead of not at all. */
  replacesUniqueIds?: boolean
  onProgress?: (progress: ImportProgress) => void
}

export interface ImportRequest extends ImportOptions {
  address: string
}

export interface ImportReport {
  imported: number
  alreadyImported: number
  skipped: { source: string; reason: string }[]
  /** Of those skipped: what could not be read, and may be another time. */
  unread?: number
}

type OpenableItem = Extract<ImportItem, { open: unknown }>

/** What one reading of a message tells; `content` only if it fits one stretch. */
interface Measured {
  octets: number
  digest: Buffer
  content: Buffer | undefined
}

/** Its row in the ledger, and what the message is to have of its old place. */
interface Placed {
  digest: Buffer
  copy: number
  uniqueId: string | undefined
  receivedAt: Date | undefined
}

/**
 * @throws {Failure} OPERATION_REFUSED if there is no such user; a storage failure as it came, in
 *   the middle of the run: run it again
 */
export async function importMessages(db: Database, request: ImportRequest): Promise<ImportReport> {
  const { row } = await requireUser(db, request.address)
  const { domainId, userId, quotaOctets, octets } = row
  const room = quotaOctets === undefined ? undefined : quotaOctets - octets
  return await importItems(db, { domainId, userId, room }, request)
}

/** Thrown by `open()`: this message cannot be taken, others can. */
export class UnreadableMessage extends Error {}

/** Whose maildrop; `room` in octets counts in a dry run, else the delivering statement knows. */
export interface ImportUser extends Partial<LedgerUser> {
  room: number | undefined
}

/**
 * @param user without ids: not there yet, in a dry run
 * @param report filled as it goes, so that it is there if the source breaks off
 */
export async function importItems(
  db: Database,
  user: ImportUser,
  options: ImportOptions,
  report: ImportReport = { imported: 0, alreadyImported: 0, skipped: [] },
): Promise<ImportReport> {
  const run = new ImportRun(db, user, options)
  const progress = { octets: 0, messages: 0 }
  for await (const item of options.items) {
    const outcome = 'refusal' in item ? outcomeOf(item) : await run.take(item)
    if (outcome === IMPORTED) report.imported++
    else if (outcome === ALREADY_IMPORTED) report.alreadyImported++
    else if (typeof outcome === 'string')
      report.skipped.push({ source: item.source, reason: outcome })
    else {
      report.skipped.push({ source: item.source, reason: outcome.unread })
      report.unread = (report.unread ?? 0) + 1
    }
    progress.octets += item.sourceOctets
    progress.messages++
    options.onProgress?.({ ...progress })
  }
  return report
}

const IMPORTED = Symbol('imported')
/** A text is the reason why a message was skipped; `unread`: it may come another time. */
type Outcome = typeof IMPORTED | typeof ALREADY_IMPORTED | string | { unread: string }

function outcomeOf({ refusal, unread }: Extract<ImportItem, { refusal: string }>): Outcome {
  return unread === undefined ? refusal : { unread: refusal }
}

class ImportRun {
  readonly #db: Database
  readonly #user: LedgerUser | undefined
  readonly #options: ImportOptions
  readonly #ledger: ImportLedger
  #room: number

  constructor(db: Database, { domainId, userId, room }: ImportUser, options: ImportOptions) {
    this.#db = db
    if (domainId !== undefined && userId !== undefined) this.#user = { domainId, userId }
    this.#options = options
    this.#ledger = new ImportLedger(db, this.#user, options.isDryRun === true)
    this.#room = room ?? Number.POSITIVE_INFINITY
  }

  async take(item: OpenableItem): Promise<Outcome> {
    try {
      return await this.#take(item)
    } catch (error) {
      if (isFailure(error, 'MESSAGE_TOO_LARGE'))
        return `larger than ${this.#options.messageMaxOctets} octets`
      if (error instanceof UnreadableMessage) return error.message
      const reason = describeReadError(error)
      // Not the file's fault: the run ends here and can be started again.
      if (reason === undefined || error instanceof Failure) throw error
      return { unread: `cannot be read: ${reason}` }
    }
  }

  async #take(item: OpenableItem): Promise<Outcome> {
    const named = await this.#ledger.takeUniqueId(item.uniqueId, item.isRemote === true)
    if (named === ALREADY_IMPORTED) return named
    if (named.problem !== undefined && this.#options.replacesUniqueIds !== true)
      return named.problem
    const measured = await measure(item.open(), this.#options.messageMaxOctets)
    if (measured.octets === 0) return 'empty'
    const copy = await this.#ledger.place(measured, named)
    if (typeof copy !== 'number') return copy
    if (this.#user === undefined || this.#options.isDryRun === true)
      return this.#pretend(measured.octets)
    const { uniqueId } = named
    const placed = { digest: measured.digest, copy, uniqueId, receivedAt: item.receivedAt }
    if (measured.content !== undefined)
      return this.#deliver(this.#user, placed, measured.octets, newBodyId(), measured.content)
    return this.#takeLarge(this.#user, item, placed, measured)
  }

  #pretend(octets: number): Outcome {
    if (octets > this.#room) return OUTCOMES['over-quota']
    this.#room -= octets
    return IMPORTED
  }

  /** Read twice, so that a message that is in already writes nothing. */
  async #takeLarge(
    user: LedgerUser,
    item: OpenableItem,
    placed: Placed,
    measured: Measured,
  ): Promise<Outcome> {
    const { domainId } = user
    const maxOctets = this.#options.messageMaxOctets
    const ingest = new Ingest(this.#db, { domainIds: [domainId], maxOctets })
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
      return { unread: 'changed while it was read' }
    return this.#deliver(user, placed, measured.octets, bodyId, undefined)
  }

  async #deliver(
    { domainId, userId }: LedgerUser,
    imported: Placed,
    bodyOctets: number,
    bodyId: string,
    content: Buffer | undefined,
  ): Promise<Outcome> {
    const statuses = await deliver(this.#db, {
      domainId,
      bodyId,
      bodyOctets,
      content,
      recipients: [{ userId, prefix: Buffer.alloc(0) }],
      imported,
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
