/**
 * Which session is meant by the beginning of its id, as `popgres session list` shows it. It is
 * looked for among those that have something in the trash of that user or domain, and of nobody
 * else.
 */
import type { Database } from '../storage/postgres/database.ts'
import { selectTrashSessions } from '../storage/tenants/maildrops/trash.ts'
import { refused } from './refusal.ts'

/** LIMIT: ids that are named where several are meant. */
const NAMED_MAX = 5

/**
 * @param whose userId undefined: of all users of the domain
 * @returns undefined: there is none
 * @throws {Failure} OPERATION_REFUSED if it is the beginning of several
 */
export async function findSession(
  db: Database,
  whose: { domainId: number; userId: number | undefined },
  prefix: string,
): Promise<string | undefined> {
  const found = await selectTrashSessions(db, whose, prefix, NAMED_MAX)
  if (found.length > 1)
    throw refused(`several sessions begin with ${prefix}, say more of the id: ${found.join(', ')}`)
  return found[0]
}
