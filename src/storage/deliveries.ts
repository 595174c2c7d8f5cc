/**
 * Where a message comes to exist: body first, row last, and for a message of one stretch both in
 * one statement. It locks the maildrops in user_id order (deliveries to the same recipients in
 * other orders would deadlock), takes their next uids, checks quotas (the users' and, last, that
 * of the domain) and counts; a recipient who is over quota keeps nothing back from the others.
 * Several messages of a domain may share a statement and so its commit;
 * mail/delivery/delivery-queue.ts says which.
 */
import { assert } from '../base/assert.ts'
import { Failure, isFailure } from '../base/failure.ts'
import { newestSql } from './accounts.ts'
import { chunksOf, STRETCH_OCTETS } from './bodies.ts'
import { MAKE_MAILDROPS } from './leases.ts'
import type { Database, Statement } from './postgres/database.ts'
import {
  decodeBoolean,
  decodeInt4,
  decodeInt8,
  encodeNumbers,
  encodeOctets,
  present,
} from './postgres/decode.ts'
import { ownerSql } from './postgres/holders.ts'
import type { RawRow } from './postgres/raw-connection.ts'
import { constraintOf, sqlStateOf } from './postgres/sqlstate.ts'

export interface DeliveryRecipient {
  userId: number
  /** what this recipient's copy begins with: Return-Path, Delivered-To, Received */
  prefix: Buffer
}

/** Of a message that comes by import: with its row in the ledger `imported`. */
export interface ImportedMessage {
  /** SHA-256 of the message with CRLF line ends */
  digest: Buffer
  /** 1 for the first message with that digest in the source, 2 for the second … */
  copy: number
  receivedAt: Date | undefined
  /**
   * the old server's; not kept if it is no unique-id, taken, or looks like a derived one of ours
   */
  uniqueId: string | undefined
}

export interface Delivery {
  domainId: number
  bodyId: string
  bodyOctets: number
  /** the whole body if it fits one stretch; undefined: insertBody and insertStretch came before */
  content: Buffer | undefined
  recipients: readonly DeliveryRecipient[]
  imported?: ImportedMessage
}

export type DeliveryStatus = 'delivered' | 'over-quota' | 'unknown-user' | 'already-imported'

export interface DeliveryResult {
  status: DeliveryStatus
  /** of the new message, if delivered */
  uid: number | undefined
  /** over quota: it is the domain's, the user's own has room */
  isDomainFull?: boolean
}

// What each recipient's copy comes to is known under the locks, before anything is written: `place`
// is its place among those of the same maildrop, `sum_octets` what they take up to it. In a
// subselect the quota costs one look-up each, whatever size the domain has; users are asked for
// again only if somebody has no maildrop. The rows are locked one by one, in the order of `r`; the
// domain's own row, which few have, when `ready` has seen them all locked: where there is none
// nobody waits, and nothing is summed for it.
const LOCKED = `with locked as (
    select r.user_id, m.octets, m.message_count, m.next_uid, m.uid_validity, u.quota_octets,
      u.quota_messages
    from (
      select distinct user_id from unnest($2::bigint[]) as r (user_id) order by user_id
    ) r left join lateral (
      select m.octets, m.message_count, m.next_uid, m.uid_validity
      from maildrops m
      where m.domain_id = $1 and ${newestSql('m.user_id', 'r.user_id')}
      for no key update
    ) m on true left join lateral (
      select u.quota_octets, u.quota_messages
      from users u where u.domain_id = $1 and u.user_id = r.user_id offset 0
    ) u on true
  ), ready as (
    select not exists (
      select from locked l
      where l.next_uid is null and l.user_id = (
        select u.user_id from users u where u.domain_id = $1 and u.user_id = l.user_id)
    ) as is_ready
  ), room as (
    select q.quota_octets - q.octets as octets, q.quota_messages - q.message_count as messages
    from domain_quotas q where q.domain_id = $1 and (select is_ready from ready)
    for no key update
  ), sized as (
    select r.*, l.next_uid is not null as is_known, l.next_uid, l.uid_validity,
      row_number() over earlier as place, sum(r.octets) over earlier as sum_octets,
      l.next_uid is not null and (select is_ready from ready)
        and (l.quota_octets is null or l.octets + sum(r.octets) over earlier <= l.quota_octets)
        and (l.quota_messages is null
          or l.message_count + row_number() over earlier <= l.quota_messages) as fits_user
    from (
      select r.nth, r.user_id, r.body_id, r.prefix, octet_length(r.prefix) + r.body_octets as octets
      from unnest($2::bigint[], $3::bytea[], $4::uuid[], $5::integer[])
        with ordinality as r (user_id, prefix, body_id, body_octets, nth)
    ) r join locked l on l.user_id = r.user_id
    window earlier as (partition by r.user_id order by r.nth)
  ), beyond as (
    select s.nth from room cross join lateral (
      select s.nth, sum(s.octets) over earlier as octets, row_number() over earlier as messages
      from sized s where s.fits_user window earlier as (order by s.nth)
    ) s
    where s.octets > room.octets or s.messages > room.messages
  ), recipients as (
    select s.*, s.fits_user and case when exists (select from room)
      then s.nth not in (select nth from beyond) else true end as fits
    from sized s
  )`

