/**
 * The import's ledger, read. It is written by the delivering statement only (deliveries.ts), so a
 * row and its message come or fail together.
 */
import { randomUUID } from 'node:crypto'
import { type Kysely, sql } from 'kysely'
import type { Database } from '../../postgres/database.ts'
import type { Tables } from '../../schema.ts'

/**
 * Which copies of a message have come in, whatever became of them since.
 * @param digest SHA-256 of the message with CRLF line ends
 */
export async function selectImportedCopies(
  db: Database,
  domainId: number,
  userId: number,
  digest: Buffer,
): Promise<number[]> {
  const rows = await db.kysely
    .selectFrom('imported')
    .select('copy')
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .where('digest', '=', digest)
    .execute()
  return rows.map((row) => row.copy)
}

/**
 * Whether a client of this user has fetched or deleted a message here, or is at it: what it knows
 * by its unique-id must keep that. A session that did neither knows nothing by it.
 */
export async function selectIsServed(
  db: Database,
  domainId: number,
  userId: number,
): Promise<boolean> {
  const { rows } = await sql<{ open: boolean }>`
    select exists (
      select from sessions where domain_id = ${domainId} and user_id = ${userId}
    ) as open`.execute(db.kysely)
  return rows[0]?.open !== false || (await wasServed(db.kysely, domainId, userId))
}

async function wasServed(kysely: Kysely<Tables>, domainId: number, userId: number) {
  const { rows } = await sql<{ served: boolean }>`
    select exists (
      select from session_log where domain_id = ${domainId} and user_id = ${userId}
        and client is distinct from 'sql'
    ) as served`.execute(kysely)
  return rows[0]?.served !== false
}

/** A message that came in without a unique-id, and which the old server has one for by now. */
export interface Naming {
  digest: Buffer
  octets: number
  /** What it is in the ledger, and what it is to be. */
  fromCopy: number
  copy: number
  uniqueId: string
}

const OPERATOR_NODE = '00000000-0000-0000-0000-000000000000'

/**
 * Holds the lease meanwhile: no session sees a unique-id change.
 * @returns false: a client may know it already, nothing was changed
 */
export async function nameImported(
  db: Database,
  domainId: number,
  userId: number,
  naming: Naming,
): Promise<boolean> {
  const sessionId = randomUUID()
  return await db.kysely.transaction().execute(async (trx) => {
    const lease = await sql`
      insert into sessions (domain_id, user_id, session_id, node_id, client, since)
      values (${domainId}, ${userId}, ${sessionId}::uuid, ${OPERATOR_NODE}::uuid, 'sql', now())
      on conflict do nothing returning session_id`.execute(trx)
    if (lease.rows.length === 0) return false
    const isServed = await wasServed(trx, domainId, userId)
    if (!isServed) await nameRows(trx, domainId, userId, naming)
    await sql`
      delete from sessions where domain_id = ${domainId} and user_id = ${userId}
        and session_id = ${sessionId}::uuid`.execute(trx)
    return !isServed
  })
}

async function nameRows(
  trx: Kysely<Tables>,
  domainId: number,
  userId: number,
  { digest, octets, fromCopy, copy, uniqueId }: Naming,
): Promise<void> {
  // In the order of a delivery, so the two never deadlock.
  await sql`
      update maildrops set has_unique_ids = true
      where domain_id = ${domainId} and user_id = ${userId}`.execute(trx)
  await sql`
      update messages m set unique_id = ${uniqueId}
      where m.domain_id = ${domainId} and m.user_id = ${userId} and m.uid = (
        select o.uid from messages o
        where o.domain_id = ${domainId} and o.user_id = ${userId} and o.unique_id is null
          and o.octets = ${octets} and o.prefix = '' and ${digest} = (
            select sha256(string_agg(c.data, '' order by c.seq)) from body_chunks c
            where c.domain_id = ${domainId} and c.body_id = o.body_id)
        order by o.uid limit 1)`.execute(trx)
  await sql`
      update imported set copy = ${copy}
      where domain_id = ${domainId} and user_id = ${userId} and digest = ${digest}
        and copy = ${fromCopy}`.execute(trx)
}

/** `taken`: by a message or one in the trash; `ours`: it may meet one that is derived. */
export type UniqueIdUse = 'free' | 'taken' | 'ours'

export async function selectUniqueIdUse(
  db: Database,
  domainId: number,
  userId: number,
  uniqueId: string,
): Promise<UniqueIdUse> {
  const { rows } = await sql<{ taken: boolean; ours: boolean | null }>`
    select exists (
        select from messages m where m.domain_id = ${domainId} and m.user_id = ${userId}
          and m.unique_id = ${uniqueId}
      ) or exists (
        select from trash t where t.domain_id = ${domainId} and t.user_id = ${userId}
          and t.unique_id = ${uniqueId}
      ) as taken, (
        select starts_with(${uniqueId}, d.uid_validity || '.') from maildrops d
        where d.domain_id = ${domainId} and d.user_id = ${userId}
      ) as ours`.execute(db.kysely)
  const [row] = rows
  if (row?.taken) return 'taken'
  return row?.ours ? 'ours' : 'free'
}
