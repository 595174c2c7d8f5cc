/**
 * One LMTP mail transaction, from MAIL to the replies after DATA: what each command is answered,
 * in values. Knows recipients and delivery, not the socket. RFC 2033 §4.2 wants one reply after
 * DATA for each RCPT that succeeded, in their order, a user named twice included; an alias is one
 * RCPT of several recipients, and its 250 says that all of them have the message.
 */
import { randomUUID } from 'node:crypto'
import { assert } from '../base/assert.ts'
import { isFailure } from '../base/failure.ts'
import type { Log } from '../base/log.ts'
import { METRICS } from '../base/metrics.ts'
import { type CopyResult, deliverMessage } from '../mail/delivery/delivery.ts'
import type { DeliveryQueue } from '../mail/delivery/delivery-queue.ts'
import { Ingest } from '../mail/delivery/ingest.ts'
import { lookUpRecipient } from '../mail/delivery/recipients.ts'
import { serializeTraceHeaders, type Trace } from '../mail/delivery/trace-headers.ts'
import type { Database } from '../storage/postgres/database.ts'
import type { Recipient } from '../storage/tenants/recipients.ts'

/** `text` begins with the enhanced status code (RFC 3463). */
export interface Reply {
  code: number
  text: string
}

export const REPLIES = {
  recipientOk: { code: 250, text: '2.1.5 recipient ok' },
  delivered: { code: 250, text: '2.1.5 delivered' },
  unknownUser: { code: 550, text: '5.1.1 no such user here' },
  overQuota: { code: 452, text: '4.2.2 mailbox is full' },
  overQuotaFinal: { code: 552, text: '5.2.2 mailbox is full' },
  partlyOverQuota: { code: 552, text: '5.2.2 one of several mailboxes is full' },
  tooManyRecipients: { code: 452, text: '4.5.3 too many recipients' },
  tooLarge: { code: 552, text: '5.3.4 message is larger than allowed' },
  temporary: { code: 451, text: '4.3.0 cannot do that now, try again later' },
  unknownParameter: { code: 555, text: '5.5.4 parameter not recognized' },
  pathTooLong: { code: 501, text: '5.1.7 reverse-path is too long' },
  utf8NotAsked: { code: 553, text: '5.6.7 such an address needs SMTPUTF8' },
  notTrusted: { code: 554, text: '5.7.1 mail is taken from trusted networks only' },
} as const satisfies Record<string, Reply>

/** RCPT's answers, as they are counted. */
const RECIPIENT_RESULTS = new Map<Reply, string>([
  [REPLIES.recipientOk, 'accepted'],
  [REPLIES.unknownUser, 'unknown-user'],
  [REPLIES.overQuota, 'over-quota'],
  [REPLIES.overQuotaFinal, 'over-quota'],
  [REPLIES.tooManyRecipients, 'too-many'],
  [REPLIES.temporary, 'failed'],
])

/**
 * LIMIT: RFC 5321 §4.5.3.1.8 wants 100 at least; MTAs send 50 to 1000 at once. Those of an alias
 * count each; one alias has 100 at most, so the first RCPT always fits.
 */
const RECIPIENTS_MAX = 1000

export interface TransactionContext {
  db: Database
  queue: DeliveryQueue
  log: Log
  hostname: string
  messageMaxOctets: number
  clock: () => Date
}

export type Origin = Pick<Trace, 'sender' | 'heloName' | 'clientAddress' | 'protocol'>

interface AcceptedRecipient {
  recipients: readonly Recipient[]
  forwardPath: string
}

export class LmtpTransaction {
  readonly #id = randomUUID()
  readonly #context: TransactionContext
  readonly #origin: Origin
  readonly #accepted: AcceptedRecipient[] = []
  #recipientCount = 0

  constructor(context: TransactionContext, origin: Origin) {
    this.#context = context
    this.#origin = origin
  }

  /** RCPT. */
  async addRecipient(forwardPath: string): Promise<Reply> {
    const reply = await this.#addRecipient(forwardPath)
    METRICS.deliveryRecipients.of(RECIPIENT_RESULTS.get(reply) ?? 'other').add()
    return reply
  }

