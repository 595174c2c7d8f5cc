/** The checker on histories made by hand: a good one passes, and each lie is called by its name. */
import { expect, test } from 'vitest'
import type { HistoryFact, ListEntry } from '../history.ts'
import { checkHistory } from './checker.ts'
import type { FinalMessage, FinalState } from './final.ts'
import type { Rule } from './violation.ts'

const ADA = 'ada@one.torture.test'
const TEMPORARY = '-ERR [SYS/TEMP]'
const BEA = 'bea@one.torture.test'

/** A history is written in this order, a second for each line; `sentAt` is half a second before. */
class Tale {
  readonly events: (HistoryFact & { at: number })[] = []

  get now(): number {
    return this.events.length * 1_000
  }

  tell(fact: HistoryFact): this {
    this.events.push({ at: this.now, ...fact })
    return this
  }

  /** Sent to `recipients`, of whom all were told `code` after DATA; null: nobody was told. */
  deliver(token: string, recipients = [ADA], code: number | null = 250): this {
    const content = { digest: `digest of ${token}`, octets: 100 }
    this.tell({ type: 'delivery', token, recipients, ...content, node: 'node 1' })
    for (const recipient of recipients)
      if (code !== null) this.tell({ type: 'delivery-told', token, recipient, stage: 'data', code })
    return this
  }

  login(session: number, reply = '+OK', maildrop = ADA, node = 'node 1'): this {
    this.tell({ type: 'login', session, maildrop, node })
    return this.tell({ type: 'login-told', session, reply })
  }

  list(session: number, ...entries: ListEntry[]): this {
    return this.tell({ type: 'list', session, sentAt: this.now - 500, entries })
  }

  stat(session: number, count: number, octets: number): this {
    return this.tell({ type: 'stat', session, sentAt: this.now - 500, count, octets })
  }

  fetch(session: number, number: number, token: string, change: object = {}): this {
    const fact = {
      type: 'message',
      session,
      sentAt: this.now - 500,
      command: 'RETR',
      number,
      token,
      octets: 110,
      digest: `digest of ${token}`,
    } as const
    return this.tell({ ...fact, names: [ADA], ...change })
  }

  mark(session: number, ...numbers: number[]): this {
    for (const number of numbers) {
      this.tell({ type: 'mark', session, number })
      this.tell({ type: 'ok', session, sentAt: this.now - 500, command: 'DELE' })
    }
    return this
  }

  /** @param reply undefined: the connection broke before */
  quit(session: number, reply?: string): this {
    this.tell({ type: 'quit', session })
    if (reply !== undefined) this.tell({ type: 'quit-told', session, reply })
    return this.close(session)
  }

  close(session: number): this {
    return this.tell({ type: 'closed', session, by: 'client' })
  }

  window(kind: 'leases-lost' | 'silenced', phase: 'open' | 'over', node?: string): this {
    return this.tell({
      type: 'window',
      kind,
      phase,
      id: kind === 'silenced' ? 2 : 1,
      ...(node === undefined ? {} : { node }),
    })
  }
}

const entry = (number: number, uid = number): ListEntry => [number, `7.${uid}`, 110]

function stored(token: string, uid: number, change: Partial<FinalMessage> = {}): FinalMessage {
  return {
    maildrop: ADA,
    uid,
    uniqueId: `7.${uid}`,
    place: 'maildrop',
    octets: 110,
    storedOctets: 110,
    token,
    digest: `digest of ${token}`,
    names: [ADA],
    ...change,
  }
}

/** With everything else as it must be. */
function ending(messages: FinalMessage[], change: Partial<FinalState> = {}): FinalState {
  const maildrops = [...new Set(messages.map(({ maildrop }) => maildrop))]
  const left = messages.filter(({ place }) => place === 'maildrop')
  return {
    messages,
    counters: maildrops.map((maildrop) => {
      const own = left.filter((message) => message.maildrop === maildrop)
      const octets = own.reduce((sum, message) => sum + message.octets, 0)
      return { maildrop, count: own.length, octets, nextUid: 100 }
    }),
    findings: [],
    orphans: { beforePurge: 0, afterPurge: 0, trash: 0 },
    afterSweep: left,
    ...change,
  }
}

