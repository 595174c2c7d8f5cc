/**
 * Proves that what is stored about a domain's maildrops fits together, and repairs what can be
 * repaired without guessing. Nothing here happens in a healthy database: constraints and the
 * delivering statements keep it so. Lost bytes stay lost: such a finding is reported, never hidden.
 *
 * Each look is one statement, so deliveries meanwhile make no false finding; each repair is one
 * transaction that locks the maildrop first and looks again.
 */
import { type Kysely, sql } from 'kysely'
import { CHUNK_OCTETS } from './bodies.ts'
import type { Database } from './postgres/database.ts'
import type { Tables } from './schema.ts'

type FindingKind =
  | 'no-maildrop' // messages or trash, but no row of counters
  | 'counters' // message_count or octets is not what the messages add up to
  | 'domain-quota' // what is counted for the domain's quota is not what its maildrops add up to
  | 'next-uid' // the next uid has been used
  | 'octets' // a message's octets are not prefix and body
  | 'unique-ids' // an imported unique-id is hidden, or may meet a derived one
  | 'body-incomplete' // a message names a body that was never finished
  | 'body-missing' // a row of the trash names a body that is gone: it cannot be restored
  | 'body-damaged' // a body's chunks are missing or do not add up to its octets

export interface Finding {
  kind: FindingKind
  domainId: number
  userId?: number
  detail: string
  isRepaired: boolean
}

type Transaction = Kysely<Tables>
type Check = (db: Database, domainId: number, isRepair: boolean) => Promise<Finding[]>

/** @param isRepair also repairs; `isRepaired` of each finding says whether it could */
export async function checkMaildrops(
  db: Database,
  domainId: number,
  isRepair: boolean,
): Promise<Finding[]> {
  const findings: Finding[] = []
  // In this order: a repaired body changes octets, repaired octets change the counters.
  for (const check of [checkBodies, checkOctets, checkUniqueIds, checkCounters, checkQuota])
    findings.push(...(await check(db, domainId, isRepair)))
  return findings
}

interface BodyRow {
  user_id: number
  uid: number
  place: string
  body_id: string
  octets: number | null
  wanted_octets: number
  found_octets: number
  is_contiguous: boolean
  is_gone: boolean
}

/**
 * Of every body that a message or trash names: is it there (a key sees to it for messages alone),
 * are its chunks 0 … n, all but the last one full, and do they add up? They end where they would
 * end if nothing were missing or short, or not.
 */
const checkBodies: Check = async (db, domainId, isRepair) => {
  const { rows } = await sql<BodyRow>`
    with named as (
      select user_id, uid, 'message' as place, body_id, octets - octet_length(prefix) as wanted
      from messages where domain_id = ${domainId}
      union all
      select user_id, uid, 'trash', body_id, octets - octet_length(prefix)
      from trash where domain_id = ${domainId}
    ), chunks as (
      select body_id, sum(octet_length(data))::bigint as octets,
        sum(octet_length(data)) = max(seq * ${CHUNK_OCTETS}::bigint + octet_length(data))
          as is_contiguous
      from body_chunks where domain_id = ${domainId} group by body_id
    )
    select n.user_id, n.uid, n.place, n.body_id, b.octets, n.wanted as wanted_octets,
      coalesce(c.octets, 0)::bigint as found_octets,
      coalesce(c.is_contiguous, true) as is_contiguous, b.body_id is null as is_gone
    from named n
      left join bodies b on b.domain_id = ${domainId} and b.body_id = n.body_id
      left join chunks c on c.body_id = n.body_id
    where b.octets is null or b.octets <> coalesce(c.octets, 0)
      or not coalesce(c.is_contiguous, true)
    order by n.user_id, n.uid`.execute(db.kysely)
  const findings: Finding[] = []
  for (const row of rows) {
    const { user_id: userId, body_id: bodyId } = row
    const isWhole = row.is_contiguous && row.found_octets === row.wanted_octets
    const isRepaired = isRepair && row.octets === null && isWhole
    if (isRepaired) await completeBody(db, domainId, bodyId, row.found_octets)
    if (row.is_gone) {
      const detail = `${row.place} ${row.uid}: body ${bodyId} is not there`
      findings.push({ kind: 'body-missing', domainId, userId, detail, isRepaired: false })
      continue
    }
    const kind = row.octets === null ? 'body-incomplete' : 'body-damaged'
    const gap = row.is_contiguous ? '' : ', chunks are missing'
    const detail =
      `${row.place} ${row.uid}: body ${bodyId} has ${row.found_octets} octets ` +
      `of ${row.octets ?? row.wanted_octets}${gap}`
    findings.push({ kind, domainId, userId, detail, isRepaired })
  }
  return findings
}

