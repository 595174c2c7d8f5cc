import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { insertBody, insertStretch, selectStretch } from '../../../src/storage/bodies.ts'
import type { Statement } from '../../../src/storage/postgres/database.ts'
import { decodeInt8, decodeUuid } from '../../../src/storage/postgres/decode.ts'
import { RowSplitter } from '../../../src/storage/postgres/raw-connection.ts'
import { cut } from '../../fuzz/arbitraries.ts'
import { FUZZ } from '../../fuzz/seed.ts'
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

const shown = (fields: readonly (Buffer | null)[]): string =>
  `row ${fields.map((field) => field?.toString('hex') ?? 'null').join(' ')}`

/**
 * What comes out, as text: rows field by field, other messages octet by octet. Every piece is read
 * into the same buffer, and they are looked at when all have been: what was not copied has changed.
 */
function split(pieces: readonly Buffer[]): string[] {
  const out: (readonly (Buffer | null)[] | { others: Buffer[] })[] = []
  let others: Buffer[] = []
  const flush = (): void => {
    if (others.length > 0) out.push({ others })
    others = []
  }
  const splitter = new RowSplitter(
    (rows) => {
      flush()
      out.push(...rows)
    },
    (messages) => {
      others.push(messages)
    },
  )
  const reused = Buffer.alloc(pieces.reduce((most, { length }) => Math.max(most, length), 0))
  for (const piece of pieces) {
    const octets = reused.subarray(0, piece.copy(reused))
    splitter.write(octets)
    reused.fill('#')
  }
  flush()
  return out.map((one) =>
    'others' in one ? `other ${Buffer.concat(one.others).toString('hex')}` : shown(one),
  )
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

  test('gives what it has of an answer when a piece ends', () => {
    const rows: number[] = []
    const splitter = new RowSplitter(
      (some) => rows.push(some.length),
      () => undefined,
    )
    const octets = row([ALL_OCTETS])
    splitter.write(Buffer.concat([octets, octets, octets.subarray(0, 9)]))
    expect(rows).toEqual([2])
    splitter.write(octets.subarray(9))
    expect(rows).toEqual([2, 1])
  })

  test('large rows, some in one piece and some in several, beside small ones', () => {
    const octets = (length: number) => Buffer.from(Array.from({ length }, (_, i) => i % 251))
    const lengths = [10_000, 3, 2_030, 2_032, 2_034, 70_000, 0, 65_500, 40_000, 40_000, 9_000]
    const given = lengths.map((n) => [octets(n), null])
    const stream = Buffer.concat([...given.map(row), message('Z', Buffer.from('I'))])
    const expected = given.map(shown)
    for (const size of [7, 1_000, 4_096, 16_384, 65_536, stream.length]) {
      const pieces: Buffer[] = []
      for (let at = 0; at < stream.length; at += size) pieces.push(stream.subarray(at, at + size))
      expect(split(pieces).slice(0, -1)).toEqual(expected)
    }
  })

  test('any messages at any cuts, and no row is written to later', () => {
    const lengths = fc.oneof(fc.nat(40), fc.nat(9_000), fc.constantFrom(2_036, 65_520, 70_000))
    const octets = fc.tuple(lengths, fc.nat(255)).map(([length, from]) => {
      return Buffer.from(Array.from({ length }, (_, at) => from + at * 7))
    })
    const given = fc.oneof(
      { weight: 4, arbitrary: fc.array(fc.option(octets), { maxLength: 4 }) },
      { weight: 1, arbitrary: fc.constantFrom('1', '2', 'C', 'Z') },
    )
    const sizes = fc.array(
      fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 66_000 })),
      {
        minLength: 1,
        maxLength: 8,
      },
    )
    fc.assert(
      fc.property(fc.array(given, { maxLength: 12 }), sizes, (messages, pieceSizes) => {
        const stream = messages.map((one) =>
          typeof one === 'string' ? message(one, Buffer.from('x')) : row(one),
        )
        const expected: string[] = []
        for (const [at, one] of messages.entries()) {
          const last = expected.at(-1)
          const hex = stream[at]?.toString('hex')
          if (typeof one !== 'string') expected.push(shown(one))
          else if (last?.startsWith('other')) expected.push(`${expected.pop()}${hex}`)
          else expected.push(`other ${hex}`)
        }
        expect(split(cut(Buffer.concat(stream), pieceSizes))).toEqual(expected)
      }),
      FUZZ,
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

  test('stretches come back byte for byte', async () => {
    const domainId = await addDomain(database.db, 'stretches.test')
    const bodyId = randomUUID()
    await insertBody(database.db, domainId, bodyId)
    const stretch = Buffer.alloc(259_072)
    for (let at = 0; at < stretch.length; at++) stretch[at] = (at * 7 + (at >> 8)) & 0xff
    const end = Buffer.from([0xff, 0x00, 0xe4, 0x80])
    await insertStretch(database.db, domainId, bodyId, 0, stretch)
    await insertStretch(database.db, domainId, bodyId, 1, end)
    const body = { bodyId, bodyOctets: stretch.length + end.length }
    const read = async (nth: number) =>
      Buffer.concat(await selectStretch(database.db, domainId, body, nth))
    expect((await read(0)).equals(stretch)).toBe(true)
    expect(await read(1)).toEqual(end)
  })
})
