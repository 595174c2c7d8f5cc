/**
 * The import's ledger, read. It is written by the delivering statement only (deliveries.ts), so a
 * row and its message come or fail together.
 */
import type { Database } from '../postgres/database.ts'

/** @param digest SHA-256 of the message with CRLF line ends */
export async function existsImported(
  db: Database,
  domainId: number,
  userId: number,
  digest: Buffer,
  copy: number,
): Promise<boolean> {
  const row = await db.kysely
    .selectFrom('imported')
    .select('copy')
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .where('digest', '=', digest)
    .where('copy', '=', copy)
    .executeTakeFirst()
  return row !== undefined
}