const trash = { place: 'trash' } as const

function rulesOf(tale: Tale, final: FinalState): Rule[] {
  return checkHistory(tale.events, final).map(({ rule }) => rule)
}

/** Two messages; session 1 lists both, marks the first and sends QUIT, which is answered by `reply`. */
const twoMessages = (reply?: string): Tale =>
  new Tale()
    .deliver('t1')
    .deliver('t2')
    .login(1)
    .stat(1, 2, 220)
    .list(1, entry(1), entry(2))
    .fetch(1, 1, 't1')
    .mark(1, 1)
    .stat(1, 1, 110)
    .quit(1, reply)

const one = stored('t1', 1)
const two = stored('t2', 2)
const oneGone = stored('t1', 1, trash)

test('a good history: delivered, fetched, deleted by QUIT, gone in the next session', () => {
  const tale = twoMessages('+OK').login(2).stat(2, 1, 110).list(2, entry(1, 2)).quit(2, '+OK')
  expect(checkHistory(tale.events, ending([oneGone, two]))).toEqual([])
})

test('good histories: QUIT unanswered, all or none; RSET; the connection dropped; -ERR', () => {
  expect(rulesOf(twoMessages(), ending([oneGone, two]))).toEqual([])
  expect(rulesOf(twoMessages(), ending([one, two]))).toEqual([])
  expect(rulesOf(twoMessages(TEMPORARY), ending([one, two]))).toEqual([])
  const begun = new Tale().deliver('t1').login(1).list(1, entry(1)).mark(1, 1)
  const dropped = new Tale().deliver('t1').login(1).list(1, entry(1)).mark(1, 1).close(1)
  expect(rulesOf(dropped, ending([one]))).toEqual([])
  const reset = begun.tell({ type: 'unmark', session: 1, sentAt: begun.now - 500 }).quit(1, '+OK')
  expect(rulesOf(reset, ending([one]))).toEqual([])
})

test('good histories: listed again without what is marked; DELE refused; the next one after QUIT was sent', () => {
  const again = new Tale().deliver('t1').deliver('t2').login(1).list(1, entry(1), entry(2))
  again.mark(1, 1).list(1, entry(2)).close(1)
  expect(rulesOf(again, ending([one, two]))).toEqual([])
  const refused = new Tale().deliver('t1').login(1).list(1, entry(1))
  refused.tell({ type: 'mark', session: 1, number: 1 })
  const answer = { command: 'DELE', number: 1, reply: TEMPORARY }
  refused.tell({ type: 'refused', session: 1, sentAt: refused.now - 500, ...answer })
  expect(rulesOf(refused.quit(1, '+OK'), ending([one]))).toEqual([])
  const handed = new Tale().login(1).tell({ type: 'quit', session: 1 }).login(2)
  expect(rulesOf(handed.close(1).quit(2, '+OK'), ending([]))).toEqual([])
})

test('good histories: an answer of DATA lost or 4xx, and the message there once or not at all', () => {
  const lost = new Tale().deliver('t1', [ADA, BEA], null).deliver('t2', [ADA], 451)
  expect(rulesOf(lost, ending([]))).toEqual([])
  expect(rulesOf(lost, ending([one, two]))).toEqual([])
})

test('an acknowledged message that is nowhere', () => {
  expect(rulesOf(new Tale().deliver('t1'), ending([]))).toEqual(['acknowledged message lost'])
})

test('an acknowledged message that the sweep took with it', () => {
  const final = ending([one], { afterSweep: [] })
  expect(rulesOf(new Tale().deliver('t1'), final)).toEqual(['acknowledged message lost'])
})

test('a message that is stored, sent or counted otherwise', () => {
  const changed = ending([stored('t1', 1, { digest: 'another' })])
  expect(rulesOf(new Tale().deliver('t1'), changed)).toEqual(['message changed'])
  const short = ending([stored('t1', 1, { storedOctets: 109 })])
  expect(rulesOf(new Tale().deliver('t1'), short)).toEqual(['message changed'])
  for (const lie of [{ digest: 'another' }, { octets: 111 }]) {
    const tale = new Tale().deliver('t1').login(1).list(1, entry(1)).fetch(1, 1, 't1', lie).close(1)
    expect(rulesOf(tale, ending([one]))).toEqual(['message changed'])
  }
  const sizes = new Tale().deliver('t1').login(1).list(1, [1, '7.1', 111]).close(1)
  expect(rulesOf(sizes, ending([one]))).toEqual(['message changed'])
})

