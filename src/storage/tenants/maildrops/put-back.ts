/**
 * Messages of a backup on their way back. A message keeps its uid where the maildrop is still the
 * one that it was taken from, so that clients see the unique-id that they know; in a maildrop that
 * was made anew it carries the old one as an imported unique-id. Where backup and living database
 * have gone different ways, another message may have its uid or unique-id by now: then it gets new
 * ones, as nothing may be lost and no unique-id mean two messages. Any number of restores may run
 * at once.
 */
import { randomUUID } from 'node:crypto'
import { CompiledQuery, type Kysely, sql } from 'kysely'
import { INSERT_STRETCH, STRETCH_CHUNKS, STRETCH_OCTETS, selectStretch } from '../../bodies.ts'
import type { Database } from '../../postgres/database.ts'
import type { Tables } from '../../schema.ts'
import type { Maildrop, MessageBackup } from './backup.ts'

/** A message as it comes back. */
export interface Missing {
  message: MessageBackup
  /** Another message has its uid or unique-id: it gets new ones. */
  isTaken: boolean
}

/** What the living database has that could be it: by uid, unique-id or body. */
interface Present {
  uid: number
  unique_id: string | null
  octets: number
  body_id: string
  prefix: Buffer
  isTrash: boolean
}

/**
 * What lies in the maildrop already is not in the answer: the same octets under the same uid or
 * unique-id, or the same body, under whatever uid an earlier run may have given it.
 * @param backup and the domain's id there, to compare octets that have two ids
 * @param isSame uids mean the same in both; otherwise all messages have a unique-id
 */
export async function selectMissing(
  db: Database,
  target: Maildrop,
  backup: { db: Database; domainId: number },
  messages: readonly MessageBackup[],
  isSame: boolean,
): Promise<Missing[]> {
  const rows = await selectPresent(db, target, messages, isSame)
  const claimsOf = ({ uid, unique_id }: MessageBackup): Present[] =>
    rows.filter(
      (row) => (isSame && row.uid === uid) || (unique_id !== null && row.unique_id === unique_id),
    )
  // The same message may have come in twice, by two imports for example: then only octets tell.
  const doubted = messages.flatMap((message) =>
    claimsOf(message)
      .filter((row) => row.body_id !== message.body_id && isOfOneLength(row, message))
      .map((row) => ({ ours: row.body_id, theirs: message.body_id })),
  )
  const ours = await selectDigests(
    db,
    target.domainId,
    doubted.map((pair) => pair.ours),
  )
  const theirs = await selectDigests(
    backup.db,
    backup.domainId,
    doubted.map((pair) => pair.theirs),
  )
  const isIt = (row: Present, message: MessageBackup): boolean =>
    isOfOneLength(row, message) &&
    (row.body_id === message.body_id || ours.get(row.body_id) === theirs.get(message.body_id))
  return messages.flatMap((message) => {
    const claims = claimsOf(message)
    const alike = rows.filter((row) => row.body_id === message.body_id)
    if ([...claims, ...alike].some((row) => !row.isTrash && isIt(row, message))) return []
    const isTaken = claims.some((row) => !isIt(row, message))
    return { message: isTaken ? { ...message, unique_id: null } : message, isTaken }
  })
}

const isOfOneLength = (row: Present, message: MessageBackup): boolean =>
  row.octets === message.octets && row.prefix.equals(message.prefix)

async function selectPresent(
  db: Database,
  { domainId, userId }: Maildrop,
  messages: readonly MessageBackup[],
  isSame: boolean,
): Promise<Present[]> {
  const uids = isSame ? messages.map(({ uid }) => uid) : []
  const uniqueIds = messages.flatMap(({ unique_id }) => unique_id ?? [])
  const bodyIds = messages.map(({ body_id }) => body_id)
  const query = sql<Present>`
    select uid, unique_id, octets, body_id, prefix, false as "isTrash" from messages
    where domain_id = ${domainId} and user_id = ${userId} and (uid = any (${uids}::integer[])
      or unique_id = any (${uniqueIds}::text[]) or body_id = any (${bodyIds}::uuid[]))
    union all
    select uid, null, octets, body_id, prefix, true from trash
    where domain_id = ${domainId} and user_id = ${userId} and uid = any (${uids}::integer[])`
  return (await query.execute(db.kysely)).rows
}