const TAKEN = `, taken as (
    update maildrops m
    set next_uid = m.next_uid + last.place, message_count = m.message_count + last.place,
      octets = m.octets + last.sum_octets
    from (
      select user_id, max(place)::integer as place, max(sum_octets) as sum_octets
      from recipients where fits group by user_id
    ) last
    where m.domain_id = $1 and m.user_id = last.user_id
  ), placed as (
    select user_id, (next_uid + place - 1)::integer as uid, octets, body_id, prefix,
      null::text as unique_id, now() as received_at
    from recipients where fits
  )`

// Of those who are in the arm: whoever it is, the domain is the same.
const anyOwner = (arm: string): string => ownerSql('$1', `(select min(user_id) from ${arm})`)

// The ledger decides: a row that was there before means that this copy came in once, whatever
// became of it. The unique-id is kept only where it can never meet another one of this maildrop.
const TAKEN_IMPORTED = `, fresh as (
    insert into imported (domain_id, user_id, digest, copy)
    select o.domain_id, r.user_id, $7::bytea, $8::integer
    from recipients r cross join ${anyOwner('recipients where fits')} where r.fits
    on conflict do nothing
    returning user_id
  ), named as (
    select f.user_id, f.octets, f.prefix, f.body_id, case
      when $10::text ~ '^[!-.0-~]{1,70}$' and not starts_with($10::text, f.uid_validity || '.')
        and not exists (select from messages o
          where o.domain_id = $1 and o.user_id = f.user_id and o.unique_id = $10::text)
        and not exists (select from trash o
          where o.domain_id = $1 and o.user_id = f.user_id and o.unique_id = $10::text)
      then $10::text end as unique_id, coalesce($9::timestamptz, now()) as received_at
    from recipients f join fresh on fresh.user_id = f.user_id
  ), placed as (
    update maildrops m
    set next_uid = m.next_uid + 1, message_count = m.message_count + 1,
      octets = m.octets + f.octets,
      has_unique_ids = m.has_unique_ids or f.unique_id is not null
    from named f
    where m.domain_id = $1 and m.user_id = f.user_id
    returning m.user_id, m.next_uid - 1 as uid, f.octets, f.body_id, f.prefix, f.unique_id,
      f.received_at
  )`

// Nothing is written if nobody takes the message.
const BODY_WITH_CONTENT = `, written as (
    select c.body_id, c.content
    from unnest($4::uuid[], $6::bytea[]) as c (body_id, content)
    where c.content is not null and c.body_id = any (array(select p.body_id from placed p))
  ), body as (
    insert into bodies (domain_id, body_id, octets)
    select o.domain_id, w.body_id, octet_length(w.content)
    from written w cross join ${anyOwner('placed')}
  ), chunk as (
    insert into body_chunks (domain_id, body_id, seq, data)
    select o.domain_id, w.body_id, c.seq, c.data
    from written w cross join ${anyOwner('placed')}
      cross join lateral ${chunksOf('w.content')} c
  )`

const BODY_COMPLETE = `, body as (
    update bodies b set octets = r.body_octets
    from unnest($4::uuid[], $5::integer[], $6::bytea[]) as r (body_id, body_octets, content)
    where b.domain_id = $1 and b.body_id = r.body_id and r.content is null
      and r.body_id in (select p.body_id from placed p)
  )`

