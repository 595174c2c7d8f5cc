/**
 * Users, for those who manage them: ordinary queries through Kysely on the small text pool. What a
 * login or a delivery needs of a user is in accounts.ts. A changed credential and a suspension end
 * the user's live session in the same transaction, by deleting its row; a login that slips in
 * between is ended by its node's next heartbeat, which sees the changed fingerprint.
 */
import { type ExpressionBuilder, sql } from 'kysely'
import type { Database } from '../postgres/database.ts'
import type { Tables } from '../schema.ts'
import { hashHead } from './old-hashes.ts'

export interface UserRow {
  domainId: number
  userId: number
  localPart: string
  /** How the hash begins, enough to tell its scheme. */
  hashHead: string | undefined
  hasApop: boolean
  hasScram: boolean
  isMainPasswordAllowed: boolean
  /** App passwords and certificates. */
  credentialCount: number
  isSuspended: boolean
  quotaOctets: number | undefined
  quotaMessages: number | undefined
  createdAt: Date
  messageCount: number
  octets: number
  /** In the trash: what can be undone. */
  trashCount: number
  trashOctets: number
  hasSession: boolean
}

export interface NewUser {
  localPart: string
  passwordHash: string | undefined
  quotaOctets: number | undefined
  /** Absent: as new users have it. */
  settings?: Partial<UserSettings> | undefined
}

/** What sets a user apart from others of its domain. */
export interface UserSettings {
  quotaMessages: number | undefined
  isSuspended: boolean
  isMainPasswordAllowed: boolean
  loginDelaySeconds: number | undefined
  expireDays: number | undefined
}

/** As base/keyring.ts seals them; undefined: none. */
export interface SealedCredentials {
  apopSecret?: Buffer | undefined
  scramKeys?: Buffer | undefined
}

/**
 * @param seal makes what is bound to the user's id, which is known only when the row is there: so
 *   the row is completed in the same transaction
 * @returns userId
 */
export function insertUser(
  db: Database,
  domainId: number,
  user: NewUser,
  seal: (userId: number) => Promise<SealedCredentials>,
): Promise<number> {
  return db.kysely.transaction().execute(async (trx) => {
    const row = await trx
      .insertInto('users')
      .values(toRow(domainId, user))
      .returning('user_id')
      .executeTakeFirstOrThrow()
    const userId = Number(row.user_id)
    const { apopSecret, scramKeys } = await seal(userId)
    if (apopSecret !== undefined || scramKeys !== undefined)
      await trx
        .updateTable('users')
        .set({ apop_secret: apopSecret ?? null, scram_keys: scramKeys ?? null })
        .where('domain_id', '=', domainId)
        .where('user_id', '=', userId)
        .execute()
    return userId
  })
}

/** @returns the local parts that were inserted, as given; the others exist already */
export async function insertUsers(
  db: Database,
  domainId: number,
  users: readonly NewUser[],
): Promise<Set<string>> {
  const rows = await db.kysely
    .insertInto('users')
    .values(users.map((user) => toRow(domainId, user)))
    .onConflict((conflict) => conflict.doNothing())
    .returning('local_part')
    .execute()
  return new Set(rows.map((row) => row.local_part))
}

/** Those of `localParts` that are taken, in lower case. */
export async function selectTakenLocalParts(
  db: Database,
  domainId: number,
  localParts: readonly string[],
): Promise<Set<string>> {
  const wanted = localParts.map((localPart) => localPart.toLowerCase())
  const rows = await db.kysely
    .selectFrom('users')
    .select(sql<string>`lower(local_part)`.as('name'))
    .where('domain_id', '=', domainId)
    .where(sql<boolean>`lower(local_part) = any(${wanted}::text[])`)
    .execute()
  return new Set(rows.map((row) => row.name))
}

export async function selectUser(
  db: Database,
  domainId: number,
  localPart: string,
): Promise<UserRow | undefined> {
  const row = await users(db, domainId)
    .where(sql<boolean>`lower(u.local_part) = ${localPart.toLowerCase()}`)
    .executeTakeFirst()
  return row && toUser(row)
}

/** All users of a domain, in the order of their names. */
export async function selectUserList(db: Database, domainId: number): Promise<UserRow[]> {
  const rows = await users(db, domainId).orderBy(sql`lower(u.local_part)`).execute()
  return rows.map(toUser)
}

export async function updateUserSuspended(
  db: Database,
  domainId: number,
  userId: number,
  isSuspended: boolean,
): Promise<void> {
  await updateUser(db, domainId, userId, { suspended: isSuspended }, isSuspended)
}

/** What is undefined stays as it is, but that SCRAM keys go with the password they are of. */
export async function updateUserCredentials(
  db: Database,
  domainId: number,
  userId: number,
  credentials: {
    passwordHash: string | undefined
    scramKeys: Buffer | undefined
    apopSecret: Buffer | null | undefined
  },
): Promise<void> {
  const { passwordHash, scramKeys = null, apopSecret } = credentials
  const change = {
    ...(passwordHash === undefined ? {} : { password_hash: passwordHash, scram_keys: scramKeys }),
    ...(apopSecret === undefined ? {} : { apop_secret: apopSecret }),
  }
  await updateUser(db, domainId, userId, change, true)
}

