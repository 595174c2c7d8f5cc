/**
 * Everything that is stored sealed under POPGRES_SECRET_KEY (base/keyring.ts), for sealing it anew
 * under another key: batch by batch in the order of the primary keys, each row only if it is still
 * what was read. These queries are about keys, so they go through all domains.
 */
import { sql } from 'kysely'
import type { Database } from '../postgres/database.ts'

/** Table, column, and the primary key, in its order. */
const COLUMNS = {
  apop: { table: 'users', column: 'apop_secret', key: ['domain_id', 'user_id'] },
  scram: { table: 'users', column: 'scram_keys', key: ['domain_id', 'user_id'] },
  certificate: { table: 'certificates', column: 'private_key', key: ['host_name'] },
  oauth: { table: 'oauth_providers', column: 'client_secret', key: ['domain_id'] },
} as const

export type SealedKind = keyof typeof COLUMNS

export const SEALED_KINDS = Object.keys(COLUMNS) as SealedKind[]

/** Values of the primary key, in the order of COLUMNS. */
export type SealedKey = readonly (number | string)[]

export interface SealedRow {
  key: SealedKey
  sealed: Buffer
  /** SCRAM keys only: of the password that they were derived from, or of a later one. */
  passwordHash: string | undefined
}

export interface SealedCount {
  /** 8 hexadecimal digits, see base/keyring.ts. */
  keyId: string
  rows: number
}

/** @param after the key of the last row of the batch before */
export async function selectSealed(
  db: Database,
  kind: SealedKind,
  after: SealedKey | undefined,
  limit: number,
): Promise<SealedRow[]> {
  const { table, column, key } = COLUMNS[kind]
  const keys = sql.join(key.map((name) => sql.ref(name)))
  const isAfter = after === undefined ? sql`true` : sql`(${keys}) > (${sql.join(after)})`
  const hash = kind === 'scram' ? sql.ref('password_hash') : sql`null`
  const { rows } = await sql<
    Record<string, number | string> & {
      sealed: Buffer
      hash: string | null
    }
  >`select ${keys}, ${sql.ref(column)} as sealed, ${hash} as hash
    from ${sql.table(table)} where ${sql.ref(column)} is not null and ${isAfter}
    order by ${keys} limit ${limit}`.execute(db.kysely)
  return rows.map((row) => ({
    key: key.map((name) => row[name] ?? ''),
    sealed: row.sealed,
    passwordHash: row.hash ?? undefined,
  }))
}

/**
 * @param resealed null: takes it away
 * @returns false: it is no longer what was read
 */
export async function updateSealed(
  db: Database,
  kind: SealedKind,
  { key, sealed }: SealedRow,
  resealed: Buffer | null,
): Promise<boolean> {
  const { table, column, key: names } = COLUMNS[kind]
  const keys = sql.join(names.map((name) => sql.ref(name)))
  const { numAffectedRows } = await sql`update ${sql.table(table)}
    set ${sql.ref(column)} = ${resealed}
    where (${keys}) = (${sql.join(key)}) and ${sql.ref(column)} = ${sealed}`.execute(db.kysely)
  return numAffectedRows === 1n
}

/** How many rows name which key. */
export async function countSealed(db: Database, kind: SealedKind): Promise<SealedCount[]> {
  const { table, column } = COLUMNS[kind]
  const { rows } = await sql<SealedCount>`
    select encode(substring(${sql.ref(column)} for 4), 'hex') as "keyId", count(*) as rows
    from ${sql.table(table)} where ${sql.ref(column)} is not null
    group by 1 order by 1`.execute(db.kysely)
  return rows
}
