/**
 * A fault of the server's is never told as a fact about the client's request: who gives the right password,
 * asks for messages that are listed and delivers to users that exist, may be refused for now ([IN-USE],
 * [SYS/TEMP], 4xx), never for good.
 */
import type { HistoryEvent } from '../history.ts'
import { isOvertaken } from './exclusion.ts'
import type { Records } from './records.ts'
import type { Violation } from './violation.ts'

export function checkHonesty(events: readonly HistoryEvent[], { sessions }: Records): Violation[] {
  const maildrops = new Map<number, string>()
  const overtaken = new Set<number>()
  for (const list of sessions.values())
    for (const one of list)
      if (list.some((other) => isOvertaken(one, other))) overtaken.add(one.session)
  const violations: Violation[] = []
  const fail = (at: number, maildrop: string, detail: string): void => {
    violations.push({ rule: 'refused for good', at, maildrop, detail })
  }
  for (const event of events) {
    const { at } = event
    if (event.type === 'login') maildrops.set(event.session, event.maildrop)
    const maildrop = 'session' in event ? (maildrops.get(event.session) ?? '') : ''
    if (event.type === 'login-told' && !/^(\+OK|-ERR \[(IN-USE|SYS\/TEMP)\])/.test(event.reply))
      fail(at, maildrop, `the login of session ${event.session} was answered ${event.reply}`)
    // What an overtaken session asks for may have been deleted by the one that has the maildrop.
    if (event.type === 'refused' && !overtaken.has(event.session) && !isTemporary(event.reply))
      fail(at, maildrop, `${event.command} in session ${event.session} was answered ${event.reply}`)
    if (event.type === 'quit-told' && !event.reply.startsWith('+OK') && !isTemporary(event.reply))
      fail(at, maildrop, `QUIT of session ${event.session} was answered ${event.reply}`)
    if (event.type === 'delivery-told' && event.code !== 250 && Math.floor(event.code / 100) !== 4)
      fail(at, event.recipient, `${event.token} was answered ${event.code} at ${event.stage}`)
  }
  return violations
}

const isTemporary = (reply: string): boolean => reply.startsWith('-ERR [SYS/TEMP]')