test('an acknowledged delete that is there at the end, or in a later session', () => {
  expect(rulesOf(twoMessages('+OK'), ending([one, two]))).toEqual(['acknowledged delete came back'])
  const tale = twoMessages('+OK').login(2).list(2, entry(1), entry(2)).quit(2, '+OK')
  expect(rulesOf(tale, ending([oneGone, two]))).toEqual(['acknowledged delete came back'])
})

test('a message that was gone in one session and is there in the next, whoever deleted it', () => {
  const tale = twoMessages().login(2).list(2, entry(1, 2)).quit(2, '+OK')
  tale.login(3).list(3, entry(1), entry(2)).quit(3, '+OK')
  expect(rulesOf(tale, ending([oneGone, two]))).toContain('acknowledged delete came back')
})

test('a delete that nobody asked for, or whose QUIT was answered -ERR, or that was dropped', () => {
  const rule = 'deleted without an acknowledged QUIT'
  expect(rulesOf(twoMessages('+OK'), ending([oneGone, stored('t2', 2, trash)]))).toEqual([rule])
  expect(rulesOf(twoMessages(TEMPORARY), ending([oneGone, two]))).toEqual([rule])
  const dropped = new Tale().deliver('t1').login(1).list(1, entry(1)).mark(1, 1).close(1)
  expect(rulesOf(dropped, ending([oneGone]))).toEqual([rule])
  const hidden = twoMessages(TEMPORARY).login(2).list(2, entry(1, 2)).quit(2, '+OK')
  expect(rulesOf(hidden, ending([one, two]))).toContain(rule)
})

test('half of what was marked is gone by a QUIT without an answer', () => {
  const tale = new Tale().deliver('t1').deliver('t2').login(1).list(1, entry(1), entry(2))
  expect(rulesOf(tale.mark(1, 1, 2).quit(1), ending([oneGone, two]))).toEqual(['half a QUIT'])
})

test('an unanswered QUIT that deleted only after the next session had seen its messages', () => {
  const tale = twoMessages().login(2).list(2, entry(1), entry(2)).quit(2, '+OK')
  expect(rulesOf(tale, ending([oneGone, two]))).toEqual(['half a QUIT'])
})

test('two sessions at one time, as their clients saw it, and as they were served', () => {
  const rule = 'two sessions at one time'
  const seen = new Tale().login(1).login(2, '+OK', ADA, 'node 2').quit(2, '+OK').close(1)
  expect(rulesOf(seen, ending([]))).toEqual([rule])
  const served = new Tale().login(1).login(2).quit(2, '+OK').stat(1, 0, 0).quit(1, '+OK')
  expect(rulesOf(served, ending([]))).toEqual([rule])
  const inUse = new Tale().login(1).login(2, '-ERR [IN-USE]').stat(1, 0, 0).quit(1, '+OK')
  expect(rulesOf(inUse, ending([]))).toEqual([])
})

test('a client whose node is stopped may see no end, but must not be served', () => {
  const silenced = (): Tale =>
    new Tale().login(1).window('silenced', 'open', 'node 1').login(2, '+OK', ADA, 'node 2')
  const good = silenced().quit(2, '+OK').window('silenced', 'over', 'node 1').close(1)
  expect(rulesOf(good, ending([]))).toEqual([])
  const served = silenced().stat(1, 0, 0).quit(2, '+OK').window('silenced', 'over', 'node 1')
  expect(rulesOf(served.close(1), ending([]))).toEqual(['two sessions at one time'])
  const another = new Tale().login(1).window('silenced', 'open', 'node 2')
  another.login(2, '+OK', ADA, 'node 2').window('silenced', 'over', 'node 2').close(1)
  expect(rulesOf(another, ending([]))).toEqual(['two sessions at one time'])
})