/** Of digests of chunks, which are cut alike everywhere: no body is in memory as a whole. */
async function selectDigests(
  db: Database,
  domainId: number,
  bodyIds: readonly string[],
): Promise<Map<string, string>> {
  if (bodyIds.length === 0) return new Map()
  const { rows } = await sql<{ body_id: string; digest: string }>`
    select body_id, encode(sha256(string_agg(sha256(data), '' order by seq)), 'hex') as digest
    from body_chunks where domain_id = ${domainId} and body_id = any (${[...bodyIds]}::uuid[])
    group by body_id`.execute(db.kysely)
  return new Map(rows.map(({ body_id, digest }) => [body_id, digest]))
}

/**
 * Copies a body that is not there, under its own id, all of it or nothing. One that is being copied
 * by somebody else is waited for.
 * @throws {Failure} MESSAGE_DAMAGED if the backup has not all of it
 */
export async function copyBody(
  db: Database,
  domainId: number,
  backup: Database,
  source: { domainId: number; bodyId: string; bodyOctets: number },
): Promise<void> {
  const { bodyId, bodyOctets } = source
  const body = { domain_id: domainId, body_id: bodyId }
  await db.kysely.transaction().execute(async (trx) => {
    // Begun by a run of a version that left what it had.
    await trx
      .deleteFrom('bodies')
      .where('domain_id', '=', domainId)
      .where('body_id', '=', bodyId)
      .where('octets', 'is', null)
      .execute()
    const made = await trx
      .insertInto('bodies')
      .values({ ...body, octets: bodyOctets })
      .onConflict((conflict) => conflict.doNothing())
      .returning('body_id')
      .executeTakeFirst()
    if (made === undefined) return
    for (let nth = 0; nth * STRETCH_OCTETS < bodyOctets; nth += 1) {
      const pieces = await selectStretch(backup, source.domainId, source, nth)
      const values = [domainId, bodyId, nth * STRETCH_CHUNKS, Buffer.concat(pieces)]
      await trx.executeQuery(CompiledQuery.raw(INSERT_STRETCH.text, values))
    }
  })
}

/**
 * Puts messages back whose bodies are there: they are laid into the trash and come back from it as
 * everything does, by the function that docs/sql.md documents, which holds the lease.
 * @param isSame the maildrop is the one that they were taken from: uids stay
 * @returns how many were not there, and how many of these got a new uid as theirs was taken;
 *   undefined: the maildrop is open in a session
 */
export async function insertMessageBackups(
  db: Database,
  maildrop: Maildrop,
  missing: readonly Missing[],
  isSame: boolean,
): Promise<{ restored: number; renumbered: number } | undefined> {
  const { domainId, userId } = maildrop
  const ids = { domain_id: domainId, user_id: userId }
  const laid = { ...ids, session_id: randomUUID(), deleted_at: new Date() }
  return await db.kysely.transaction().execute(async (trx) => {
    // One restore of a maildrop at a time: what another one has given new uids is seen here.
    await sql`select pg_advisory_xact_lock(
      hashtextextended(${`restore ${domainId} ${userId}`}, 0))`.execute(trx)
    const there = await selectThere(trx, maildrop, missing)
    const wanted = missing.filter(({ message }) => !there.has(message.body_id))
    const isFresh = ({ isTaken }: Missing): boolean => isTaken || !isSame
    const fresh = wanted.filter(isFresh).length
    let nextUid = fresh === 0 ? 0 : await reserveUids(trx, maildrop, fresh)
    const rows = wanted.map((each) => {
      const { body_octets, ...message } = each.message
      return { ...message, ...laid, uid: isFresh(each) ? nextUid++ : message.uid }
    })
    if (rows.length === 0) return { restored: 0, renumbered: 0 }
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
    const restored = put.rows[0]?.count ?? undefined
    const renumbered = wanted.filter(({ isTaken }) => isTaken).length
    return restored === undefined ? undefined : { restored, renumbered }
  })
}

/** Bodies of those with a new uid, which no unique index keeps from coming back twice. */
async function selectThere(
  trx: Kysely<Tables>,
  { domainId, userId }: Maildrop,
  missing: readonly Missing[],
): Promise<Set<string>> {
  const taken = missing.flatMap(({ message, isTaken }) => (isTaken ? message.body_id : []))
  if (taken.length === 0) return new Set()
  const rows = await trx
    .selectFrom('messages')
    .select('body_id')
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .where('body_id', 'in', taken)
    .execute()
  return new Set(rows.map(({ body_id }) => body_id))
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