async function completeBody(
  db: Database,
  domainId: number,
  bodyId: string,
  octets: number,
): Promise<void> {
  await sql`update bodies set octets = ${octets}
    where domain_id = ${domainId} and body_id = ${bodyId} and octets is null`.execute(db.kysely)
}

/** What LIST says must be what RETR sends (RFC 1939 §11). */
const checkOctets: Check = async (db, domainId, isRepair) => {
  const { rows } = await sql<{ user_id: number; uid: number; octets: number; actual: number }>`
    select m.user_id, m.uid, m.octets, octet_length(m.prefix) + b.octets as actual
    from messages m join bodies b on b.domain_id = ${domainId} and b.body_id = m.body_id
    where m.domain_id = ${domainId} and m.octets <> octet_length(m.prefix) + b.octets
    order by m.user_id, m.uid`.execute(db.kysely)
  const findings: Finding[] = []
  for (const { user_id: userId, uid, octets, actual } of rows) {
    if (isRepair)
      await onMaildrop(db, domainId, userId, async (transaction) => {
        await sql`with changed as (
            update messages set octets = ${actual}
            where domain_id = ${domainId} and user_id = ${userId} and uid = ${uid}
              and octets = ${octets}
            returning 1
          )
          update maildrops set octets = octets + ${actual - octets}
          where domain_id = ${domainId} and user_id = ${userId}
            and exists (select from changed)`.execute(transaction)
      })
    const detail = `message ${uid} says ${octets} octets, prefix and body have ${actual}`
    findings.push({ kind: 'octets', domainId, userId, detail, isRepaired: isRepair })
  }
  return findings
}

/** Imported unique-ids must be looked for at all, and never be like a derived one. */
const checkUniqueIds: Check = async (db, domainId, isRepair) => {
  const { rows } = await sql<{ user_id: number; hidden_count: number; derived_count: number }>`
    select m.user_id, count(*) filter (where not d.has_unique_ids) as hidden_count,
      count(*) filter (where starts_with(m.unique_id, d.uid_validity || '.')) as derived_count
    from messages m
      join maildrops d on d.domain_id = ${domainId} and d.user_id = m.user_id
    where m.domain_id = ${domainId} and m.unique_id is not null
      and (not d.has_unique_ids or starts_with(m.unique_id, d.uid_validity || '.'))
    group by m.user_id order by m.user_id`.execute(db.kysely)
  const findings: Finding[] = []
  for (const { user_id: userId, hidden_count: hidden, derived_count: derived } of rows) {
    if (isRepair)
      await onMaildrop(db, domainId, userId, async (transaction) => {
        await sql`update messages m set unique_id = null from maildrops d
          where m.domain_id = ${domainId} and m.user_id = ${userId}
            and d.domain_id = ${domainId} and d.user_id = ${userId}
            and starts_with(m.unique_id, d.uid_validity || '.')`.execute(transaction)
        await sql`update maildrops set has_unique_ids = true
          where domain_id = ${domainId} and user_id = ${userId}`.execute(transaction)
      })
    const detail = `${hidden} imported unique-ids are hidden, ${derived} look like derived ones`
    findings.push({ kind: 'unique-ids', domainId, userId, detail, isRepaired: isRepair })
  }
  return findings
}

interface CountersRow {
  user_id: number
  message_count: number | null
  octets: number | null
  next_uid: number | null
  actual_count: number
  actual_octets: number
  actual_max_uid: number
}