test('after a loss of all leases: an overlap of a heartbeat is excused, a longer one is not', () => {
  const lost = (seconds: number): Tale => {
    const tale = new Tale().login(1).window('leases-lost', 'open').window('leases-lost', 'over')
    tale.login(2, '+OK', ADA, 'node 2')
    for (let i = 0; i < seconds; i++) tale.stat(1, 0, 0)
    return tale.quit(1, TEMPORARY).quit(2, '+OK')
  }
  expect(rulesOf(lost(4), ending([]))).toEqual([])
  expect(rulesOf(lost(15), ending([]))).toEqual(['two sessions at one time'])
})

test('after a loss of all leases: a silence of the older one does not count', () => {
  const lost = (silent: string): Tale => {
    const tale = new Tale().login(1).window('leases-lost', 'open').window('leases-lost', 'over')
    tale.login(2, '+OK', ADA, 'node 2').window('silenced', 'open', silent)
    for (let i = 0; i < 15; i++) tale.stat(2, 0, 0)
    return tale.window('silenced', 'over', silent).close(1).quit(2, '+OK')
  }
  expect(rulesOf(lost('node 1'), ending([]))).toEqual([])
  expect(rulesOf(lost('node 2'), ending([]))).toEqual(['two sessions at one time'])
})

test('a session that was overtaken deletes: acknowledged, or without an answer', () => {
  const overtaken = (reply?: string): Tale => {
    const tale = new Tale().deliver('t1').login(1).list(1, entry(1)).mark(1, 1)
    tale.window('leases-lost', 'open').window('leases-lost', 'over')
    return tale.login(2, '+OK', ADA, 'node 2').quit(1, reply).quit(2, '+OK')
  }
  expect(rulesOf(overtaken(TEMPORARY), ending([one]))).toEqual([])
  const rule = 'overtaken session deleted'
  expect(rulesOf(overtaken('+OK'), ending([oneGone]))).toEqual([rule])
  expect(rulesOf(overtaken(), ending([oneGone]))).toEqual([rule])
  expect(rulesOf(overtaken(TEMPORARY), ending([oneGone]))).toEqual([rule])
})

test('a unique-id of another message, and a message with another unique-id', () => {
  const rule = 'unique-id reused or changed'
  const reused = twoMessages('+OK').deliver('t3').login(2).list(2, entry(1), entry(2))
  reused.fetch(2, 1, 't3').quit(2, '+OK')
  expect(rulesOf(reused, ending([oneGone, two, stored('t3', 3)]))).toContain(rule)
  const other = twoMessages(TEMPORARY)
    .deliver('t3', [ADA], null)
    .login(2)
    .list(2, entry(1), entry(2))
  expect(rulesOf(other.fetch(2, 1, 't3').quit(2, '+OK'), ending([one, two]))).toContain(rule)
  const changed = twoMessages(TEMPORARY).login(2).list(2, entry(1, 3), entry(2, 4))
  changed.fetch(2, 1, 't1').quit(2, '+OK')
  expect(rulesOf(changed, ending([one, two]))).toContain(rule)
  const within = new Tale().deliver('t1').deliver('t2').login(1).list(1, entry(1), entry(2))
  within.list(1, entry(1, 2)).close(1)
  expect(rulesOf(within, ending([one, two]))).toContain(rule)
})

test('numbers that do not follow the uids', () => {
  const tale = new Tale().deliver('t1').deliver('t2').login(1).list(1, entry(1, 2), entry(2, 1))
  expect(rulesOf(tale.close(1), ending([one, two]))).toEqual(['numbers out of order'])
})

test('STAT that is not what LIST adds up to, and LIST that is not what UIDL names', () => {
  const rule = 'STAT and LIST differ'
  for (const [count, octets] of [
    [2, 110],
    [1, 111],
  ] as const) {
    const tale = new Tale().deliver('t1').login(1).stat(1, count, octets).list(1, entry(1)).close(1)
    expect(rulesOf(tale, ending([one]))).toEqual([rule])
  }
  const tale = new Tale().deliver('t1').login(1)
  tale.tell({ type: 'list', session: 1, sentAt: 0, entries: [entry(1)], mismatch: 'LIST has 1,2' })
  expect(rulesOf(tale.close(1), ending([one]))).toEqual([rule])
})

