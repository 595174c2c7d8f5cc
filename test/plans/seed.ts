/**
 * A database as large as plans need it, and as uneven as a mail host is: 4,001 domains, of which one
 * has 1,000 users and the others one each; 50,000 messages, and something in every other table.
 * Vacuumed and analyzed over all rows, so that nothing of a plan depends on which rows were sampled.
 */
import type { Client } from 'pg'

const USERS = 5_000
const LARGE_DOMAIN_USERS = 1_000
const DOMAINS = 1 + USERS - LARGE_DOMAIN_USERS
const MESSAGES_EACH = 10

const bodyId = (user: string, number: string): string => `md5(${user} || '/' || ${number})::uuid`

/** `u` are users, in the columns user_id and domain_id. */
const EVERYBODY = `(select n::bigint as user_id, greatest(1, n - ${LARGE_DOMAIN_USERS - 1}) as domain_id
    from generate_series(1, ${USERS}) n) u`

const STATEMENTS = [
  // No foreign key is checked while seeding: 50,000 times two look-ups.
  `set session_replication_role = replica`,
  `insert into domains (domain_id, name, login_delay_seconds)
   select n, 'd' || n || '.example', case when n % 50 = 0 then 60 else 0 end
   from generate_series(1, ${DOMAINS}) n`,
  `insert into users (domain_id, user_id, local_part, password_hash, apop_secret, quota_octets,
     login_delay_seconds)
   select domain_id, user_id, 'u' || user_id, '$argon2id$v=19$m=19456,t=2,p=1$' || repeat('s', 66),
     case when user_id % 20 = 0 then '\\x00'::bytea end, 1000000000,
     case when user_id % 50 = 0 then 60 end
   from ${EVERYBODY}`,
  `insert into maildrops (domain_id, user_id, message_count, octets, next_uid)
   select domain_id, user_id, ${MESSAGES_EACH}, ${MESSAGES_EACH} * 1000, ${MESSAGES_EACH} + 1
   from ${EVERYBODY}`,
  `insert into bodies (domain_id, body_id, octets, created_at)
   select domain_id, ${bodyId('user_id', 'i')}, 1000, now() - i * interval '2 days'
   from ${EVERYBODY}, generate_series(1, ${MESSAGES_EACH}) i`,
  `insert into body_chunks (domain_id, body_id, seq, data)
   select domain_id, body_id, 0, convert_to(repeat('x', 100), 'UTF8') from bodies`,
  `insert into messages (domain_id, user_id, uid, octets, body_id, prefix, unique_id, received_at)
   select domain_id, user_id, i, 1000, ${bodyId('user_id', 'i')}, repeat('p', 150)::bytea,
     case when user_id % 10 = 0 then 'old-' || i end, now() - i * interval '2 days'
   from ${EVERYBODY}, generate_series(1, ${MESSAGES_EACH}) i order by i`,
  `insert into trash (domain_id, user_id, uid, octets, body_id, received_at, session_id, deleted_at)
   select domain_id, user_id, 1000 + i, 1000, ${bodyId('user_id', 'i')},
     now() - interval '10 days', gen_random_uuid(), now() - i * interval '4 days'
   from ${EVERYBODY}, generate_series(1, 2) i`,
  `insert into session_log (domain_id, user_id, session_id, ended_at, deleted)
   select domain_id, user_id, gen_random_uuid(), now(), 1
   from ${EVERYBODY}, generate_series(1, 2) i`,
  `insert into imported (domain_id, user_id, digest, copy)
   select domain_id, user_id, sha256(convert_to(user_id || '/' || i, 'UTF8')), 1
   from ${EVERYBODY}, generate_series(1, 2) i`,
  `insert into nodes (node_id, hostname, pid, version)
   select md5(n::text)::uuid, 'node' || n, n, '0.1.0' from generate_series(1, 64) n`,
  `insert into sessions (domain_id, user_id, session_id, node_id, client, since)
   select domain_id, user_id, gen_random_uuid(), md5((1 + user_id / 5 % 64)::text)::uuid,
     '192.0.2.1', now()
   from ${EVERYBODY} where user_id % 5 = 0`,
  `insert into credentials (domain_id, user_id, kind, name, digest)
   select domain_id, user_id, case when i = 3 then 'certificate' else 'app-password' end, 'c' || i,
     sha256(convert_to(user_id || '/' || i, 'UTF8'))
   from ${EVERYBODY}, generate_series(1, 3) i`,
  `insert into known_networks (domain_id, user_id, network, seen_at)
   select domain_id, user_id, '192.0.2.' || i, now() - i * interval '20 hours'
   from ${EVERYBODY}, generate_series(1, 2) i`,
  `insert into last_logins (domain_id, user_id, logged_in_at)
   select domain_id, user_id, now() from ${EVERYBODY}`,
  `insert into throttles (key, failures, recent, updated_at)
   select 'network 198.51.' || n / 256 || '.' || n % 256, 5, array[]::bytea[], now()
   from generate_series(1, 5000) n`,
  `insert into domain_hosts (domain_id, host_name)
   select n, 'pop.d' || n || '.example' from generate_series(1, ${DOMAINS}) n`,
  // Many domains have some, few have a quota.
  `insert into aliases (domain_id, local_part, position, target_domain_id, target_user_id)
   select domain_id, 'a' || user_id, 1, domain_id, user_id from ${EVERYBODY}`,
  `insert into domain_quotas (domain_id, quota_octets, octets, message_count)
   select n, 1000000000, 10000, 10 from generate_series(1, ${DOMAINS}, 20) n`,
  `insert into certificates (host_name, chain, private_key)
   select 'pop.d' || n || '.example', '-----BEGIN CERTIFICATE-----' || repeat('x', 1500),
     repeat('k', 300)::bytea
   from generate_series(1, ${DOMAINS}) n`,
  `insert into oauth_providers (domain_id, issuer, jwks_uri)
   select n, 'https://id.d' || n || '.example', 'https://id.d' || n || '.example/jwks'
   from generate_series(1, ${DOMAINS}) n`,
  // A domain in forty, and a user in fifty.
  `insert into legal_holds (domain_id, user_id, reason)
   select n, null, 'case ' || n from generate_series(1, ${DOMAINS}, 40) n`,
  `insert into legal_holds (domain_id, user_id, reason)
   select domain_id, user_id, 'case ' || user_id from ${EVERYBODY} where user_id % 50 = 0`,
  `insert into held_users (domain_id, user_id, hold_id)
   select u.domain_id, u.user_id, h.hold_id
   from legal_holds h join users u on u.domain_id = h.domain_id
   where h.user_id is null or h.user_id = u.user_id`,
  `insert into leaders (task, holder, hostname, pid, since, renewed_at)
   values ('background work', gen_random_uuid(), 'node1', 1, now(), now())`,
  // Who is added afterwards has ids of its own.
  `select setval(pg_get_serial_sequence('domains', 'domain_id'), ${DOMAINS})`,
  `select setval(pg_get_serial_sequence('users', 'user_id'), ${USERS})`,
  `set session_replication_role = origin`,
  `set default_statistics_target = 1000`,
  `vacuum analyze`,
]

/** @param client logged in as a superuser to a database with the schema and no rows */
export async function seed(client: Client): Promise<void> {
  for (const statement of STATEMENTS) await client.query(statement)
}
