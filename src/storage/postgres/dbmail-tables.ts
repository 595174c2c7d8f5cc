/**
 * The tables of a DBMail (3, and messages that its version 2 wrote), read. A message lies there as
 * parts: each part's header, then its body, in the order of part_key and part_order; how deep in
 * the message a part lies says part_depth. Times are in UTC. POP3 there shows the INBOX, but what
 * has the status deleted (2) or more, in the order of message_idnr.
 */
import type { OtherDatabase, OtherRow } from './other-database.ts'

export interface DbmailUser {
  userId: string
  name: string
  password: string
  encryption: string
  quotaOctets: string
  /** An address that is delivered to this user; undefined: none. */
  alias: string | undefined
}

export interface DbmailMessage {
  messageId: string
  physmessageId: string
  uniqueId: string
  octets: number
  receivedAt: Date | undefined
}

export interface DbmailPart {
  partId: string
  depth: number
  isHeader: boolean
  octets: number
}

/** DBMail's own, who never log in. */
const USERS = `
  select u.user_idnr, u.userid, u.passwd, u.encryption_type, u.maxmail_size, (
    select a.alias from dbmail_aliases a
    where a.deliver_to = u.user_idnr::text and a.alias like '%_@_%' order by a.alias_idnr limit 1
  ) as alias
  from dbmail_users u
  where u.userid not in ('__@!internal_delivery_user!@__', '__public__', 'anyone')
  order by u.userid`

const MESSAGES = `
  select m.message_idnr, m.physmessage_id, m.unique_id, p.rfcsize,
    p.internal_date at time zone 'UTC' as received_at
  from dbmail_messages m join dbmail_mailboxes b on b.mailbox_idnr = m.mailbox_idnr
    join dbmail_physmessage p on p.id = m.physmessage_id
  where b.owner_idnr = $1::bigint and lower(b.name) = 'inbox' and m.status < 2
  order by m.message_idnr`

const PARTS = `
  select l.part_id, l.part_depth, l.is_header, octet_length(p.data) as octets
  from dbmail_partlists l join dbmail_mimeparts p on p.id = l.part_id
  where l.physmessage_id = $1::bigint order by l.part_key, l.part_order`

const STRETCH =
  'select substring(data from $2 for $3) as data from dbmail_mimeparts where id = $1::bigint'

const BLOCKS = `
  select messageblk as data from dbmail_messageblks
  where physmessage_id = $1::bigint order by messageblk_idnr`

/** LIMIT: of one part at once in memory. */
const STRETCH_OCTETS = 262_144

const text = (value: unknown): string => String(value ?? '')

export async function* readDbmailUsers(db: OtherDatabase): AsyncGenerator<DbmailUser> {
  for await (const row of db.rows(USERS))
    yield {
      userId: text(row.user_idnr),
      name: text(row.userid),
      password: text(row.passwd),
      encryption: text(row.encryption_type),
      quotaOctets: text(row.maxmail_size),
      alias: row.alias === null ? undefined : text(row.alias),
    }
}

export async function* readDbmailMessages(
  db: OtherDatabase,
  userId: string,
): AsyncGenerator<DbmailMessage> {
  for await (const row of db.rows(MESSAGES, [userId]))
    yield {
      messageId: text(row.message_idnr),
      physmessageId: text(row.physmessage_id),
      uniqueId: text(row.unique_id),
      octets: Number(row.rfcsize ?? 0),
      receivedAt: row.received_at instanceof Date ? row.received_at : undefined,
    }
}

export async function readDbmailParts(
  db: OtherDatabase,
  physmessageId: string,
): Promise<DbmailPart[]> {
  const parts: DbmailPart[] = []
  for await (const row of db.rows(PARTS, [physmessageId]))
    parts.push({
      partId: text(row.part_id),
      depth: Number(row.part_depth),
      isHeader: Number(row.is_header) === 1 || row.is_header === true,
      octets: Number(row.octets),
    })
  return parts
}

export async function* readDbmailPart(
  db: OtherDatabase,
  { partId, octets }: DbmailPart,
): AsyncGenerator<Buffer> {
  for (let from = 1; from <= octets; from += STRETCH_OCTETS)
    for await (const row of db.rows(STRETCH, [partId, from, STRETCH_OCTETS])) yield octetsOf(row)
}

/** What version 2 wrote; nothing where there is no such table any more. */
export async function* readDbmailBlocks(
  db: OtherDatabase,
  physmessageId: string,
): AsyncGenerator<Buffer> {
  for await (const row of db.rows("select to_regclass('dbmail_messageblks') is null as is_gone"))
    if (row.is_gone === true) return
  for await (const row of db.rows(BLOCKS, [physmessageId], 1)) yield octetsOf(row)
}

function octetsOf({ data }: OtherRow): Buffer {
  return data instanceof Buffer ? data : Buffer.alloc(0)
}