export async function updateMainPasswordAllowed(
  db: Database,
  domainId: number,
  userId: number,
  isAllowed: boolean,
): Promise<void> {
  await updateUser(db, domainId, userId, { main_password_allowed: isAllowed }, true)
}

/** What is missing stays; undefined: no limit. */
export async function updateUserQuota(
  db: Database,
  domainId: number,
  userId: number,
  quota: { octets?: number | undefined; messages?: number | undefined },
): Promise<void> {
  const change = {
    ...('octets' in quota && { quota_octets: quota.octets ?? null }),
    ...('messages' in quota && { quota_messages: quota.messages ?? null }),
  }
  await updateUser(db, domainId, userId, change, false)
}

/** With messages and trash, by the function that docs/sql.md documents. */
export async function deleteUser(db: Database, address: string): Promise<void> {
  await sql`select remove_user(${address})`.execute(db.kysely)
}

interface Change {
  suspended?: boolean
  password_hash?: string
  apop_secret?: Buffer | null
  scram_keys?: Buffer | null
  main_password_allowed?: boolean
  quota_octets?: number | null
  quota_messages?: number | null
}

async function updateUser(
  db: Database,
  domainId: number,
  userId: number,
  change: Change,
  endsSession: boolean,
): Promise<void> {
  await db.kysely.transaction().execute(async (trx) => {
    await trx
      .updateTable('users')
      .set(change)
      .where('domain_id', '=', domainId)
      .where('user_id', '=', userId)
      .execute()
    if (endsSession)
      await trx
        .deleteFrom('sessions')
        .where('domain_id', '=', domainId)
        .where('user_id', '=', userId)
        .execute()
  })
}

function users(db: Database, domainId: number) {
  const hasSession = (eb: ExpressionBuilder<Tables & { u: Tables['users'] }, 'u'>) =>
    eb.exists(
      eb
        .selectFrom('sessions as s')
        .select('s.user_id')
        .where('s.domain_id', '=', domainId)
        .whereRef('s.user_id', '=', 'u.user_id'),
    )
  return db.kysely
    .selectFrom('users as u')
    .leftJoin('maildrops as m', (join) =>
      join.onRef('m.domain_id', '=', 'u.domain_id').onRef('m.user_id', '=', 'u.user_id'),
    )
    .select(['u.domain_id', 'u.user_id', 'u.local_part', 'u.suspended', 'u.quota_octets'])
    .leftJoinLateral(
      (eb) =>
        eb
          .selectFrom('trash as t')
          .select((e) => [
            e.fn.countAll<string>().as('trash_count'),
            e.fn.sum<string | null>('t.octets').as('trash_octets'),
          ])
          .where('t.domain_id', '=', domainId)
          .whereRef('t.user_id', '=', 'u.user_id')
          .as('t'),
      (join) => join.onTrue(),
    )
    .select(['u.quota_messages', 't.trash_count', 't.trash_octets'])
    .select(['u.created_at', 'm.message_count', 'm.octets'])
    .select(hashHead.as('hash_head'))
    .select(sql<boolean>`u.apop_secret is not null`.as('has_apop'))
    .select(sql<boolean>`u.scram_keys is not null`.as('has_scram'))
    .select('u.main_password_allowed')
    .select((eb) =>
      eb
        .selectFrom('credentials as c')
        .select((e) => e.fn.countAll<number>().as('count'))
        .where('c.domain_id', '=', domainId)
        .whereRef('c.user_id', '=', 'u.user_id')
        .as('credential_count'),
    )
    .select((eb) => hasSession(eb as never).as('has_session'))
    .where('u.domain_id', '=', domainId)
}

type SelectedUser = Awaited<ReturnType<ReturnType<typeof users>['execute']>>[number]

function toUser(row: SelectedUser): UserRow {
  return {
    domainId: row.domain_id,
    userId: Number(row.user_id),
    localPart: row.local_part,
    hashHead: row.hash_head ?? undefined,
    hasApop: row.has_apop,
    hasScram: row.has_scram,
    isMainPasswordAllowed: row.main_password_allowed,
    credentialCount: row.credential_count ?? 0,
    isSuspended: row.suspended,
    quotaOctets: row.quota_octets === null ? undefined : Number(row.quota_octets),
    quotaMessages: row.quota_messages ?? undefined,
    createdAt: row.created_at,
    messageCount: Number(row.message_count ?? 0),
    octets: Number(row.octets ?? 0),
    trashCount: Number(row.trash_count ?? 0),
    trashOctets: Number(row.trash_octets ?? 0),
    hasSession: Boolean(row.has_session),
  }
}

function toRow(domainId: number, { settings = {}, ...user }: NewUser) {
  return {
    domain_id: domainId,
    local_part: user.localPart,
    password_hash: user.passwordHash ?? null,
    quota_octets: user.quotaOctets ?? null,
    quota_messages: settings.quotaMessages ?? null,
    suspended: settings.isSuspended ?? false,
    main_password_allowed: settings.isMainPasswordAllowed ?? true,
    login_delay_seconds: settings.loginDelaySeconds ?? null,
    expire_days: settings.expireDays ?? null,
  }
}
