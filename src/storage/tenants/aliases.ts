/**
 * Aliases and domains that stand for others, for those who manage them. What may not be is refused
 * by the functions of migrations/0012_addresses.sql, for the command line and plain SQL alike;
 * whom an address names at RCPT is in recipients.ts.
 */
import { sql } from 'kysely'
import type { Database } from '../postgres/database.ts'

/** One target of an alias. */
export interface AliasRow {
  /** in lower case; begins with @ for a catch-all */
  address: string
  /** the address of a user */
  target: string
  /** there is a user of that name, who comes before */
  isHidden: boolean
}

/** All of them or, if it throws, none. */
export async function insertAlias(
  db: Database,
  address: string,
  targets: readonly string[],
): Promise<void> {
  await sql`select add_alias(${address}, target)
    from unnest(${targets}::text[]) target`.execute(db.kysely)
}

/** @param targets undefined: the whole alias. @returns how many targets went */
export async function deleteAlias(
  db: Database,
  address: string,
  targets: readonly string[] | undefined,
): Promise<number> {
  const { rows } = await sql<{ gone: number }>`
    select coalesce(sum(remove_alias(${address}, target)), 0)::integer as gone
    from unnest(${targets ?? [null]}::text[]) target`.execute(db.kysely)
  return rows[0]?.gone ?? 0
}

/** In the order of their addresses, the catch-all first; without targets that were removed. */
export async function selectAliases(db: Database, domainId: number): Promise<AliasRow[]> {
  const { rows } = await sql<Omit<AliasRow, 'isHidden'> & { localPart: string }>`
    select a.local_part || '@' || d.name as address, u.local_part || '@' || t.name as target,
      a.local_part as "localPart"
    from aliases a
      join domains d on d.domain_id = a.domain_id
      join domains t on t.domain_id = a.target_domain_id
      join users u on u.domain_id = a.target_domain_id and u.user_id = a.target_user_id
    where a.domain_id = ${domainId}
    order by a.local_part, a.position`.execute(db.kysely)
  // Asked apart: those who come before lie with the domain, the targets with whatever domains.
  const hidden = await sql<{ localPart: string }>`
    select lower(u.local_part) as "localPart" from users u
    where u.domain_id = ${domainId} and lower(u.local_part) = any (${[
      ...new Set(rows.map(({ localPart }) => localPart)),
    ]}::text[])`.execute(db.kysely)
  const users = new Set(hidden.rows.map(({ localPart }) => localPart))
  return rows.map(({ localPart, ...row }) => ({ ...row, isHidden: users.has(localPart) }))
}

/** Makes the domain if it is missing. */
export async function insertDomainAlias(db: Database, name: string, other: string): Promise<void> {
  await db.kysely.transaction().execute(async (trx) => {
    await trx
      .insertInto('domains')
      .values({ name })
      .onConflict((conflict) => conflict.doNothing())
      .execute()
    await sql`select set_domain_alias(${name}, ${other})`.execute(trx)
  })
}

/** The domain stays, with nobody in it. */
export async function deleteDomainAlias(db: Database, name: string): Promise<void> {
  await sql`select set_domain_alias(${name}, null)`.execute(db.kysely)
}
