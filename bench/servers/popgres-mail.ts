/** The mail of the bench, put into Popgres's tables as deliveries would have left it. */
import argon2 from 'argon2'
import pg from 'pg'
import {
  accountsOf,
  DOMAIN,
  messageOf,
  PASSWORD,
  type Seed,
  type SeededAccount,
} from '../load/content.ts'

/** A maildrop that no other server has: many rows of one body. */
export interface ExtraMaildrop {
  localPart: string
  messages: number
  octets: number
  /** With unique-ids as an import brings them. */
  isImported: boolean
}

/** What Popgres hashes with. */
const ARGON2 = { type: argon2.argon2id, memoryCost: 19_456, timeCost: 2, parallelism: 1 }
const CHUNK_OCTETS = 8_096
const BATCH_OCTETS = 2_000_000
const BATCH_MESSAGES = 1_000

export async function seedMail(
  url: string,
  seed: Seed,
  extras: readonly ExtraMaildrop[],
  beforeVacuum: () => Promise<void>,
): Promise<void> {
  const client = new pg.Client(url)
  await client.connect()
  try {
    // Foreign keys need no check for each row.
    await client.query('set session_replication_role = replica')
    const { rows } = await client.query('insert into domains (name) values ($1) returning *', [
      DOMAIN,
    ])
    const domainId = Number(rows[0].domain_id)
    const accounts = [...accountsOf(seed), ...extras.map(asAccount)]
    const userIds = await insertUsers(client, domainId, accounts)
    await insertMessages(client, domainId, userIds, [...accountsOf(seed)])
    for (const extra of extras)
      await insertExtra(client, domainId, userIds.get(extra.localPart) ?? 0, extra)
    await beforeVacuum()
    await client.query(VACUUM)
    await client.query('checkpoint')
  } finally {
    await client.end()
  }
}

const VACUUM = 'vacuum (analyze)'

const asAccount = (extra: ExtraMaildrop): SeededAccount => ({
  ...extra,
  user: extra.localPart,
  address: `${extra.localPart}@${DOMAIN}`,
})

async function insertUsers(
  client: pg.Client,
  domainId: number,
  accounts: readonly SeededAccount[],
): Promise<Map<string, number>> {
  const hash = await argon2.hash(PASSWORD, ARGON2)
  const { rows } = await client.query<{ user_id: string; local_part: string }>(
    `insert into users (domain_id, local_part, password_hash)
     select $1, local_part, $3 from unnest($2::text[]) as local_part
     returning user_id, local_part`,
    [domainId, accounts.map(({ localPart }) => localPart), hash],
  )
  const userIds = new Map(rows.map((row) => [row.local_part, Number(row.user_id)]))
  await client.query(
    `insert into maildrops (domain_id, user_id, message_count, octets, next_uid)
     select $1, user_id, messages, messages::bigint * octets, messages + 1
     from unnest($2::bigint[], $3::integer[], $4::integer[]) as a (user_id, messages, octets)`,
    [
      domainId,
      accounts.map(({ localPart }) => userIds.get(localPart)),
      accounts.map(({ messages }) => messages),
      accounts.map(({ octets }) => octets),
    ],
  )
  return userIds
}

const INSERT_MESSAGES = `with given as materialized (
    select user_id, uid, octets, content, gen_random_uuid() as body_id
    from unnest($2::bigint[], $3::integer[], $4::integer[], $5::bytea[])
      as g (user_id, uid, octets, content)
  ), body as (
    insert into bodies (domain_id, body_id, octets) select $1, body_id, octets from given
  ), chunk as (
    insert into body_chunks (domain_id, body_id, seq, data)
    select $1, body_id, seq, substr(content, seq * ${CHUNK_OCTETS} + 1, ${CHUNK_OCTETS})
    from given, generate_series(0, (octets - 1) / ${CHUNK_OCTETS}) as seq
  )
  insert into messages (domain_id, user_id, uid, octets, body_id)
  select $1, user_id, uid, octets, body_id from given`

