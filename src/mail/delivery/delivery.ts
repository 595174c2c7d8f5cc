/**
 * The last step of a delivery: one statement for each domain makes the rows, and with that the
 * message exists. Domains succeed and fail on their own; each recipient gets a result of its own,
 * in the order asked for. A user named twice receives one copy.
 */
import { assert } from '../../base/assert.ts'
import type { Recipient } from '../../storage/tenants/recipients.ts'
import type { DeliveryQueue } from './delivery-queue.ts'
import type { IngestedMessage } from './ingest.ts'

/** A recipient and what stands before the body in this copy. */
export interface AddressedCopy {
  recipient: Recipient
  prefix: Buffer
}

export type CopyResult =
  | { kind: 'delivered'; uid: number }
  | { kind: 'over-quota'; isDomainFull: boolean }
  | { kind: 'unknown-user' }
  | { kind: 'failed'; error: unknown }

/** @returns one result for each of `copies`, in their order; 'delivered' means committed */
export async function deliverMessage(
  queue: DeliveryQueue,
  message: IngestedMessage,
  copies: readonly AddressedCopy[],
): Promise<CopyResult[]> {
  const results = new Map<AddressedCopy, CopyResult>()
  for (const domainId of new Set(copies.map((copy) => copy.recipient.domainId))) {
    const domainCopies = copies.filter((copy) => copy.recipient.domainId === domainId)
    const outcome = await deliverInDomain(queue, message, domainId, domainCopies)
    for (const copy of domainCopies) results.set(copy, outcome(copy.recipient.userId))
  }
  return copies.map((copy) => {
    const result = results.get(copy)
    assert(result !== undefined, 'each copy belongs to a domain')
    return result
  })
}

async function deliverInDomain(
  queue: DeliveryQueue,
  message: IngestedMessage,
  domainId: number,
  copies: readonly AddressedCopy[],
): Promise<(userId: number) => CopyResult> {
  const bodyId = message.bodyIds.get(domainId)
  assert(bodyId !== undefined, 'a message has a body for each domain of its recipients')
  const prefixes = new Map<number, Buffer>()
  for (const { recipient, prefix } of copies)
    if (!prefixes.has(recipient.userId)) prefixes.set(recipient.userId, prefix)
  try {
    const statuses = await queue.deliver({
      domainId,
      bodyId,
      bodyOctets: message.octets,
      content: message.content,
      recipients: [...prefixes].map(([userId, prefix]) => ({ userId, prefix })),
    })
    return (userId) => {
      const found = statuses.get(userId)
      if (found === undefined || found.status === 'unknown-user') return { kind: 'unknown-user' }
      const { status, uid, isDomainFull = false } = found
      if (status === 'over-quota') return { kind: status, isDomainFull }
      assert(
        status === 'delivered' && uid !== undefined,
        'only an import finds itself in the ledger',
      )
      return { kind: 'delivered', uid }
    }
  } catch (error) {
    return () => ({ kind: 'failed', error })
  }
}
