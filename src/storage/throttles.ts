/**
 * What the nodes remember together of failed logins, and from where users log in. A row of
 * `throttles` is a key (its first word is its kind) and a count that fades evenly with time, by
 * the database's clock. The rules that turn counts into delays are in mail/auth/throttle.ts.
 */
import { sql } from 'kysely'
import type { Database, Statement } from './postgres/database.ts'
import { decodeText, present } from './postgres/decode.ts'
import { amongSql, askEverywhere } from './postgres/holders.ts'
import type { RawRow } from './postgres/raw-connection.ts'

/**
 * How many failures an hour fade away, and how many are counted at most. Evenly, not by half-lives:
 * so what a burst of guesses side by side has gained is paid for by a longer wait.
 */
const KINDS = {
  network: { fadePerHour: 60, most: 200 },
  user: { fadePerHour: 6, most: 100 },
  known: { fadePerHour: 12, most: 100 },
  domain: { fadePerHour: 600, most: 1_000 },
} as const

export type ThrottleKind = keyof typeof KINDS

/** LIMIT: rows that stay while somebody makes up names faster than they fade. */
const ROWS_MAX = 100_000
/** LIMIT: wrong proofs that each key remembers. */
const PROOFS_MAX = 8

/** Failures by key, faded as of now; a key that is not in it has none. */
export type ThrottleCounts = ReadonlyMap<string, number>
const NO_FAILURES: ThrottleCounts = new Map()

export interface ThrottleRow {
  key: string
  /** faded as of now, not whole */
  failures: number
  updatedAt: Date
}

const byKind = (column: 'fadePerHour' | 'most'): string => {
  const cases = Object.entries(KINDS).map(
    ([kind, { [column]: value }]) => `'${kind}' then ${value}`,
  )
  return `case split_part(t.key, ' ', 1) when ${cases.join(' when ')} else 0 end`
}

const fadedAt = (time: string): string => `greatest(0, t.failures
      - (${byKind('fadePerHour')}) * extract(epoch from ${time} - t.updated_at) / 3600)`
const FADED = fadedAt('now()')

/** SQL: the rows whose keys are in `keys` (a text[] parameter), as one text for decodeThrottles. */
export const throttlesSql = (
  keys: string,
): string => `(select json_object_agg(t.key, ${FADED})::text
    from throttles t where t.key = any (${keys}::text[]))`

/** @param field of throttlesSql; null where there is no row */
export function decodeThrottles(field: Buffer | null | undefined): ThrottleCounts {
  return field ? new Map(Object.entries(JSON.parse(decodeText(field)))) : NO_FAILURES
}

/**
 * SQL about a user: null if the user did not lately log in from the network
 * that is in `parameter`; else whether that is noted well enough that a login writes nothing.
 */
export const noticeSql = (parameter: string, domainId: string, userId: string): string => `(
        select k.seen_at > now() - interval '1 day' from known_networks k
        where k.domain_id = ${domainId} and k.user_id = ${userId}
          and k.network = ${parameter}::text and k.seen_at > now() - interval '30 days')`

export const THROTTLES: Statement = {
  name: 'throttles',
  text: `select ${throttlesSql('$1')}`,
}

// In the order of the keys, so that two never wait for each other in a circle. A proof that one of
// the keys remembers has been counted.
export const COUNT_FAILURE: Statement = {
  name: 'throttles-count',
  text: `insert into throttles as t (key, failures, recent, updated_at)
  select w.key, 1, array[$2::bytea], now()
  from unnest($1::text[]) as w (key)
  where not exists (
    select from throttles s where s.key = any ($1::text[]) and $2::bytea = any (s.recent))
  order by w.key
  on conflict (key) do update
    set failures = least(${byKind('most')}, ${fadedAt('excluded.updated_at')} + 1),
      recent = (t.recent || excluded.recent)
        [greatest(1, cardinality(t.recent) - ${PROOFS_MAX - 2}):],
      updated_at = excluded.updated_at`,
}

// The key that proofs are digested with where there is no POPGRES_SECRET_KEY. It goes with the
// digests when a crash empties the table.
export const PROOF_KEY: Statement = {
  name: 'throttles-proof-key',
  text: `select recent[1] from throttles where key = 'proof-key'`,
}