const STORED = `, charged as (
    update domain_quotas q
    set octets = q.octets + p.octets, message_count = q.message_count + p.messages
    from (
      select coalesce(sum(octets), 0) as octets, count(*) as messages from placed
    ) p
    where q.domain_id = $1 and exists (select from room)
  ), stored as (
    insert into messages (domain_id, user_id, uid, octets, body_id, prefix, unique_id, received_at)
    select o.domain_id, p.user_id, p.uid, p.octets, p.body_id, p.prefix, p.unique_id,
      p.received_at
    from placed p cross join ${anyOwner('placed')}
  )`

// Uid 0, which no message has: the user has room, the domain has none.
const OUTCOMES = `
  select r.nth, case when r.fits then (r.next_uid + r.place - 1)::integer when r.fits_user then 0
    end, r.is_known,
    (select is_ready from ready)
  from recipients r`

const IMPORT_OUTCOMES = `
  select r.nth, p.uid, r.is_known, (select is_ready from ready), r.fits or exists (
    select from imported i where i.domain_id = $1 and i.user_id = r.user_id
      and i.digest = $7::bytea and i.copy = $8::integer)
  from recipients r left join placed p on p.user_id = r.user_id and p.body_id = r.body_id`

function delivering(name: string, body: string): Statement {
  return { name, text: `${LOCKED}${TAKEN}${body}${STORED}${OUTCOMES}` }
}

function importing(name: string, body: string): Statement {
  return { name, text: `${LOCKED}${TAKEN_IMPORTED}${body}${STORED}${IMPORT_OUTCOMES}` }
}

export const DELIVER: Statement = delivering('deliver', BODY_WITH_CONTENT)
export const DELIVER_CHUNKED: Statement = delivering('deliver-chunked', BODY_COMPLETE)
export const IMPORT: Statement = importing('import', BODY_WITH_CONTENT)
export const IMPORT_CHUNKED: Statement = importing('import-chunked', BODY_COMPLETE)

/** How a statement reaches PostgreSQL. */
type Run = (statement: Statement, values: readonly unknown[]) => Promise<RawRow[]>

/**
 * Makes the message exist in each recipient's maildrop that has room for it, or in none if it
 * throws.
 * @returns the outcome by userId, of every recipient
 * @throws {Failure} STORAGE_CONFLICT if the body was swept or the user removed meanwhile: nothing
 *   was delivered, the sender may try again; STORAGE_IN_DOUBT if nobody knows
 */
export async function deliver(
  db: Database,
  delivery: Delivery,
): Promise<Map<number, DeliveryResult>> {
  const run: Run = (statement, values) => db.bulk(statement, values)
  const [results] = await deliverAll([delivery], run)
  assert(results !== undefined, 'one delivery has one outcome')
  return results
}

/**
 * Several small deliveries of one domain in one statement and with one commit: all of them or, if
 * it throws, none. Where a recipient has no room for one, later ones of the group find none either.
 * @param group with content and not imported
 * @returns the outcomes by userId, in the order of `group`
 * @throws {Failure} as deliver(), STORAGE_CONFLICT also if a lock was waited for longer than 50 ms
 */
export async function deliverGroup(
  db: Database,
  group: readonly Delivery[],
): Promise<Map<number, DeliveryResult>[]> {
  return await deliverAll(group, (statement, values) => db.hot(statement, values, 'deliveries'))
}

async function deliverAll(
  group: readonly Delivery[],
  run: Run,
): Promise<Map<number, DeliveryResult>[]> {
  for (const delivery of group) checkDelivery(delivery)
  const first = await attempt(group, run)
  if (isReady(first)) return toResults(group, first)
  // INSERT INTO users makes no maildrop row. All together or nobody: had the others been served
  // before, a failure now would bring them the message twice.
  const userIds = new Set(group.flatMap(({ recipients }) => recipients.map(({ userId }) => userId)))
  await run(MAKE_MAILDROPS, [group[0]?.domainId, encodeNumbers(userIds)])
  const second = await attempt(group, run)
  if (!isReady(second)) throw new Failure('STORAGE_CONFLICT', 'a maildrop was removed meanwhile')
  return toResults(group, second)
}

