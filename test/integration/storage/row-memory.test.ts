import { expect, test } from 'vitest'
import { RowMemory } from '../../../src/storage/postgres/row-memory.ts'

const SLAB_OCTETS = 131_072

function open(): RowMemory {
  const memory = RowMemory.forAnswer(SLAB_OCTETS)
  if (memory === undefined) throw new Error('an answer of that size has memory')
  return memory
}

test('nothing lies over anything else, until it is given back', () => {
  const memories = [open(), open(), open()]
  const pieces = [60_000, 70_000, 1, 71_071, 60_000, 200_000, 131_072, 0, 5].flatMap((octets, at) =>
    memories.map((memory, of) => memory.allocate(octets).fill(10 * of + at)),
  )
  for (const [index, piece] of pieces.entries())
    expect(piece.every((octet) => octet === 10 * (index % 3) + Math.floor(index / 3))).toBe(true)
})

test('what was given back is used again, once', () => {
  const memory = open()
  const { buffer } = memory.allocate(1_000)
  memory.giveBack()
  memory.giveBack()
  const others = Array.from({ length: 200 }, () => open().allocate(1_000).buffer)
  expect(others.filter((other) => other === buffer)).toHaveLength(1)
})

test('no more than 8 MiB wait to be used again', () => {
  const memory = open()
  const given = new Set(Array.from({ length: 100 }, () => memory.allocate(SLAB_OCTETS).buffer))
  memory.giveBack()
  const others = Array.from({ length: 200 }, () => open().allocate(1).buffer)
  expect(others.filter((other) => given.has(other))).toHaveLength(64)
})

test('a small answer has no memory of its own', () => {
  expect(RowMemory.forAnswer(SLAB_OCTETS - 1)).toBeUndefined()
})
