/** The history put in order: what was delivered, and what each session was told. */
import type { HistoryEvent, ListEntry } from '../history.ts'

type Of<Type extends HistoryEvent['type']> = Extract<HistoryEvent, { type: Type }>

/** A listing, and what the session had marked then: that is not in it. */
export interface Listing {
  sentAt: number
  at: number
  entries: readonly ListEntry[]
  uniqueIds: ReadonlySet<string>
  markedIds: ReadonlySet<string>
  mismatch: string | undefined
}

export interface SessionRecord {
  session: number
  maildrop: string
  node: string
  /** PASS was sent. */
  loginAt: number
  /** +OK was read: from here on the client sees itself in TRANSACTION. */
  openAt: number
  listings: Listing[]
  stats: { at: number; count: number; octets: number; marked: ReadonlySet<number> }[]
  messages: Of<'message'>[]
  /** Of what LIST and UIDL have said until the end. */
  entries: Map<number, ListEntry>
  /** Unique-ids of what is marked now, at the end: when QUIT was sent. */
  marked: Set<number>
  /** When the last command was sent that was answered as in TRANSACTION. */
  servedUntil: number
  quitAt: number | undefined
  quitTold: { at: number; reply: string } | undefined
  /** QUIT was sent, or the connection ended: the client sees itself in TRANSACTION no longer. */
  endAt: number
  /** It did not always read: its end may have come earlier than it noticed. */
  isDeaf: boolean
}

export interface Delivery {
  token: string
  recipients: readonly string[]
  digest: string
  octets: number
  /** Recipient → when 250 after DATA was read. */
  acknowledged: Map<string, number>
  /** Recipients that were refused before DATA. */
  refused: Set<string>
}

export interface Span {
  kind: 'leases-lost' | 'silenced'
  node: string | undefined
  from: number
  /** Infinity: it was never closed. */
  to: number
}

export interface Records {
  deliveries: Map<string, Delivery>
  /** Of those whose login was answered +OK, by maildrop and in the order of that. */
  sessions: Map<string, SessionRecord[]>
  spans: Span[]
}

export function readRecords(events: readonly HistoryEvent[]): Records {
  return {
    deliveries: readDeliveries(events),
    sessions: readSessions(events),
    spans: readSpans(events),
  }
}

function readDeliveries(events: readonly HistoryEvent[]): Map<string, Delivery> {
  const deliveries = new Map<string, Delivery>()
  for (const event of events) {
    if (event.type === 'delivery') {
      const { token, recipients, digest, octets } = event
      const told = { acknowledged: new Map<string, number>(), refused: new Set<string>() }
      deliveries.set(token, { token, recipients, digest, octets, ...told })
    } else if (event.type === 'delivery-told') {
      const delivery = deliveries.get(event.token)
      const { stage, code, recipient, at } = event
      if (stage === 'rcpt' && code !== 250) delivery?.refused.add(recipient)
      if (stage === 'data' && code === 250) delivery?.acknowledged.set(recipient, at)
    }
  }
  return deliveries
}

function readSessions(events: readonly HistoryEvent[]): Map<string, SessionRecord[]> {
  const logins = new Map<number, Of<'login'>>()
  const open = new Map<number, SessionRecord>()
  for (const event of events) {
    if (event.type === 'login') logins.set(event.session, event)
    else if (event.type === 'login-told') {
      const login = logins.get(event.session)
      if (login !== undefined && event.reply.startsWith('+OK'))
        open.set(event.session, begin(login, event.at))
    } else if ('session' in event) {
      const record = open.get(event.session)
      if (record !== undefined) follow(record, event)
    }
  }
  const sessions = new Map<string, SessionRecord[]>()
  for (const record of open.values())
    sessions.set(record.maildrop, [...(sessions.get(record.maildrop) ?? []), record])
  for (const list of sessions.values()) list.sort((one, other) => one.openAt - other.openAt)
  return sessions
}

function begin({ session, maildrop, node, at }: Of<'login'>, openAt: number): SessionRecord {
  return {
    session,
    maildrop,
    node,
    loginAt: at,
    openAt,
    listings: [],
    stats: [],
    messages: [],
    entries: new Map(),
    marked: new Set(),
    servedUntil: Number.NEGATIVE_INFINITY,
    quitAt: undefined,
    quitTold: undefined,
    endAt: Number.POSITIVE_INFINITY,
    isDeaf: false,
  }
}

function follow(record: SessionRecord, event: HistoryEvent): void {
  switch (event.type) {
    case 'list': {
      const { sentAt, at, entries, mismatch } = event
      for (const entry of entries)
        if (!record.entries.has(entry[0])) record.entries.set(entry[0], entry)
      const uniqueIds = new Set(entries.map(([, uniqueId]) => uniqueId))
      const markedIds = uniqueIdsOf(record, record.marked)
      record.listings.push({ sentAt, at, entries, uniqueIds, markedIds, mismatch })
      break
    }
    case 'stat': {
      const { at, count, octets } = event
      record.stats.push({ at, count, octets, marked: new Set(record.marked) })
      break
    }
    case 'message':
      record.messages.push(event)
      break
    case 'mark':
      record.marked.add(event.number)
      break
    case 'unmark':
      record.marked.clear()
      break
    case 'refused':
      if (event.number !== undefined) record.marked.delete(event.number)
      break
    case 'deaf':
      record.isDeaf = true
      break
    case 'quit':
      record.quitAt = event.at
      break
    case 'quit-told':
      record.quitTold = { at: event.at, reply: event.reply }
      break
  }
  // The answers of a pipelined DELE come after QUIT was sent, but are of TRANSACTION.
  if (event.type !== 'refused' && 'sentAt' in event)
    record.servedUntil = Math.max(record.servedUntil, event.sentAt)
  if (event.type === 'quit' || event.type === 'closed')
    record.endAt = Math.min(record.endAt, event.at)
}

/** What the numbers of a session stand for. */
export function uniqueIdsOf(record: SessionRecord, numbers: Iterable<number>): Set<string> {
  const uniqueIds = new Set<string>()
  for (const number of numbers) {
    const entry = record.entries.get(number)
    if (entry !== undefined) uniqueIds.add(entry[1])
  }
  return uniqueIds
}

function readSpans(events: readonly HistoryEvent[]): Span[] {
  const spans = new Map<number, Span>()
  for (const event of events) {
    if (event.type !== 'window') continue
    const { id, kind, node, at } = event
    const span = spans.get(id)
    if (event.phase === 'open')
      spans.set(id, { kind, node, from: at, to: Number.POSITIVE_INFINITY })
    else if (span !== undefined) span.to = at
  }
  return [...spans.values()]
}
