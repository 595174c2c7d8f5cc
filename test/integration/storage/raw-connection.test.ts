import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { insertBody, insertChunk, selectChunk } from '../../../src/storage/bodies.ts'
import type { Statement } from '../../../src/storage/postgres/database.ts'
import { decodeInt8, decodeUuid } from '../../../src/storage/postgres/decode.ts'
import { RowSplitter } from '../../../src/storage/postgres/raw-connection.ts'
import { addDomain, openTestDatabase, type TestDatabase } from '../../support/postgres.ts'

const ALL_OCTETS = Buffer.from(Array.from({ length: 256 }, (_, octet) => octet))

const KIND_ROW = 'D'

function message(kind: string, payload: Buffer): Buffer {
  const header = Buffer.alloc(5, kind)
  header.writeUInt32BE(payload.length + 4, 1)
  return Buffer.concat([header, payload])
}

function row(fields: readonly (Buffer | null)[]): Buffer {
  const parts = fields.flatMap((field) => {
    const length = Buffer.alloc(4)
    length.writeInt32BE(field === null ? -1 : field.length)
    return field === null ? [length] : [length, field]
  })
  const count = Buffer.alloc(2)
  count.writeUInt16BE(fields.length)
  return message(KIND_ROW, Buffer.concat([count, ...parts]))
}

/** What comes out, as text: rows field by field, other messages octet by octet. */
function split(pieces: readonly Buffer[]): string[] {
  const out: string[] = []
  let others = ''
  const flush = (): void => {
    if (others !== '') out.push(`other ${others}`)
    others = ''
  }
  const splitter = new RowSplitter(
    ({ fields }) => {
      flush()
      out.push(`row ${fields.map((field) => field?.toString('hex') ?? 'null').join(' ')}`)
    },
    (messages) => {
      others += messages.toString('hex')
    },
  )
  for (const piece of pieces) {
    // The socket's buffer is used again: whatever was not copied would change.
    const buffer = Buffer.from(piece)
    splitter.write(buffer)
  }
  flush()
  return out
}

describe('the splitter', () => {
  const stream = Buffer.concat([
    message('1', Buffer.alloc(0)),
    message('T', Buffer.from('a row description')),
    row([ALL_OCTETS, null, Buffer.alloc(0)]),
    row([]),
    row([Buffer.from('D')]),
    message('C', Buffer.from('SELECT 3\0')),
    message('Z', Buffer.from('I')),
  ])

  test('gives the same messages at every cut, all 256 octets whole', () => {
    const whole = split([stream])
    expect(whole).toHaveLength(5)
    expect(whole[1]).toBe(`row ${ALL_OCTETS.toString('hex')} null `)
    for (let cut = 1; cut < stream.length; cut++)
      expect(split([stream.subarray(0, cut), stream.subarray(cut)])).toEqual(whole)
    expect(split([...stream].map((octet) => Buffer.of(octet)))).toEqual(whole)
  })

  test('keeps rows when the socket reuses its buffer', () => {
    const rows: Buffer[] = []
    const splitter = new RowSplitter(
      ({ fields }) => rows.push(fields[0] as Buffer),
      () => undefined,
    )
    const buffer = row([ALL_OCTETS])
    splitter.write(buffer)
    buffer.fill(0)
    expect(rows[0]).toEqual(ALL_OCTETS)
  })

  test('large rows, some in one piece and some in several, beside small ones', () => {
    const octets = (length: number) => Buffer.from(Array.from({ length }, (_, i) => i % 251))
    const given = [10_000, 3, 4_089, 4_090, 4_091, 70_000, 0, 9_000].map((n) => [octets(n), null])
    const stream = Buffer.concat([...given.map(row), message('Z', Buffer.from('I'))])
    const expected = given.map(([field]) => `row ${field?.toString('hex')} null`)
    for (const size of [1_000, 4_096, 16_384, 65_536, stream.length]) {
      const pieces: Buffer[] = []
      for (let at = 0; at < stream.length; at += size) pieces.push(stream.subarray(at, at + size))
      expect(split(pieces).slice(0, -1)).toEqual(expected)
    }
  })

  test('any rows at any cuts', () => {
    const field = fc.option(fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)))
    const rows = fc.array(fc.array(field, { maxLength: 4 }), { maxLength: 8 })
    fc.assert(
      fc.property(rows, fc.array(fc.nat(500)), (given, cuts) => {
        const octets = Buffer.concat(given.map(row))
        const at = [0, ...cuts.filter((cut) => cut < octets.length).sort((a, b) => a - b)]
        const pieces = at.map((from, index) => octets.subarray(from, at[index + 1]))
        const expected = given.map(
          (fields) => `row ${fields.map((one) => one?.toString('hex') ?? 'null').join(' ')}`,
        )
        expect(split(pieces)).toEqual(expected)
      }),
    )
  })

  test('refuses what is not the protocol', () => {
    expect(() => split([Buffer.from('HTTP/1.1 400 Bad Request')])).toThrow()
    const lying = row([Buffer.from('abc')])
    lying.writeInt32BE(1000, 7)
    expect(() => split([lying])).toThrow()
  })
})

