/**
 * Handing back what a backup holds: a second database, restored beside the living one, is read and
 * what is missing is written. Both speak the same schema. A message keeps its uid where the
 * maildrop is still the one that it was taken from, so that clients see the unique-id that they
 * know; in a maildrop that was made anew it carries the old one as an imported unique-id.
 */
import { randomUUID } from 'node:crypto'
import { type Kysely, type Selectable, sql } from 'kysely'
import { Failure } from '../../../base/failure.ts'
import { insertBody, insertStretch, STRETCH_OCTETS, selectStretch } from '../../bodies.ts'
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
 * by now. @returns its id
 */
export async function insertDomainBackup(db: Database, domain: DomainBackup): Promise<number> {
  const { domain_id, alias_of, is_alias, alias_of_is_alias, ...settings } = domain
  const taken = await db.kysely
    .selectFrom('domains')
    .select('domain_id')
    .where('domain_id', '=', domain_id)
    .executeTakeFirst()
  const row = await db.kysely
    .insertInto('domains')
    .values(taken === undefined ? { domain_id, ...settings } : settings)
    .returning('domain_id')
    .executeTakeFirstOrThrow()
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
 * one of them is another's by now.
 */
export async function insertUserBackup(
  db: Database,
  domainId: number,
  user: UserBackup,
  credentials: Selectable<Tables['credentials']>[],
): Promise<number> {
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
      .returning('user_id')
      .executeTakeFirstOrThrow()
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
    .execute()
}

/**
 * What lies in the maildrop already is not in the answer.
 * @param isSame by uid; otherwise by unique-id, which all messages then have
 */
export async function selectMissing(
  db: Database,
  { domainId, userId }: Maildrop,
  messages: readonly MessageBackup[],
  isSame: boolean,
): Promise<MessageBackup[]> {
  const uids = isSame ? messages.map(({ uid }) => uid) : []
  const uniqueIds = messages.flatMap(({ unique_id }) => unique_id ?? [])
  const rows = await db.kysely
    .selectFrom('messages')
    .select(['uid', 'unique_id'])
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .where(sql<boolean>`(uid = any(${uids}::integer[]) or unique_id = any(${uniqueIds}::text[]))`)
    .execute()
  const thereUids = new Set(isSame ? rows.map(({ uid }) => uid) : [])
  const thereIds = new Set(rows.map(({ unique_id }) => unique_id))
  return messages.filter(
    ({ uid, unique_id: id }) => !(thereUids.has(uid) || (id !== null && thereIds.has(id))),
  )
}

/**
 * Copies a body that is not there, under its own id. One that an earlier run began is begun anew.
 * @throws {Failure} MESSAGE_DAMAGED if the backup has not all of it
 */
export async function copyBody(
  db: Database,
  domainId: number,
  backup: Database,
  source: { domainId: number; bodyId: string; bodyOctets: number },
): Promise<void> {
  const { bodyId, bodyOctets } = source
  const body = db.kysely.selectFrom('bodies').select('octets')
  const there = await body
    .where('domain_id', '=', domainId)
    .where('body_id', '=', bodyId)
    .executeTakeFirst()
  if (there !== undefined && there.octets !== null) return
  if (there !== undefined)
    await db.kysely
      .deleteFrom('bodies')
      .where('domain_id', '=', domainId)
      .where('body_id', '=', bodyId)
      .where('octets', 'is', null)
      .execute()
  await insertBody(db, domainId, bodyId)
  for (let nth = 0; nth * STRETCH_OCTETS < bodyOctets; nth += 1) {
    const pieces = await selectStretch(backup, source.domainId, source, nth)
    await insertStretch(db, domainId, bodyId, nth, Buffer.concat(pieces))
  }
  await db.kysely
    .updateTable('bodies')
    .set({ octets: bodyOctets })
    .where('domain_id', '=', domainId)
    .where('body_id', '=', bodyId)
    .execute()
}

/**
 * Puts messages back whose bodies are there: they are laid into the trash and come back from it as
 * everything does, by the function that docs/sql.md documents, which holds the lease.
 * @param isSame the maildrop is the one that they were taken from: uids stay
 * @returns how many were not there; undefined: the maildrop is open in a session
 */
export async function insertMessageBackups(
  db: Database,
  maildrop: Maildrop,
  messages: readonly MessageBackup[],
  isSame: boolean,
): Promise<number | undefined> {
  const { domainId, userId } = maildrop
  const ids = { domain_id: domainId, user_id: userId }
  const laid = { ...ids, session_id: randomUUID(), deleted_at: new Date() }
  return await db.kysely.transaction().execute(async (trx) => {
    const firstUid = isSame ? undefined : await reserveUids(trx, maildrop, messages.length)
    const rows = messages.map(({ body_octets, ...message }, nth) => ({
      ...message,
      ...laid,
      uid: firstUid === undefined ? message.uid : firstUid + nth,
    }))
    // One that was deleted since lies there already, by that session's name.
    await trx
      .insertInto('trash')
      .values(rows)
      .onConflict((conflict) => conflict.doNothing())
      .execute()
    const uids = rows.map(({ uid }) => uid)
    const put = await sql<{ count: number | null }>`
      select put_back(${domainId}, ${userId}, ${uids}::integer[]) as count`.execute(trx)
    // What is in the maildrop by now, or all if it is open.
    await trx
      .deleteFrom('trash')
      .where('domain_id', '=', domainId)
      .where('user_id', '=', userId)
      .where('session_id', '=', laid.session_id)
      .execute()
    return put.rows[0]?.count ?? undefined
  })
}

/** @returns the first of `count` uids that nobody else is given */
async function reserveUids(
  trx: Kysely<Tables>,
  { domainId, userId }: Maildrop,
  count: number,
): Promise<number> {
  const { next_uid: next } = await trx
    .updateTable('maildrops')
    .set((eb) => ({ next_uid: eb('next_uid', '+', count) }))
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .returning('next_uid')
    .executeTakeFirstOrThrow()
  return next - count
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
