/**
 * The import's ledger, read. It is written by the delivering statement only (deliveries.ts), so a
 * row and its message come or fail together.
 */
import { sql } from 'kysely'
import type { Database } from '../../postgres/database.ts'

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