async function insertMessages(
  client: pg.Client,
  domainId: number,
  userIds: ReadonlyMap<string, number>,
  accounts: readonly SeededAccount[],
): Promise<void> {
  let batch: { userId: number; uid: number; content: Buffer }[] = []
  let octetsOfBatch = 0
  const flush = async (): Promise<void> => {
    await client.query(INSERT_MESSAGES, [
      domainId,
      batch.map(({ userId }) => userId),
      batch.map(({ uid }) => uid),
      batch.map(({ content }) => content.length),
      batch.map(({ content }) => content),
    ])
    batch = []
    octetsOfBatch = 0
  }
  for (const { user, localPart, messages, octets } of accounts) {
    const userId = userIds.get(localPart) ?? 0
    for (let uid = 1; uid <= messages; uid++) {
      batch.push({ userId, uid, content: messageOf(user, uid, octets) })
      octetsOfBatch += octets
      if (octetsOfBatch >= BATCH_OCTETS || batch.length === BATCH_MESSAGES) await flush()
    }
  }
  await flush()
}

async function insertExtra(
  client: pg.Client,
  domainId: number,
  userId: number,
  { localPart, messages, octets, isImported }: ExtraMaildrop,
): Promise<void> {
  const content = messageOf(localPart, 1, octets)
  await client.query(INSERT_MESSAGES, [domainId, [userId], [1], [octets], [content]])
  const uniqueId = isImported ? `'imported-' || md5(u.uid::text)` : 'null'
  await client.query(
    `insert into messages (domain_id, user_id, uid, octets, body_id, unique_id)
     select m.domain_id, m.user_id, u.uid, m.octets, m.body_id, ${uniqueId}
     from messages m, generate_series(2, $3::integer) as u (uid)
     where m.domain_id = $1 and m.user_id = $2`,
    [domainId, userId, messages],
  )
  if (isImported)
    await client.query(
      'update maildrops set has_unique_ids = true where domain_id = $1 and user_id = $2',
      [domainId, userId],
    )
}

const OF = (prefix: string): string => `(domain_id, user_id) in ${USERS(prefix)}`

const USERS = (prefix: string): string =>
  `(select u.domain_id, u.user_id from users u join domains d
      using (domain_id) where d.name = '${DOMAIN}' and u.local_part like '${prefix}-%')`

const RESTORE_DELETED = [
  `insert into messages (domain_id, user_id, uid, octets, body_id, prefix, unique_id, received_at)
   select domain_id, user_id, uid, octets, body_id, prefix, unique_id, received_at
   from trash where ${OF('delete')}`,
  `delete from trash where ${OF('delete')}`,
]

const REMOVE_DELIVERED = [
  `create temporary table gone as select domain_id, body_id from messages where ${OF('deliver')}
   union select domain_id, body_id from trash where ${OF('deliver')}`,
  `delete from messages where ${OF('deliver')}`,
  `delete from trash where ${OF('deliver')}`,
  `delete from body_chunks where (domain_id, body_id) in (table gone)`,
  `delete from bodies where (domain_id, body_id) in (table gone)`,
  `drop table gone`,
]

const COUNT_AGAIN = (prefix: string): string =>
  `update maildrops d set message_count = c.messages, octets = c.octets
   from (select p.domain_id, p.user_id, count(m.uid) as messages,
                coalesce(sum(m.octets), 0) as octets
         from maildrops p left join messages m using (domain_id, user_id)
         group by p.domain_id, p.user_id) c
   where d.domain_id = c.domain_id and d.user_id = c.user_id 
     and (d.domain_id, d.user_id) in ${USERS(prefix)}`

/** After a workload that deletes or delivers. */
export async function resetMail(url: string, workload: string): Promise<void> {
  const isDelivery = workload.startsWith('lmtp') || workload.startsWith('mixed-day')
  if (!isDelivery && !['retr-dele', 'quit'].includes(workload)) return
  const client = new pg.Client(url)
  await client.connect()
  try {
    await client.query('set session_replication_role = replica')
    for (const statement of isDelivery ? REMOVE_DELIVERED : RESTORE_DELETED)
      await client.query(statement)
    await client.query(COUNT_AGAIN(isDelivery ? 'deliver' : 'delete'))
    await client.query(VACUUM)
    await client.query('checkpoint')
  } finally {
    await client.end()
  }
}
