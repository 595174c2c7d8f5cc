/**
 * Users whose password hash is not of today's kind, for the report of who has not logged in since a
 * migration. One query a domain, through Kysely.
 */
import { sql } from 'kysely'
import type { Database } from '../postgres/database.ts'

/** How a hash begins: a scheme in braces, and what is up to the second dollar. */
export const hashHead = sql<
  string | null
>`substring(password_hash from '^(?:\\{[^}]*\\})?(?:\\$[^$]*\\$)?')`

export interface OldHashRow {
  localPart: string
  /** Enough of the hash to tell its scheme. */
  head: string
}

/**
 * @param currentStart how a hash of today begins
 * @returns those with a hash that begins otherwise, in the order of their names
 */
export async function selectOldHashes(
  db: Database,
  domainId: number,
  currentStart: string,
): Promise<OldHashRow[]> {
  const rows = await db.kysely
    .selectFrom('users')
    .select(['local_part', hashHead.as('head')])
    .where('domain_id', '=', domainId)
    .where(sql<boolean>`not starts_with(password_hash, ${currentStart})`)
    .orderBy(sql`lower(local_part)`)
    .execute()
  return rows.map((row) => ({ localPart: row.local_part, head: row.head ?? '' }))
}
