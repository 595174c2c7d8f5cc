/**
 * The bytes of messages, in chunks: bounded memory on both sides, and they can be written while the
 * sender is still sending. A body that no message row names is invisible; the sweep (retention.ts)
 * takes it after a day.
 */
import { randomUUID } from 'node:crypto'
import { assert } from '../base/assert.ts'
import type { Database, Statement } from './postgres/database.ts'
import { present } from './postgres/decode.ts'

/** Of every chunk but a body's last. Measured: larger ones cost memory and gain no speed. */
export const CHUNK_OCTETS = 262_144

export const INSERT_BODY: Statement = {
  name: 'body-insert',
  text: 'insert into bodies (domain_id, body_id) values ($1, $2)',
}

export const INSERT_CHUNK: Statement = {
  name: 'chunk-insert',
  text: 'insert into body_chunks (domain_id, body_id, seq, data) values ($1, $2, $3, $4)',
}

export const CHUNK: Statement = {
  name: 'chunk',
  text: 'select data from body_chunks where domain_id = $1 and body_id = $2 and seq = $3',
}

/**
 * A UUID that grows with time (RFC 9562 §5.7): new bodies lie side by side in the three indexes
 * that hold their ids. Random ones fell on a page of their own each: with 400,000 bodies that was
 * 1.7 full-page images a message after a checkpoint (11 KB of WAL), with these 0.008 (0.7 KB).
 */
export function newBodyId(): string {
  const time = Date.now().toString(16).padStart(12, '0')
  return `${time.slice(0, 8)}-${time.slice(8)}-7${randomUUID().slice(15)}`
}

/** Begins a body that arrives in chunks; the delivering statement writes its size. */
export async function insertBody(db: Database, domainId: number, bodyId: string): Promise<void> {
  await db.hotOrBulk(INSERT_BODY, [domainId, bodyId])
}

/** @param seq 0, 1, 2, …; `data` has CHUNK_OCTETS, the last chunk 1 to CHUNK_OCTETS */
export async function insertChunk(
  db: Database,
  domainId: number,
  bodyId: string,
  seq: number,
  data: Buffer,
): Promise<void> {
  assert(data.length >= 1 && data.length <= CHUNK_OCTETS, 'a chunk has 1 to CHUNK_OCTETS octets')
  await db.bulk(INSERT_CHUNK, [domainId, bodyId, seq, data])
}

/** One query a chunk: no transaction and no connection is held while a client reads slowly. */
export async function selectChunk(
  db: Database,
  domainId: number,
  bodyId: string,
  seq: number,
): Promise<Buffer | undefined> {
  const [row] = await db.bulk(CHUNK, [domainId, bodyId, seq])
  return row && present(row, 0)
}