function checkDelivery({ content, bodyOctets, recipients }: Delivery): void {
  assert(recipients.length > 0, 'a delivery has recipients')
  const userIds = new Set(recipients.map((recipient) => recipient.userId))
  assert(userIds.size === recipients.length, 'each recipient is named once')
  if (content === undefined) return
  assert(content.length === bodyOctets, 'bodyOctets is the length of content')
  assert(bodyOctets <= STRETCH_OCTETS, 'content is one stretch')
}

async function attempt(group: readonly Delivery[], run: Run): Promise<RawRow[]> {
  const [first] = group
  assert(first !== undefined, 'a group is not empty')
  const statement = statementOf(first)
  const values = encodeGroup(first, group)
  try {
    return await run(statement, values).catch(async (error) => {
      // Another import named a message alike while we waited for the maildrop: visible by now.
      if (constraintOf(error) === 'messages_unique_id_key') return await run(statement, values)
      throw error
    })
  } catch (error) {
    throw withoutReference(error)
  }
}

/** One element a recipient in each array; the content stands with its first recipient only. */
function encodeGroup(
  { domainId, imported }: Delivery,
  group: readonly Delivery[],
): readonly unknown[] {
  const userIds: number[] = []
  const prefixes: Buffer[] = []
  const bodyIds: string[] = []
  const bodyOctets: number[] = []
  const contents: (Buffer | null)[] = []
  for (const delivery of group)
    for (const [at, { userId, prefix }] of delivery.recipients.entries()) {
      userIds.push(userId)
      prefixes.push(prefix)
      bodyIds.push(delivery.bodyId)
      bodyOctets.push(delivery.bodyOctets)
      contents.push(at === 0 ? (delivery.content ?? null) : null)
    }
  const values = [
    domainId,
    encodeNumbers(userIds),
    encodeOctets(prefixes),
    `{${bodyIds.join(',')}}`,
    encodeNumbers(bodyOctets),
    encodeOctets(contents),
  ]
  if (imported === undefined) return values
  const receivedAt = imported.receivedAt?.toISOString() ?? null
  return [...values, imported.digest, imported.copy, receivedAt, imported.uniqueId ?? null]
}

/** False: a user among the recipients has no maildrop row yet, and nothing was delivered. */
function isReady(rows: readonly RawRow[]): boolean {
  return rows.every((row) => decodeBoolean(present(row, 3)))
}

function toResults(
  group: readonly Delivery[],
  rows: readonly RawRow[],
): Map<number, DeliveryResult>[] {
  const byPlace = new Map(rows.map((row) => [decodeInt8(present(row, 0)), row] as const))
  let place = 0
  const nextResult = (): DeliveryResult => {
    const row = byPlace.get(++place)
    assert(row !== undefined, 'each recipient has an outcome')
    return decodeResult(row)
  }
  return group.map(
    ({ recipients }) => new Map(recipients.map(({ userId }) => [userId, nextResult()] as const)),
  )
}

function statementOf({ content, imported }: Delivery): Statement {
  if (imported === undefined) return content === undefined ? DELIVER_CHUNKED : DELIVER
  return content === undefined ? IMPORT_CHUNKED : IMPORT
}

function decodeResult(row: RawRow): DeliveryResult {
  const [, placed, hasMaildrop, , isKnownImport] = row
  const uid = placed && decodeInt4(placed)
  if (uid === 0) return { status: 'over-quota', uid: undefined, isDomainFull: true }
  if (uid) return { status: 'delivered', uid }
  if (!(hasMaildrop && decodeBoolean(hasMaildrop)))
    return { status: 'unknown-user', uid: undefined }
  const isAlready = isKnownImport ? decodeBoolean(isKnownImport) : false
  return { status: isAlready ? 'already-imported' : 'over-quota', uid: undefined }
}

/** foreign_key_violation: what the rows refer to (body, user, domain) was deleted meanwhile. */
function withoutReference(error: unknown): unknown {
  if (!isFailure(error, 'STORAGE_REFUSED') || sqlStateOf(error) !== '23503') return error
  return new Failure('STORAGE_CONFLICT', `removed meanwhile: ${error.message}`, error.cause)
}
