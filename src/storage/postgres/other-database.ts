/**
 * Another server's PostgreSQL, read when its users move in: one connection that may not write, in
 * one transaction, so that all that is read is of one moment. Rows come through cursors: what a
 * query finds is never in memory as a whole.
 */
import { Client } from 'pg'
import { Failure } from '../../base/failure.ts'
import type { Secret } from '../../base/secret.ts'

export type OtherRow = Readonly<Record<string, unknown>>

export interface OtherDatabase {
  /** @throws {Failure} OPERATION_REFUSED if the query is wrong, or the database gone */
  rows(query: string, values?: readonly unknown[], atOnce?: number): AsyncGenerator<OtherRow>
  close(): Promise<void>
}

/** LIMIT: rows in memory, unless a caller knows that they are large. */
const ROWS_AT_ONCE = 500

/** @throws {Failure} OPERATION_REFUSED with what the database said */
export async function openOtherDatabase(url: Secret): Promise<OtherDatabase> {
  const client = new Client({
    connectionString: url.reveal().toString('utf8'),
    application_name: 'popgres import',
    connectionTimeoutMillis: 10_000,
  })
  client.on('error', () => {}) // the query that waits is told
  try {
    await client.connect()
    await client.query('begin isolation level repeatable read read only')
  } catch (error) {
    client.end().catch(() => {}) // may never come to an end where nothing began
    throw otherFailure(error)
  }
  let cursors = 0
  return {
    rows: (query, values = [], atOnce = ROWS_AT_ONCE) =>
      readRows(client, `other_${++cursors}`, query, values, atOnce),
    close: () => client.end(),
  }
}

async function* readRows(
  client: Client,
  cursor: string,
  query: string,
  values: readonly unknown[],
  atOnce: number,
): AsyncGenerator<OtherRow> {
  const ask = (text: string, parameters: readonly unknown[] = []) =>
    client.query<Record<string, unknown>>(text, [...parameters]).catch((error) => {
      throw otherFailure(error)
    })
  await ask(`declare ${cursor} no scroll cursor for ${query}`, values)
  for (;;) {
    const { rows } = await ask(`fetch ${atOnce} from ${cursor}`)
    yield* rows
    if (rows.length < atOnce) break
  }
  await ask(`close ${cursor}`)
}

/** PostgreSQL's own errors are the operator's to read; they hold no password. */
function otherFailure(error: unknown): Failure {
  const { code = '', message } = error as { code?: string; message: string }
  return /^[0-9A-Z]{5}$/.test(code)
    ? new Failure('OPERATION_REFUSED', `the old server's database says: ${message}`, error)
    : new Failure(
        'OPERATION_REFUSED',
        `the old server's database is not reached: ${message}`,
        error,
      )
}
