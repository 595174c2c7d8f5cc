/**
 * Whom an address names at RCPT, in one statement: the user of that name and, only if there is
 * none, what else an address may be (an alias, a name before a separator, a catch-all, any of these
 * in the domain that this one stands for). What and in which order is in
 * migrations/0012_addresses.sql, for those who ask by SQL alike.
 */
import { addressSql, hasNul, newestSql } from '../accounts.ts'
import type { Database, Statement } from '../postgres/database.ts'
import { decodeInt4, decodeInt8, decodeText, present } from '../postgres/decode.ts'
import type { RawRow } from '../postgres/raw-connection.ts'

export interface Recipient {
  domainId: number
  userId: number
  domainName: string
  localPart: string
  /** the user's own quota or the domain's */
  isOverQuota: boolean
  /** what its domain says when there is no room: 552 rather than 452 */
  isRefusedWhenFull: boolean
}

// What tells whether there is room is asked for only of who has a quota.
const OVER_QUOTA_SQL = `coalesce(case when num_nonnulls(r.quota_octets, r.quota_messages) > 0 then (
        select coalesce(m.octets, 0) >= r.quota_octets
          or coalesce(m.message_count, 0) >= r.quota_messages
        from (select) one left join lateral (
          select m.octets, m.message_count from maildrops m
          where m.domain_id = r.domain_id and ${newestSql('m.user_id', 'r.user_id')}
        ) m on true) end
      or (select coalesce(q.octets >= q.quota_octets, false)
          or coalesce(q.message_count >= q.quota_messages, false)
        from domain_quotas q where q.domain_id = r.domain_id), false)`

const OVER_QUOTA = 1
const REFUSED_WHEN_FULL = 2

// The function is not called for the name of a user. Null stands for 0: four octets of each answer.
export const RECIPIENT: Statement = {
  name: 'recipient',
  text: `with named as materialized (
    select d.domain_id, u.user_id, d.name, u.local_part, u.quota_octets, u.quota_messages,
      d.over_quota
    from domains d join users u on u.domain_id = d.domain_id
    where ${addressSql('$1', '$2')}
  )
  select r.domain_id, r.user_id, r.name, r.local_part,
    nullif(case when ${OVER_QUOTA_SQL} then ${OVER_QUOTA} else 0 end
      + case r.over_quota when 'refuse' then ${REFUSED_WHEN_FULL} else 0 end, 0)
  from (
    select * from named
    union all
    select d.domain_id, u.user_id, d.name, u.local_part, u.quota_octets, u.quota_messages,
      d.over_quota
    from other_recipients($1, $2) o
      join domains d on d.domain_id = o.domain_id
      join users u on u.domain_id = o.domain_id and u.user_id = o.user_id
    where not exists (select from named)
  ) r`,
}

/**
 * @returns nobody if there is no such address; several users, each once, of an alias. A suspended
 *   one still receives mail. `isOverQuota` is for an early no: what counts is decided when the
 *   message is delivered
 */
export async function selectRecipients(
  db: Database,
  domainName: string,
  localPart: string,
): Promise<Recipient[]> {
  if (hasNul(domainName) || hasNul(localPart)) return []
  return (await db.hotOrBulk(RECIPIENT, [domainName, localPart])).map(toRecipient)
}

function toRecipient(row: RawRow): Recipient {
  const flags = row[4] ? decodeInt4(row[4]) : 0
  return {
    domainId: decodeInt4(present(row, 0)),
    userId: decodeInt8(present(row, 1)),
    domainName: decodeText(present(row, 2)),
    localPart: decodeText(present(row, 3)),
    isOverQuota: (flags & OVER_QUOTA) > 0,
    isRefusedWhenFull: (flags & REFUSED_WHEN_FULL) > 0,
  }
}
