/** UIDL where unique-ids were imported: asked for page by page, none kept, no end that is not one. */
import { expect, test } from 'vitest'
import type { ImportedIds, Pop3Action } from '../../../src/protocol/pop3/actions.ts'
import { Pop3Session } from '../../../src/protocol/pop3/session.ts'

const MESSAGES = 5_000
const PAGE = 2_000
const UNAVAILABLE = { kind: 'unavailable', reason: 'temporary' } as const

/** Every third message has its own unique-id; uids are no numbers of messages. */
const uidOf = (number: number): number => 1_000 + 2 * number
const importedOf = (number: number): string | undefined =>
  number % 3 === 0 ? `imported-${number}` : undefined
const lineOf = (number: number): string =>
  `${number} ${importedOf(number) ?? `17.${uidOf(number)}`}`

/** A session that is logged in and has its list. */
function open(): Pop3Session {
  const policy = { loginDelaySeconds: 0, expireDays: undefined }
  const session = new Pop3Session({
    hostname: 'dewey',
    apopTimestamp: undefined,
    isPlaintextAllowed: true,
    isTlsOffered: false,
    saslMechanisms: [],
    channelBinding: undefined,
    policy,
    isPolicyByUser: false,
    isUtf8Asked: false,
    implementation: 'Popgres',
  })
  say(session, 'USER mrose\r\nPASS tanstaaf\r\n')
  session.resume({
    kind: 'opened',
    displayName: 'mrose',
    messageCount: MESSAGES,
    octets: MESSAGES,
    uidPrefix: '17.',
    hasUniqueIds: true,
    policy,
    serverSignature: undefined,
  })
  say(session, 'LIST 1\r\n')
  session.resume({
    kind: 'listed',
    uids: Int32Array.from({ length: MESSAGES }, (_, index) => uidOf(index + 1)),
    octets: new Int32Array(MESSAGES).fill(1),
  })
  pull(session)
  return session
}

/** What is sent, as text, and the other actions. */
function pull(session: Pop3Session): { text: string; actions: Pop3Action[] } {
  const pulled = { text: '', actions: [] as Pop3Action[] }
  for (let action = session.next(); action !== undefined; action = session.next()) {
    if (action.kind === 'send') pulled.text += action.bytes.toString('latin1')
    else pulled.actions.push(action)
  }
  return pulled
}

function say(session: Pop3Session, text: string): ReturnType<typeof pull> {
  session.receive(Buffer.from(text))
  return pull(session)
}

function asking(first: number, last: number): Pop3Action {
  return { kind: 'unique-ids', firstUid: uidOf(first), lastUid: uidOf(last) }
}

function importedOfPage(first: number, last: number): { kind: 'unique-ids' } & ImportedIds {
  const numbers = Array.from({ length: last - first + 1 }, (_, index) => first + index)
  const own = numbers.filter((number) => importedOf(number) !== undefined)
  const uniqueIds = own.map((number) => importedOf(number) ?? '')
  return { kind: 'unique-ids', uids: Int32Array.from(own, uidOf), uniqueIds }
}

test('a listing goes over the borders of pages, and what was pipelined behind it waits', () => {
  const session = open()
  const deleted = [1, 3, 1_999, 2_000, 2_001, 2_004, 3_999, 4_000, 5_000]
  say(session, deleted.map((number) => `DELE ${number}\r\n`).join(''))
  let { text, actions } = say(session, 'UIDL\r\nSTAT\r\nUIDL 6\r\n')
  for (const [first, last] of [
    [1, 2_000],
    [2_001, 4_000],
    [4_001, 5_000],
  ] as const) {
    expect(actions).toEqual([asking(first, last)])
    session.resume(importedOfPage(first, last))
    const next = pull(session)
    text += next.text
    actions = next.actions
  }
  expect(actions).toEqual([asking(6, 6)])
  session.resume(importedOfPage(6, 6))
  text += pull(session).text
  const numbers = Array.from({ length: MESSAGES }, (_, index) => index + 1)
  const left = numbers.filter((number) => !deleted.includes(number))
  const count = left.length
  const lines = [...left.map(lineOf), '.', `+OK ${count} ${count}`, '+OK 6 imported-6', '']
  expect(text).toBe(`+OK unique-id listing follows\r\n${lines.join('\r\n')}`)
})