describe('on a real connection', () => {
  let database: TestDatabase
  const echo: Statement = {
    name: 'test-echo',
    text: 'select $1::bytea, $2::bigint, $3::uuid, null::text',
  }

  beforeAll(async () => {
    database = await openTestDatabase()
  })

  afterAll(() => database.close())

  test.each(['hot', 'bulk'] as const)('%s brings every octet back', async (door) => {
    const uuid = randomUUID()
    const content = Buffer.concat(Array.from({ length: 2_000 }, () => ALL_OCTETS))
    const [fields] = await database.db[door](echo, [content, 2 ** 52 + 1, uuid])
    expect(fields?.[0]?.equals(content)).toBe(true)
    expect(decodeInt8(fields?.[1] as Buffer)).toBe(2 ** 52 + 1)
    expect(decodeUuid(fields?.[2] as Buffer)).toBe(uuid)
    expect(fields?.[3]).toBeNull()
  })

  test('negative and large bigints', async () => {
    for (const value of [0, -1, 1, -(2 ** 40), 2 ** 32, Number.MAX_SAFE_INTEGER]) {
      const [fields] = await database.db.hot(echo, [Buffer.alloc(0), value, randomUUID()])
      expect(decodeInt8(fields?.[1] as Buffer)).toBe(value)
    }
  })

  test('statements of one tick are answered each with its own rows', async () => {
    const numbers = Array.from({ length: 200 }, (_, index) => index)
    const answers = await Promise.all(
      numbers.map((number) => database.db.hot(echo, [ALL_OCTETS, number, randomUUID()])),
    )
    expect(answers.map(([fields]) => decodeInt8(fields?.[1] as Buffer))).toEqual(numbers)
  })

  test('chunks come back byte for byte', async () => {
    const domainId = await addDomain(database.db, 'chunks.test')
    const bodyId = randomUUID()
    await insertBody(database.db, domainId, bodyId)
    const chunk = Buffer.alloc(262_144)
    for (let at = 0; at < chunk.length; at++) chunk[at] = (at * 7 + (at >> 8)) & 0xff
    await insertChunk(database.db, domainId, bodyId, 0, chunk)
    await insertChunk(database.db, domainId, bodyId, 1, Buffer.from([0xff, 0x00, 0xe4, 0x80]))
    expect((await selectChunk(database.db, domainId, bodyId, 0))?.equals(chunk)).toBe(true)
    expect(await selectChunk(database.db, domainId, bodyId, 1)).toEqual(
      Buffer.from([0xff, 0x00, 0xe4, 0x80]),
    )
    expect(await selectChunk(database.db, domainId, bodyId, 2)).toBeUndefined()
  })
})
