/**
 * Where tables lie on several servers (citus.ts), one that is away must cost nobody but the domains
 * that it holds. A statement about all domains fails as a whole then; here it is asked again, once
 * for each server, about the domains that this one holds. One PostgreSQL holds them all, and is
 * asked once.
 */
import type { Database, Statement } from './database.ts'
import { decodeInt4, encodeNumbers, present } from './decode.ts'
import { isHolderAway } from './sqlstate.ts'

/**
 * SQL: whether `column` is one of the domains in `parameter` (null: all are meant). To be said of
 * each table of tenants that is joined: only then no other server is asked.
 */
export const amongSql = (column: string, parameter: string): string =>
  `(${parameter}::integer[] is null or ${column} = any (${parameter}::integer[]))`

/**
 * SQL: the row `o` of users, whose domain_id what is inserted is to have: from $1 alone Citus does
 * not see that all of `insert … select … from` another arm goes to one server, and sends what that
 * arm has found to each.
 */
export const ownerSql = (domainId: string, userId: string): string =>
  `(select u.domain_id, u.user_id from users u
      where u.domain_id = ${domainId} and u.user_id = ${userId}) o`

// The function is made by a migration, and made anew by `popgres migrate --citus`.
export const DOMAIN_HOLDERS: Statement = {
  name: 'domain-holders',
  text: `select domain_holder(d.domain_id), d.domain_id from domains d
  where ${amongSql('d.domain_id', '$1')}`,
}

/** What became of a statement about all domains. */
export interface Everywhere<Answer> {
  /** of the servers that answered */
  answers: Answer[]
  /** ids of the domains that the others hold: nothing is known of them */
  away: ReadonlySet<number>
}

/**
 * @param ask sends the statement, with what amongSql takes
 * @param domainIds those that matter, should a server be away; undefined: all
 * @throws {Failure} of any other kind, from any of them
 */
export async function askEverywhere<Answer>(
  db: Database,
  ask: (among: string | null) => Promise<Answer>,
  domainIds?: Iterable<number>,
): Promise<Everywhere<Answer>> {
  const whole = await orAway(ask(null))
  if (whole !== undefined) return { answers: [whole.answer], away: new Set() }
  const answers: Answer[] = []
  const away = new Set<number>()
  for (const held of await selectHolders(db, domainIds)) {
    const part = await orAway(ask(encodeNumbers(held)))
    if (part !== undefined) answers.push(part.answer)
    else for (const domainId of held) away.add(domainId)
  }
  return { answers, away }
}

/** @returns undefined: a server that it asks is away */
async function orAway<Answer>(asked: Promise<Answer>): Promise<{ answer: Answer } | undefined> {
  try {
    return { answer: await asked }
  } catch (error) {
    if (isHolderAway(error)) return undefined
    throw error
  }
}

/** @returns for each server, the domains that it holds */
async function selectHolders(
  db: Database,
  domainIds: Iterable<number> | undefined,
): Promise<Iterable<number[]>> {
  const rows = await db.bulk(DOMAIN_HOLDERS, [domainIds ? encodeNumbers(domainIds) : null])
  const byHolder = new Map<number, number[]>()
  for (const row of rows) {
    const [holder, domainId] = [decodeInt4(present(row, 0)), decodeInt4(present(row, 1))]
    const held = byHolder.get(holder)
    if (held === undefined) byHolder.set(holder, [domainId])
    else held.push(domainId)
  }
  return byHolder.values()
}
