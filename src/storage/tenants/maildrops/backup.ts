/**
 * What a backup holds: a second database, restored beside the living one, which speaks the same
 * schema. Domains, users and empty maildrops are handed back here, messages by put-back.ts.
 */
import { type Kysely, type Selectable, sql } from 'kysely'
import { Failure } from '../../../base/failure.ts'
import type { Database } from '../../postgres/database.ts'
import type { Tables } from '../../schema.ts'

export type DomainBackup = Selectable<Tables['domains']>
export type UserBackup = Selectable<Tables['users']>
export type MaildropBackup = Selectable<Tables['maildrops']>

/** As `messages` and `trash` have it; of the domain and user of the backup. */
export type MessageBackup = Omit<Selectable<Tables['messages']>, 'domain_id' | 'user_id'> & {
  body_octets: number
}

/** Ids differ from the backup's where domain or user were made anew since. */
export interface Maildrop {
  domainId: number
  userId: number
}

export async function selectDomainBackup(
  db: Database,
  name: string,
): Promise<DomainBackup | undefined> {
  return await db.kysely
    .selectFrom('domains')
    .selectAll()
    .where('name', '=', name)
    .executeTakeFirst()
}

/** @param localPart undefined: of all; in any case of letters */
export async function selectUserBackups(
  db: Database,
  domainId: number,
  localPart: string | undefined,
): Promise<UserBackup[]> {
  const users = db.kysely.selectFrom('users').selectAll().where('domain_id', '=', domainId)
  if (localPart === undefined) return await users.orderBy('user_id').execute()
  const wanted = localPart.toLowerCase()
  return await users.where(sql<boolean>`lower(local_part) = ${wanted}`).execute()
}

export async function selectMaildropBackup(
  db: Database,
  { domainId, userId }: Maildrop,
): Promise<MaildropBackup | undefined> {
  return await db.kysely
    .selectFrom('maildrops')
    .selectAll()
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .executeTakeFirst()
}

/**
 * @param sessionId what this session deleted, from the trash; undefined: what lay in the maildrop
 * @param limit rows at most, in the order of uid, from the one after `afterUid`
 */
export async function selectMessageBackups(
  db: Database,
  { domainId, userId }: Maildrop,
  page: { sessionId: string | undefined; afterUid: number; limit: number },
): Promise<MessageBackup[]> {
  const { sessionId, afterUid, limit } = page
  const source = sessionId === undefined ? sql`messages` : sql`trash`
  const ofSession = sessionId === undefined ? sql`` : sql`and m.session_id = ${sessionId}::uuid`
  const { rows } = await sql<MessageBackup>`
    select m.uid, m.octets, m.body_id, m.prefix, m.unique_id, m.received_at,
      b.octets as body_octets
    from ${source} m join bodies b on b.domain_id = m.domain_id and b.body_id = m.body_id
    where m.domain_id = ${domainId} and m.user_id = ${userId} and m.uid > ${afterUid} ${ofSession}
    order by m.uid limit ${limit}`.execute(db.kysely)
  return rows
}

/**
 * Settings as they were, but that it stands for no other domain; the id too, unless it is another's
 * by now. @returns its id; undefined: somebody else has made it or that id meanwhile
 */
export async function insertDomainBackup(
  db: Database,
  domain: DomainBackup,
): Promise<number | undefined> {
  const { domain_id, alias_of, is_alias, alias_of_is_alias, ...settings } = domain
  const taken = await db.kysely
    .selectFrom('domains')
    .select('domain_id')
    .where('domain_id', '=', domain_id)
    .executeTakeFirst()
  const row = await db.kysely
    .insertInto('domains')
    .values(taken === undefined ? { domain_id, ...settings } : settings)
    .onConflict((conflict) => conflict.doNothing())
    .returning('domain_id')
    .executeTakeFirst()
  if (row === undefined) return undefined
  await passOver(db.kysely, 'domains', 'domain_id', row.domain_id)
  return row.domain_id
}

/** An id that was given, not drawn, is not drawn later: this database may never have come to it. */
async function passOver(
  kysely: Kysely<Tables>,
  table: 'domains' | 'users',
  column: string,
  id: number,
): Promise<void> {
  await sql`select setval(s::regclass, ${id}) from pg_get_serial_sequence(${table}, ${column}) s
    where coalesce(pg_sequence_last_value(s::regclass), 0) < ${id}`.execute(kysely)
}

/**
 * With password and app passwords. What is sealed (APOP, SCRAM) is bound to the ids and goes where
 * one of them is another's by now. @returns the id; undefined: somebody else has made it meanwhile
 */
export async function insertUserBackup(
  db: Database,
  domainId: number,
  user: UserBackup,
  credentials: Selectable<Tables['credentials']>[],
): Promise<number | undefined> {
  const { user_id, ...row } = user
  return await db.kysely.transaction().execute(async (trx) => {
    const taken = await trx
      .selectFrom('users')
      .select('user_id')
      .where('domain_id', '=', domainId)
      .where('user_id', '=', user_id)
      .executeTakeFirst()
    const areSameIds = taken === undefined && domainId === user.domain_id
    const ofIds = areSameIds ? { user_id } : { apop_secret: null, scram_keys: null }
    const made = await trx
      .insertInto('users')
      .values({ ...row, ...ofIds, domain_id: domainId })
      .onConflict((conflict) => conflict.doNothing())
      .returning('user_id')
      .executeTakeFirst()
    if (made === undefined) return undefined
    const ids = { domain_id: domainId, user_id: Number(made.user_id) }
    await passOver(trx, 'users', 'user_id', ids.user_id)
    if (credentials.length > 0)
      await trx
        .insertInto('credentials')
        .values(credentials.map((each) => ({ ...each, ...ids })))
        .execute()
    return ids.user_id
  })
}

/** Empty, and the next uid is beyond all that were given out. Nothing if there is one. */
export async function insertMaildropBackup(
  db: Database,
  { domainId, userId }: Maildrop,
  maildrop: MaildropBackup,
): Promise<void> {
  await db.kysely
    .insertInto('maildrops')
    .values({ ...maildrop, domain_id: domainId, user_id: userId, message_count: 0, octets: 0 })
    .onConflict((conflict) => conflict.doNothing())
    .execute()
}

export async function selectCredentialBackups(
  db: Database,
  { domainId, userId }: Maildrop,
): Promise<Selectable<Tables['credentials']>[]> {
  return await db.kysely
    .selectFrom('credentials')
    .selectAll()
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .orderBy('name')
    .execute()
}

/** @throws {Failure} OPERATION_REFUSED unless both have had the same migrations */
export async function checkSameSchema(db: Database, backup: Database): Promise<void> {
  const [ours, theirs] = await Promise.all([db, backup].map(selectMigrations))
  if (ours !== theirs)
    throw new Failure(
      'OPERATION_REFUSED',
      `the backup's tables are of another version (${theirs} against ${ours}): ` +
        'run "popgres migrate" with DATABASE_URL set to the restored copy first',
    )
}

async function selectMigrations(db: Database): Promise<string> {
  const row = await db.kysely
    .selectFrom('schema_migrations')
    .select((eb) => eb.fn.max('name').as('last'))
    .executeTakeFirst()
  return row?.last ?? 'none'
}