test('counters that are not what the rows add up to', () => {
  const rule = 'counters differ from rows'
  const tale = new Tale().deliver('t1')
  for (const lie of [{ count: 2 }, { octets: 111 }, { nextUid: 1 }]) {
    const counters = [{ maildrop: ADA, count: 1, octets: 110, nextUid: 2, ...lie }]
    expect(rulesOf(tale, ending([one], { counters }))).toEqual([rule])
  }
  expect(rulesOf(tale, ending([one], { counters: [] }))).toEqual([rule])
})

test('orphan bodies, and what popgres check finds', () => {
  const clean = { beforePurge: 0, afterPurge: 0, trash: 0 }
  for (const lie of [{ beforePurge: 1 }, { afterPurge: 1 }, { trash: 1 }])
    expect(rulesOf(new Tale(), ending([], { orphans: { ...clean, ...lie } }))).toEqual([
      'orphan bodies',
    ])
  expect(rulesOf(new Tale(), ending([], { findings: ['counters of ada'] }))).toEqual([
    'popgres check',
  ])
})

test('messages that nobody sent to that maildrop, that were refused at RCPT, or are there twice', () => {
  const nobody = 'message nobody sent'
  expect(rulesOf(new Tale(), ending([one]))).toEqual([nobody])
  expect(rulesOf(new Tale().deliver('t1', [BEA], 451), ending([one]))).toEqual([nobody])
  const told = new Tale().deliver('t1').login(1).list(1, entry(1)).fetch(1, 1, 't9').close(1)
  expect(rulesOf(told, ending([one]))).toContain(nobody)
  const refused = new Tale().deliver('t1', [ADA], null)
  refused.tell({ type: 'delivery-told', token: 't1', recipient: ADA, stage: 'rcpt', code: 451 })
  expect(rulesOf(refused, ending([one]))).toEqual([nobody])
  const twice = ending([one, stored('t1', 2)])
  expect(rulesOf(new Tale().deliver('t1'), twice)).toContain('message doubled')
})

test("lines of another recipient before one's message, stored or sent", () => {
  const rule = "another recipient's lines"
  const tale = new Tale().deliver('t1', [ADA, BEA])
  const final = ending([
    stored('t1', 1, { names: [BEA] }),
    stored('t1', 1, { maildrop: BEA, names: [BEA] }),
  ])
  expect(rulesOf(tale, final)).toEqual([rule])
  const told = new Tale().deliver('t1').login(1).list(1, entry(1))
  told.fetch(1, 1, 't1', { names: [ADA, BEA] }).close(1)
  expect(rulesOf(told, ending([one]))).toEqual([rule])
})

test('refusals for good: of a login, a listed message, QUIT, a delivery; but not of what another deleted', () => {
  const rule = 'refused for good'
  const badLogin = new Tale().login(1, '-ERR [AUTH] wrong')
  expect(rulesOf(badLogin, ending([]))).toEqual([rule])
  const gone = {
    type: 'refused',
    session: 1,
    sentAt: 0,
    command: 'RETR',
    reply: '-ERR gone',
  } as const
  const listed = (): Tale => new Tale().deliver('t1').login(1).list(1, entry(1))
  expect(rulesOf(listed().tell(gone).close(1), ending([one]))).toEqual([rule])
  expect(rulesOf(listed().quit(1, '-ERR no'), ending([one]))).toEqual([rule])
  const overtaken = listed().window('leases-lost', 'open').window('leases-lost', 'over')
  overtaken.login(2).tell(gone).quit(1, TEMPORARY).quit(2, '+OK')
  expect(rulesOf(overtaken, ending([one]))).toEqual([])
  for (const code of [550, 200])
    expect(rulesOf(new Tale().deliver('t1', [ADA], code), ending([]))).toEqual([rule])
})

test('a maildrop that cannot be opened soon after the faults', () => {
  const late = new Tale().tell({ type: 'recovered', maildrop: ADA, tookMs: 46_000, reply: '+OK' })
  expect(rulesOf(late, ending([]))).toEqual(['not available again'])
  const never = new Tale().tell({ type: 'recovered', maildrop: ADA, tookMs: 1, reply: '-ERR' })
  expect(rulesOf(never, ending([]))).toEqual(['not available again'])
})
