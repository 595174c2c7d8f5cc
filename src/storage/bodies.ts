/**
 * The bytes of messages. They are stored in chunks, rows that fill a page of the table each, and
 * travel in stretches of many chunks: bounded memory on both sides, and they can be written while
 * the sender is still sending. A body that no message row names is invisible; the sweep
 * (retention.ts) takes it after a day.
 */
import { randomUUID } from 'node:crypto'
import { assert } from '../base/assert.ts'
import { Failure } from '../base/failure.ts'
import type { Database, Statement } from './postgres/database.ts'
import { present } from './postgres/decode.ts'
import type { RowMemory } from './postgres/row-memory.ts'

/** Of every chunk but a body's last: what a page holds, see migrations/0009_page_chunks.sql. */
export const CHUNK_OCTETS = 8_096

export const STRETCH_CHUNKS = 32
/** Of every stretch but a body's last. Measured: longer ones cost memory and gain no speed. */
export const STRETCH_OCTETS = STRETCH_CHUNKS * CHUNK_OCTETS

/**
 * SQL: rows of `seq` and `data`, the chunks of a bytea; none of an empty one. To be joined with
 * what `octets` names.
 */
export function chunksOf(octets: string): string {
  return `(
      select seq::integer, substr(${octets}, seq * ${CHUNK_OCTETS} + 1, ${CHUNK_OCTETS}) as data
      from generate_series(0, (octet_length(${octets}) + ${CHUNK_OCTETS - 1}) / ${CHUNK_OCTETS} - 1)
        as seq)`
}

export const INSERT_BODY: Statement = {
  name: 'body-insert',
  text: 'insert into bodies (domain_id, body_id) values ($1, $2)',
}

export const INSERT_STRETCH: Statement = {
  name: 'stretch-insert',
  text: `insert into body_chunks (domain_id, body_id, seq, data)
  select $1, $2::uuid, $3::integer + c.seq, c.data from ${chunksOf('$4::bytea')} c`,
}

// The foreign keys keep one that is named.
export const DISCARD_BODY: Statement = {
  name: 'body-discard',
  text: 'delete from bodies b where b.domain_id = $1 and b.body_id = $2::uuid',
}

export const STRETCH: Statement = {
  name: 'stretch',
  text: `select data from body_chunks
  where domain_id = $1 and body_id = $2
    and seq between $3::integer and $3::integer + ${STRETCH_CHUNKS - 1}
  order by seq`,
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

/** Begins a body that arrives in stretches; the delivering statement writes its size. */
export async function insertBody(db: Database, domainId: number, bodyId: string): Promise<void> {
  await db.hotOrBulk(INSERT_BODY, [domainId, bodyId])
}

/** Takes a body that came for nothing. @throws {Failure} also if a message names it */
export async function discardBody(db: Database, domainId: number, bodyId: string): Promise<void> {
  await db.bulk(DISCARD_BODY, [domainId, bodyId])
}

/** @param nth 0, 1, 2, …; `data` has STRETCH_OCTETS, of the last one 1 to STRETCH_OCTETS */
export async function insertStretch(
  db: Database,
  domainId: number,
  bodyId: string,
  nth: number,
  data: Buffer,
): Promise<void> {
  assert(data.length >= 1 && data.length <= STRETCH_OCTETS, 'a stretch has 1 to STRETCH_OCTETS')
  await db.bulk(INSERT_STRETCH, [domainId, bodyId, nth * STRETCH_CHUNKS, data])
}

/** How many octets a stretch has if nothing is missing. */
export function stretchOctets(bodyOctets: number, nth: number): number {
  return Math.min(STRETCH_OCTETS, bodyOctets - nth * STRETCH_OCTETS)
}

/**
 * One query a stretch: no transaction and no connection is held while a client reads slowly.
 * @param memory in which it lies, until it is given back
 * @returns its octets in order, in pieces
 * @throws {Failure} MESSAGE_DAMAGED if they are not all there
 */
export async function selectStretch(
  db: Database,
  domainId: number,
  { bodyId, bodyOctets }: { bodyId: string; bodyOctets: number },
  nth: number,
  memory?: RowMemory,
): Promise<Buffer[]> {
  const rows = await db.bulk(STRETCH, [domainId, bodyId, nth * STRETCH_CHUNKS], memory)
  const pieces = rows.map((row) => present(row, 0))
  const missing = stretchOctets(bodyOctets, nth) - octetsOf(pieces)
  if (missing === 0) return pieces
  const where = `chunk ${nth * STRETCH_CHUNKS} ff. of body ${bodyId}`
  throw new Failure('MESSAGE_DAMAGED', `${where}: ${missing} octets are missing`)
}

export function octetsOf(pieces: readonly Buffer[]): number {
  let octets = 0
  for (const piece of pieces) octets += piece.length
  return octets
}
