/**
 * What is asked by a domain's name is answered by the one server that has the domain only if the
 * statement names its id. So a worker remembers ids by name, for as long as there is room, and
 * believes none of them: the statement that is sent with one says which id the name has now, and is
 * sent again where that is another. An unknown name costs what a known one costs: one statement.
 */
import { Failure } from '../../base/failure.ts'
import type { Database } from '../postgres/database.ts'
import { isHolderAway } from '../postgres/sqlstate.ts'

/** First a guess, then what was said; more often only while a domain is renamed back and forth. */
const TRIES_MAX = 4

/** SQL: the id that the domain named in `parameter` has now; null: there is none. */
export const domainIdSql = (parameter: string): string =>
  `(select n.domain_id from domains n where n.name = lower(${parameter}::text collate "C"))`

/**
 * @param ask sends the statement about the domain with the id; undefined: none is known, then what
 *   is asked about has no rows. Its answer says which id the name has now.
 * @returns the answer to the statement that was sent with that id
 */
export async function askByName<Answer extends { domainId: number | undefined }>(
  db: Database,
  name: string,
  ask: (domainId: number | undefined) => Promise<Answer>,
): Promise<Answer> {
  const { domainIds } = db
  let guess = domainIds.get(name)
  for (let tries = 0; tries < TRIES_MAX; tries++) {
    const answer = await ask(guess).catch((error: unknown) => {
      // The server that is away may be where the domain was, and no longer is.
      if (isHolderAway(error)) domainIds.delete(name)
      throw error
    })
    if (answer.domainId === guess) return answer
    guess = answer.domainId
    if (guess === undefined) domainIds.delete(name)
    else domainIds.set(name, guess)
  }
  throw new Failure('STORAGE_CONFLICT', 'the domain is renamed again and again')
}