/** STAT's row against the messages themselves. */
const checkCounters: Check = async (db, domainId, isRepair) => {
  const { rows } = await sql<CountersRow>`
    with stored as (
      select user_id, count(*)::integer as count, sum(octets)::bigint as octets, max(uid) as max_uid
      from messages where domain_id = ${domainId} group by user_id
    ), trashed as (
      select user_id, max(uid) as max_uid from trash where domain_id = ${domainId} group by user_id
    ), compared as (
      select u.user_id, d.message_count, d.octets, d.next_uid, coalesce(s.count, 0) as actual_count,
        coalesce(s.octets, 0)::bigint as actual_octets,
        coalesce(greatest(s.max_uid, t.max_uid), 0) as actual_max_uid
      from users u
        left join maildrops d on d.domain_id = ${domainId} and d.user_id = u.user_id
        left join stored s on s.user_id = u.user_id
        left join trashed t on t.user_id = u.user_id
      where u.domain_id = ${domainId}
    )
    select * from compared
    where (next_uid is null and actual_max_uid > 0) or message_count <> actual_count
      or octets <> actual_octets or next_uid <= actual_max_uid
    order by user_id`.execute(db.kysely)
  const findings: Finding[] = []
  for (const row of rows) {
    if (isRepair) await recount(db, domainId, row.user_id)
    for (const [kind, detail] of countersFindings(row))
      findings.push({ kind, domainId, userId: row.user_id, detail, isRepaired: isRepair })
  }
  return findings
}

function countersFindings(row: CountersRow): [FindingKind, string][] {
  const { message_count: count, octets, next_uid: nextUid } = row
  const { actual_count: actualCount, actual_octets: actualOctets, actual_max_uid: maxUid } = row
  const has = `the messages are ${actualCount} with ${actualOctets} octets`
  if (nextUid === null) return [['no-maildrop', `there are no counters; ${has}`]]
  const findings: [FindingKind, string][] = []
  if (count !== actualCount || octets !== actualOctets)
    findings.push(['counters', `the counters say ${count} with ${octets} octets; ${has}`])
  if (nextUid <= maxUid)
    findings.push(['next-uid', `the next uid is ${nextUid}, but ${maxUid} has been used`])
  return findings
}

async function recount(db: Database, domainId: number, userId: number): Promise<void> {
  await onMaildrop(db, domainId, userId, async (transaction) => {
    await sql`update maildrops d
      set message_count = s.count, octets = s.octets,
        next_uid = greatest(d.next_uid, s.max_uid + 1),
        has_unique_ids = d.has_unique_ids or s.has_unique_ids
      from (
        select count(*)::integer as count, coalesce(sum(octets), 0)::bigint as octets,
          coalesce(bool_or(unique_id is not null), false) as has_unique_ids,
          greatest(max(uid), (select max(uid) from trash
            where domain_id = ${domainId} and user_id = ${userId}), 0) as max_uid
        from messages where domain_id = ${domainId} and user_id = ${userId}
      ) s
      where d.domain_id = ${domainId} and d.user_id = ${userId}`.execute(transaction)
  })
}

/** Of a domain that has a quota. A node of before there were any delivers without counting here. */
const checkQuota: Check = async (db, domainId, isRepair) => {
  const { rows } = await sql<{ detail: string }>`
    select format('the domain is counted as %s messages with %s octets; ' ||
      'its maildrops have %s with %s', q.message_count, q.octets, m.messages, m.octets) as detail
    from domain_quotas q cross join (
      select coalesce(sum(message_count), 0) as messages, coalesce(sum(octets), 0) as octets
      from maildrops where domain_id = ${domainId}
    ) m
    where q.domain_id = ${domainId} and (q.message_count, q.octets) <> (m.messages, m.octets)
  `.execute(db.kysely)
  if (isRepair && rows.length > 0)
    await sql`select set_domain_quota(d.name, q.quota_octets, q.quota_messages)
      from domains d join domain_quotas q on q.domain_id = d.domain_id
      where d.domain_id = ${domainId}`.execute(db.kysely)
  return rows.map(({ detail }) => ({
    kind: 'domain-quota',
    domainId,
    detail,
    isRepaired: isRepair,
  }))
}

/**
 * Ends the user's session (its snapshot would be of before the repair), locks the maildrop and
 * works on it. In the order of QUIT and delivery: lease, maildrop, messages.
 */
async function onMaildrop(
  db: Database,
  domainId: number,
  userId: number,
  work: (transaction: Transaction) => Promise<void>,
): Promise<void> {
  await db.kysely.transaction().execute(async (transaction) => {
    await sql`delete from sessions
      where domain_id = ${domainId} and user_id = ${userId}`.execute(transaction)
    await sql`insert into maildrops (domain_id, user_id)
      select domain_id, user_id from users
      where domain_id = ${domainId} and user_id = ${userId}
      on conflict (domain_id, user_id) do nothing`.execute(transaction)
    await sql`select from maildrops
      where domain_id = ${domainId} and user_id = ${userId} for no key update`.execute(transaction)
    await work(transaction)
  })
}
