/**
 * What the clients of a domain or a user may do: LOGIN-DELAY, EXPIRE, and what a second login
 * meets; and how a domain takes mail. A user's own value goes before its domain's. A login reads
 * its own in accounts.ts.
 */
import type { Database, Statement } from '../postgres/database.ts'
import { decodeBoolean, decodeInt4, present } from '../postgres/decode.ts'

export interface DomainPolicy {
  loginDelaySeconds: number
  /** undefined: never */
  expireDays: number | undefined
  secondLogin: 'refuse' | 'wait' | 'take-over'
  /** how long deleted messages can be restored */
  trashDays: number
  areAliasesAllowed: boolean
  isCatchAllAllowed: boolean
  /** of alice+tag; undefined: there is no such thing */
  separator: string | undefined
  /** a message that there is no room for: 452 or 552 */
  overQuota: 'defer' | 'refuse'
}

export interface UserPolicy {
  /** undefined: the domain's */
  loginDelaySeconds: number | undefined
  /** undefined: the domain's; 0: never */
  expireDays: number | undefined
}

/** What CAPA tells of all users before it knows which one. */
export interface CommonPolicy {
  /** the largest */
  loginDelaySeconds: number
  /** the shortest; undefined: never */
  expireDays: number | undefined
  /** it is not the same for all */
  isByUser: boolean
}

// The few users who differ from their domain have an index of their own.
export const COMMON_POLICY: Statement = {
  name: 'policy-common',
  text: `select coalesce(max(p.delay), 0), min(p.days),
    count(distinct (p.delay, coalesce(p.days, 0))) > 1
  from (
    select d.login_delay_seconds as delay, d.expire_days as days from domains d
    union all
    select coalesce(u.login_delay_seconds, d.login_delay_seconds),
      nullif(coalesce(u.expire_days, d.expire_days), 0)
    from users u join domains d on d.domain_id = u.domain_id
    where u.login_delay_seconds is not null or u.expire_days is not null
  ) p`,
}

/** For CAPA before login (RFC 2449 §6.5, §6.7); read at each heartbeat. */
export async function selectPolicy(db: Database): Promise<CommonPolicy> {
  const [row = []] = await db.hotOrBulk(COMMON_POLICY, [])
  return {
    loginDelaySeconds: decodeInt4(present(row, 0)),
    expireDays: row[1] ? decodeInt4(row[1]) : undefined,
    isByUser: decodeBoolean(present(row, 2)),
  }
}

export async function selectDomainPolicy(db: Database, domainId: number): Promise<DomainPolicy> {
  const row = await db.kysely
    .selectFrom('domains')
    .select(['login_delay_seconds', 'expire_days', 'second_login', 'trash_days'])
    .select(['aliases_allowed', 'catch_all_allowed', 'separator', 'over_quota'])
    .where('domain_id', '=', domainId)
    .executeTakeFirstOrThrow()
  return {
    loginDelaySeconds: row.login_delay_seconds,
    expireDays: row.expire_days ?? undefined,
    secondLogin: row.second_login,
    trashDays: row.trash_days,
    areAliasesAllowed: row.aliases_allowed,
    isCatchAllAllowed: row.catch_all_allowed,
    separator: row.separator ?? undefined,
    overQuota: row.over_quota,
  }
}

export async function selectUserPolicy(
  db: Database,
  domainId: number,
  userId: number,
): Promise<UserPolicy> {
  const row = await db.kysely
    .selectFrom('users')
    .select(['login_delay_seconds', 'expire_days'])
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .executeTakeFirstOrThrow()
  return {
    loginDelaySeconds: row.login_delay_seconds ?? undefined,
    expireDays: row.expire_days ?? undefined,
  }
}

/** A field that is missing stays; one that is undefined is unset. */
export async function updateDomainPolicy(
  db: Database,
  domainId: number,
  change: Partial<DomainPolicy>,
): Promise<void> {
  await db.kysely
    .updateTable('domains')
    .set(toPolicyColumns(change))
    .where('domain_id', '=', domainId)
    .execute()
}

/** Those of what is there; a field that is undefined is unset. */
export function toPolicyColumns(change: Partial<DomainPolicy>) {
  const { loginDelaySeconds, secondLogin, trashDays } = change
  const { areAliasesAllowed, isCatchAllAllowed, overQuota } = change
  return {
    ...(loginDelaySeconds !== undefined && { login_delay_seconds: loginDelaySeconds }),
    ...('expireDays' in change && { expire_days: change.expireDays ?? null }),
    ...(secondLogin !== undefined && { second_login: secondLogin }),
    ...(trashDays !== undefined && { trash_days: trashDays }),
    ...(areAliasesAllowed !== undefined && { aliases_allowed: areAliasesAllowed }),
    ...(isCatchAllAllowed !== undefined && { catch_all_allowed: isCatchAllAllowed }),
    ...('separator' in change && { separator: change.separator ?? null }),
    ...(overQuota !== undefined && { over_quota: overQuota }),
  }
}

/** A field that is missing stays; one that is undefined is unset. */
export async function updateUserPolicy(
  db: Database,
  domainId: number,
  userId: number,
  change: Partial<UserPolicy>,
): Promise<void> {
  const { loginDelaySeconds, expireDays } = change
  await db.kysely
    .updateTable('users')
    .set({
      ...('loginDelaySeconds' in change && { login_delay_seconds: loginDelaySeconds ?? null }),
      ...('expireDays' in change && { expire_days: expireDays ?? null }),
    })
    .where('domain_id', '=', domainId)
    .where('user_id', '=', userId)
    .execute()
}
