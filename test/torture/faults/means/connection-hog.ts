/** Takes every connection that PostgreSQL has left for ordinary roles, and gives them back. */
import pg from 'pg'

/** too_many_connections */
const NONE_LEFT = '53300'

/**
 * @param url of a role that is no superuser: for those some connections are kept
 * @returns resolves when there is none left, with what gives them back
 */
export async function useUpConnections(url: string): Promise<() => Promise<void>> {
  const taken: pg.Client[] = []
  const giveBack = async (): Promise<void> => {
    await Promise.all(taken.splice(0).map((client) => client.end()))
  }
  try {
    for (;;) {
      const client = new pg.Client({ connectionString: url, application_name: 'hog' })
      // PostgreSQL may be ended meanwhile: then it has them back.
      client.on('error', () => {})
      await client.connect()
      taken.push(client)
    }
  } catch (error) {
    if ((error as { code?: string }).code === NONE_LEFT) return giveBack
    await giveBack()
    throw error
  }
}