test('of one message only its own is asked for, each time: nothing is kept', () => {
  const session = open()
  for (const [number, uniqueId] of [
    [3, 'imported-3'],
    [4, '17.1008'],
    [3, 'imported-3'],
  ] as const) {
    expect(say(session, `UIDL ${number}\r\n`).actions).toEqual([asking(number, number)])
    session.resume(importedOfPage(number, number))
    expect(pull(session).text).toBe(`+OK ${number} ${uniqueId}\r\n`)
  }
  expect(say(session, 'UIDL\r\n').actions).toEqual([asking(1, PAGE)])
})

test('the next page is asked for when the owner has taken all of the last one', () => {
  const session = open()
  say(session, 'UIDL\r\n')
  session.resume(importedOfPage(1, PAGE))
  let taken = ''
  let action = session.next()
  for (; action?.kind === 'send'; action = session.next()) taken += action.bytes.toString('latin1')
  expect(taken.split('\r\n')).toHaveLength(PAGE + 2)
  expect(action).toEqual(asking(PAGE + 1, 2 * PAGE))
})

test('a first page that cannot be had is a refusal, and may be asked for again', () => {
  const session = open()
  say(session, 'UIDL\r\nUIDL 3\r\n')
  session.resume(UNAVAILABLE)
  const { text, actions } = pull(session)
  expect(text).toMatch(/^-ERR \[SYS\/TEMP\] [^\r]*\r\n$/)
  expect(actions).toEqual([asking(3, 3)])
  session.resume(UNAVAILABLE)
  expect(pull(session).text).toMatch(/^-ERR \[SYS\/TEMP\] [^\r]*\r\n$/)
  expect(say(session, 'UIDL\r\n').actions).toEqual([asking(1, PAGE)])
})

test('a later page that cannot be had cuts the connection: no dot, no -ERR, no command', () => {
  const session = open()
  say(session, 'UIDL\r\nSTAT\r\nQUIT\r\n')
  session.resume(importedOfPage(1, PAGE))
  expect(pull(session).text).not.toContain('\r\n.\r\n')
  session.resume(UNAVAILABLE)
  expect(pull(session)).toEqual({ text: '', actions: [{ kind: 'close', reason: 'cut-short' }] })
  expect(say(session, 'NOOP\r\n')).toEqual({ text: '', actions: [] })
})

test('an end waits for the last page; a peer that has gone is told no more', () => {
  const session = open()
  say(session, 'UIDL\r\nSTAT\r\n')
  session.end('drain')
  session.resume(importedOfPage(1, PAGE))
  expect(pull(session).actions).toEqual([asking(PAGE + 1, 2 * PAGE)])
  session.resume(importedOfPage(PAGE + 1, 2 * PAGE))
  expect(pull(session).actions).toEqual([asking(2 * PAGE + 1, MESSAGES)])
  session.resume(importedOfPage(2 * PAGE + 1, MESSAGES))
  const { text, actions } = pull(session)
  expect(text).toMatch(/\r\n\.\r\n-ERR \[SYS\/TEMP\] [^\r]*\r\n$/)
  expect(actions).toEqual([{ kind: 'close', reason: 'drain' }])

  const left = open()
  say(left, 'UIDL\r\n')
  left.resume(importedOfPage(1, PAGE))
  pull(left)
  left.end('gone')
  left.resume(importedOfPage(PAGE + 1, 2 * PAGE))
  expect(pull(left)).toEqual({ text: '', actions: [] })
})