  async #addRecipient(forwardPath: string): Promise<Reply> {
    if (this.#recipientCount >= RECIPIENTS_MAX) return REPLIES.tooManyRecipients
    try {
      const found = await lookUpRecipient(this.#context.db, forwardPath)
      if (found.kind === 'unknown') return REPLIES.unknownUser
      if (found.kind === 'over-quota')
        return found.isFinal ? REPLIES.overQuotaFinal : REPLIES.overQuota
      const { recipients } = found
      if (this.#recipientCount + recipients.length > RECIPIENTS_MAX)
        return REPLIES.tooManyRecipients
      this.#recipientCount += recipients.length
      this.#accepted.push({ recipients, forwardPath })
      return REPLIES.recipientOk
    } catch (error) {
      this.#warn(error, 'recipient not looked up')
      return REPLIES.temporary
    }
  }

  /**
   * DATA: takes the message while it arrives, to its end even if it is refused before (replies may
   * not come earlier), but without keeping the rest.
   * @throws if the peer went away before the end: then nothing was delivered
   */
  async receive(message: AsyncIterable<Buffer>): Promise<Reply[]> {
    const { db, messageMaxOctets } = this.#context
    const domainIds = this.#accepted.flatMap(({ recipients }) =>
      recipients.map(({ domainId }) => domainId),
    )
    const ingest = new Ingest(db, { domainIds, maxOctets: messageMaxOctets })
    let failure: { error: unknown } | undefined
    try {
      for await (const chunk of message) {
        if (failure !== undefined) continue
        await ingest.write(chunk).catch((error: unknown) => {
          failure = { error }
          ingest.abort()
        })
      }
    } catch (error) {
      ingest.abort()
      this.#warn(error, 'message cut off, nothing delivered')
      throw error
    }
    if (failure !== undefined) return this.#refuseAll(failure.error)
    return this.#deliver(ingest).catch((error: unknown) => this.#refuseAll(error))
  }

  async #deliver(ingest: Ingest): Promise<Reply[]> {
    const { queue, hostname, clock } = this.#context
    const beganAt = performance.now()
    const message = await ingest.finish()
    const trace = {
      ...this.#origin,
      hostname,
      transactionId: this.#id,
      receivedAt: clock(),
    }
    const copies = this.#accepted.flatMap(({ recipients, forwardPath }) =>
      recipients.map((recipient) => ({
        recipient,
        prefix: serializeTraceHeaders(trace, recipient, forwardPath),
      })),
    )
    const results = await deliverMessage(queue, message, copies)
    METRICS.deliverySeconds.of().observe((performance.now() - beganAt) / 1_000)
    if (results.some(({ kind }) => kind === 'delivered'))
      METRICS.deliveryOctets.of().add(message.octets)
    let next = 0
    return this.#accepted.map(({ recipients }) => {
      const own = results.slice(next, next + recipients.length)
      next += recipients.length
      for (const [at, recipient] of recipients.entries())
        this.#record(own[at], recipient, message.octets)
      return this.#named(replyTo(own, recipients))
    })
  }

  #record(result: CopyResult | undefined, recipient: Recipient, octets: number): void {
    assert(result !== undefined, 'each copy has a result')
    const fields = {
      domain: recipient.domainName,
      user: `${recipient.localPart}@${recipient.domainName}`,
      client: this.#origin.clientAddress ?? 'local',
      delivery: this.#id,
      octets,
    }
    const { log } = this.#context
    METRICS.deliveryCopies.of(result.kind).add()
    switch (result.kind) {
      case 'delivered':
        log.info({ ...fields, uid: result.uid }, 'message delivered')
        break
      case 'over-quota':
        log.info(fields, notTaken(result.isDomainFull))
        break
      case 'unknown-user':
        log.info(fields, 'message refused: user is gone')
        break
      case 'failed':
        log.warn({ ...fields, error: result.error }, 'message not delivered')
        break
    }
  }

  #refuseAll(error: unknown): Reply[] {
    this.#warn(error, 'message not taken')
    const reply = isFailure(error, 'MESSAGE_TOO_LARGE') ? REPLIES.tooLarge : REPLIES.temporary
    const result = reply === REPLIES.tooLarge ? 'too-large' : 'failed'
    METRICS.deliveryCopies.of(result).add(this.#recipientCount)
    return this.#accepted.map(() => reply)
  }

  /** Leads from the MTA's log to ours, and to the id of the Received field. */
  #named(reply: Reply): Reply {
    return reply === REPLIES.delivered ? { ...reply, text: `${reply.text}, id ${this.#id}` } : reply
  }

  #warn(error: unknown, what: string): void {
    const client = this.#origin.clientAddress ?? 'local'
    this.#context.log.warn({ client, delivery: this.#id, error }, what)
  }
}

const notTaken = (isDomainFull: boolean): string =>
  isDomainFull
    ? 'message not taken: the domain is over its quota'
    : 'message not taken: mailbox is full'

/**
 * Of one RCPT. Some of an alias have it and others have no room: then 552, whatever the domain
 * says, as a message that comes again would come twice to those who have it, once for each
 * attempt.
 */
function replyTo(results: readonly CopyResult[], recipients: readonly Recipient[]): Reply {
  const isAny = (kind: CopyResult['kind']): boolean => results.some((each) => each.kind === kind)
  if (isAny('failed')) return REPLIES.temporary
  if (!isAny('over-quota')) return isAny('delivered') ? REPLIES.delivered : REPLIES.unknownUser
  if (isAny('delivered')) return REPLIES.partlyOverQuota
  const isFinal = recipients.some(
    ({ isRefusedWhenFull }, at) => isRefusedWhenFull && results[at]?.kind === 'over-quota',
  )
  return isFinal ? REPLIES.overQuotaFinal : REPLIES.overQuota
}