export const MAKE_PROOF_KEY: Statement = {
  name: 'throttles-make-proof-key',
  text: `insert into throttles (key, failures, recent, updated_at)
  select 'proof-key', 0, array[$1::bytea], now()
  on conflict (key) do nothing`,
}

export const NOTE_NETWORK: Statement = {
  name: 'known-networks-note',
  text: `insert into known_networks (domain_id, user_id, network, seen_at)
  values ($1, $2, $3, now())
  on conflict (domain_id, user_id, network) do update set seen_at = excluded.seen_at`,
}

export const SWEEP_THROTTLES: Statement = {
  name: 'throttles-sweep',
  text: `delete from throttles t where t.key <> 'proof-key' and (${FADED} = 0 or t.key in (
    select f.key from throttles f order by f.failures desc, f.updated_at desc offset ${ROWS_MAX}))`,
}

// Of all domains: rows without a user go with those that are too old.
export const SWEEP_KNOWN_NETWORKS: Statement = {
  name: 'known-networks-sweep',
  text: `delete from known_networks k
  where ${amongSql('k.domain_id', '$1')} and (k.seen_at <= now() - interval '30 days'
    or not exists (
      select from users u where u.domain_id = k.domain_id and u.user_id = k.user_id
        and ${amongSql('u.domain_id', '$1')}))`,
}

export async function selectThrottles(
  db: Database,
  keys: readonly string[],
): Promise<ThrottleCounts> {
  const [row] = await db.hotOrBulk(THROTTLES, [keys])
  return decodeThrottles(row?.[0])
}

/**
 * Adds one failure to each key, unless one of them remembers the proof.
 * @param proof keyed digest of what was proved wrongly, the same on all nodes
 */
export async function countFailure(
  db: Database,
  keys: readonly string[],
  proof: Buffer,
): Promise<void> {
  await db.hotOrBulk(COUNT_FAILURE, [keys, proof])
}

/**
 * @param candidate becomes the key if there is none yet
 * @returns the one that all nodes use
 */
export async function shareProofKey(db: Database, candidate: Buffer): Promise<Buffer> {
  const [known] = await db.hotOrBulk(PROOF_KEY, [])
  if (known !== undefined) return proofKeyOf(known)
  await db.hotOrBulk(MAKE_PROOF_KEY, [candidate])
  const [row] = await db.hotOrBulk(PROOF_KEY, [])
  return row === undefined ? candidate : proofKeyOf(row)
}

const proofKeyOf = (row: RawRow): Buffer => Buffer.from(present(row, 0))

export async function noteNetwork(
  db: Database,
  domainId: number,
  userId: number,
  network: string,
): Promise<void> {
  await db.hot(NOTE_NETWORK, [domainId, userId, network])
}

/** Rows that have faded, those beyond the bound, and networks that nobody came from for a month. */
export async function sweepThrottles(db: Database): Promise<void> {
  await db.bulk(SWEEP_THROTTLES, [])
  const sweep = (among: string | null) => db.bulk(SWEEP_KNOWN_NETWORKS, [among])
  await askEverywhere(db, sweep)
}

/** The most failures first. */
export async function selectThrottleRows(db: Database): Promise<ThrottleRow[]> {
  const { rows } = await sql<{ key: string; faded: number; updated_at: Date }>`
    select t.key, (${sql.raw(FADED)})::float8 as faded, t.updated_at
    from throttles t where t.key <> 'proof-key' and ${sql.raw(FADED)} > 0
    order by faded desc, t.key`.execute(db.kysely)
  return rows.map((row) => ({ key: row.key, failures: row.faded, updatedAt: row.updated_at }))
}

/**
 * @param subject an address, a domain or a network; undefined: all
 * @returns how many rows there were
 */
export async function clearThrottles(db: Database, subject: string | undefined): Promise<number> {
  const { rows } = await sql<{ cleared: number }>`
    select clear_throttle(${subject ?? null}) as cleared`.execute(db.kysely)
  return rows[0]?.cleared ?? 0
}
