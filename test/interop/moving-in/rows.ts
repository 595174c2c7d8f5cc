/** What came in, as it lies in the database. */
import type { TestDatabase } from '../../support/postgres.ts'

export async function countUsers(database: TestDatabase): Promise<number> {
  return (await database.db.kysely.selectFrom('users').select('user_id').execute()).length
}

/** Days of receipt, in the order of the maildrop. */
export async function datesOf(database: TestDatabase, address: string): Promise<Date[]> {
  const [localPart = ''] = address.split('@')
  const rows = await database.db.kysely
    .selectFrom('messages as m')
    .innerJoin('users as u', 'u.user_id', 'm.user_id')
    .select('m.received_at')
    .where('u.local_part', '=', localPart)
    .orderBy('m.uid')
    .execute()
  return rows.map((row) => row.received_at)
}
