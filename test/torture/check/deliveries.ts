/**
 * What was acknowledged is there or was deleted, with the same octets; what is there was sent, once at
 * most for each attempt, and its first lines name nobody else.
 */
import type { FinalMessage, FinalState } from './final.ts'
import type { Delivery, Records, SessionRecord } from './records.ts'
import type { Violation } from './violation.ts'

export function checkDeliveries({ deliveries, sessions }: Records, final: FinalState): Violation[] {
  const violations: Violation[] = []
  const copies = new Map<string, FinalMessage[]>()
  for (const message of final.messages) {
    violations.push(...checkStored(message, deliveries.get(message.token)))
    const key = `${message.token} ${message.maildrop}`
    copies.set(key, [...(copies.get(key) ?? []), message])
  }
  for (const delivery of deliveries.values())
    for (const [maildrop, at] of delivery.acknowledged)
      if (!copies.has(`${delivery.token} ${maildrop}`)) {
        const detail = `${delivery.token} was answered 250 and is neither in the maildrop nor deleted`
        violations.push({ rule: 'acknowledged message lost', at, maildrop, detail })
      }
  for (const [key, found] of copies)
    if (found.length > 1) {
      const [token = '', maildrop = ''] = key.split(' ')
      const ids = found.map(({ uniqueId }) => uniqueId).join(' and ')
      violations.push({ rule: 'message doubled', maildrop, detail: `${token} is there as ${ids}` })
    }
  for (const list of sessions.values())
    for (const session of list) violations.push(...checkTold(session, deliveries))
  return violations
}

function checkStored(message: FinalMessage, delivery: Delivery | undefined): Violation[] {
  const { maildrop, uniqueId, token, digest, names, place } = message
  const what = `${token} (${uniqueId}, ${place})`
  const violations = checkSender(maildrop, what, names, delivery)
  if (delivery !== undefined && delivery.digest !== digest)
    violations.push({ rule: 'message changed', maildrop, detail: `${what} is stored otherwise` })
  if (message.octets !== message.storedOctets) {
    const detail = `${what} says ${message.octets} octets and has ${message.storedOctets}`
    violations.push({ rule: 'message changed', maildrop, detail })
  }
  return violations
}

function checkTold(session: SessionRecord, deliveries: Records['deliveries']): Violation[] {
  const { maildrop } = session
  const violations: Violation[] = []
  for (const { at, command, number, token, octets, digest, names } of session.messages) {
    const delivery = deliveries.get(token)
    const what = `${token} (${command} ${number} in session ${session.session})`
    const found = checkSender(maildrop, what, names, delivery)
    const size = session.entries.get(number)?.[2]
    if (digest !== undefined && delivery !== undefined && digest !== delivery.digest)
      found.push({ rule: 'message changed', maildrop, detail: `${what} was sent otherwise` })
    else if (digest !== undefined && size !== undefined && size !== octets) {
      const detail = `${what} has ${octets} octets, LIST said ${size}`
      found.push({ rule: 'message changed', maildrop, detail })
    }
    violations.push(...found.map((violation) => ({ ...violation, at })))
  }
  return violations
}

function checkSender(
  maildrop: string,
  what: string,
  names: readonly string[],
  delivery: Delivery | undefined,
): Violation[] {
  if (delivery === undefined || !delivery.recipients.includes(maildrop))
    return [{ rule: 'message nobody sent', maildrop, detail: `${what} was not sent to it` }]
  if (delivery.refused.has(maildrop))
    return [{ rule: 'message nobody sent', maildrop, detail: `${what} was refused at RCPT` }]
  const others = names.filter((name) => name !== maildrop)
  if (others.length === 0 && names.length > 0) return []
  const detail = `${what} names ${others.length === 0 ? 'nobody' : others.join(', ')}`
  return [{ rule: "another recipient's lines", maildrop, detail }]
}
