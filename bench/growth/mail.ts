/** Users and mail by the million: made by SQL inside the database, in seconds. */
import pg from 'pg'
import { DOMAIN, messageOf } from '../load/content.ts'

const ADD_USERS = `
  insert into users (domain_id, local_part, password_hash)
  select d.domain_id, $1 || number, u.password_hash
  from domains d join users u on u.domain_id = d.domain_id and u.local_part = 'u1'
    cross join generate_series($2::integer, $3::integer) number
  where d.name = '${DOMAIN}'`

const CHUNK_OCTETS = 8_096

/** Costs no argon2: for thousands of first logins. */
export const APP_PASSWORD = 'abcdefghijklmnopqrstuvwx'

const ADD_APP_PASSWORDS = `
  insert into credentials (domain_id, user_id, kind, name, digest)
  select u.domain_id, u.user_id, 'app-password', 'growth', sha256(convert_to($2, 'UTF8'))
  from users u where u.local_part ~ ('^' || $1 || '\\d+$')`

const ADD_MAILDROPS = `
  insert into maildrops (domain_id, user_id)
  select u.domain_id, u.user_id from users u where u.local_part ~ ('^' || $1 || '\\d+$')
  on conflict do nothing`

// Each message has a body of its own with the octets of one: what counts is how many there are.
const ADD_MESSAGES = `
  with template as (select $1::bytea as data), owner as (
    select m.domain_id, m.user_id, m.next_uid, row_number() over (order by m.user_id) - 1 as place
    from users u join maildrops m on m.domain_id = u.domain_id and m.user_id = u.user_id
    where u.local_part ~ ('^' || $2 || '\\d+$')
  ), fresh as materialized (
    select gen_random_uuid() as body_id, number,
      number % (select count(*) from owner) as place, number / (select count(*) from owner) as turn
    from generate_series(0, $3::integer - 1) number
  ), body as (
    insert into bodies (domain_id, body_id, octets)
    select (select min(domain_id) from owner), body_id, octet_length(data) from fresh, template
    returning 1
  ), chunk as (
    insert into body_chunks (domain_id, body_id, seq, data)
    select (select min(domain_id) from owner), body_id, seq,
      substr(data, seq * ${CHUNK_OCTETS} + 1, ${CHUNK_OCTETS})
    from fresh, template, generate_series(0, (octet_length(data) - 1) / ${CHUNK_OCTETS}) as seq
  ), message as (
    insert into messages (domain_id, user_id, uid, octets, body_id)
    select o.domain_id, o.user_id, o.next_uid + f.turn, octet_length(t.data), f.body_id
    from fresh f join owner o on o.place = f.place cross join template t
    where exists (select from body)
    returning user_id, octets
  )
  update maildrops m
  set message_count = message_count + a.count, octets = m.octets + a.octets,
    next_uid = next_uid + a.count
  from (select user_id, count(*)::integer as count, sum(octets)::bigint as octets
        from message group by user_id) a
  where m.domain_id = (select min(domain_id) from owner) and m.user_id = a.user_id`

export class Mail {
  readonly #client: pg.Client

  static async open(databaseUrl: string): Promise<Mail> {
    const client = new pg.Client({ connectionString: databaseUrl, application_name: 'growth' })
    await client.connect()
    return new Mail(client)
  }

  private constructor(client: pg.Client) {
    this.#client = client
  }

  /** `<prefix><from>` to `<prefix><to>`, with maildrops and the password of all. */
  async addUsers(prefix: string, from: number, to: number): Promise<void> {
    await this.#client.query(ADD_USERS, [prefix, from, to])
    await this.#client.query(ADD_MAILDROPS, [prefix])
  }

  async addAppPasswords(prefix: string): Promise<void> {
    await this.#client.query(ADD_APP_PASSWORDS, [prefix, APP_PASSWORD])
  }

  /** Spread evenly over the users with that prefix; neighbours in a maildrop are not on disk. */
  async addMessages(prefix: string, count: number, octets: number): Promise<void> {
    const body = messageOf(1, 1, octets)
    const batch = Math.max(1, Math.min(count, Math.floor(500_000_000 / octets), 200_000))
    for (let left = count; left > 0; left -= batch)
      await this.#client.query(ADD_MESSAGES, [body, prefix, Math.min(left, batch)])
  }

  /** As autovacuum leaves it when it comes. */
  async settle(): Promise<void> {
    await this.#client.query('vacuum analyze')
    await this.#client.query('checkpoint')
  }

  async databaseGb(): Promise<number> {
    const sql = 'select pg_database_size(current_database())::float8 / 1e9 as gb'
    const { rows } = await this.#client.query<{ gb: number }>(sql)
    return rows[0]?.gb ?? 0
  }

  /** What a pg_dump does for as long as it runs: nothing that died since then can be removed. */
  async holdSnapshot(): Promise<void> {
    await this.#client.query('begin isolation level repeatable read')
    await this.#client.query('select count(*) from domains')
  }

  async releaseSnapshot(): Promise<void> {
    await this.#client.query('rollback')
  }

  close(): Promise<void> {
    return this.#client.end()
  }
}
