/** RETR and TOP on any message at any cut. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { DotStuffer } from '../../src/protocol/wire/dot-stuffing.ts'
import { TopCutter } from '../../src/protocol/wire/top-cutter.ts'
import { serializeMessage } from '../dialogs/memory-peer.ts'
import { stuffed } from '../support/stuffed.ts'
import { cut, cuts, messages, storedMessages } from './arbitraries.ts'
import { FUZZ } from './seed.ts'

const counts = fc.integer({ min: 0, max: 12 })

/**
 * What a client makes of a multi-line reply (RFC 1939 §3); undefined if it is not ended by its
 * dot.
 */
function unstuff(reply: string): string | undefined {
  if (!reply.endsWith('.\r\n')) return undefined
  const lines = reply.split('\r\n')
  const dot = lines.indexOf('.')
  if (dot !== lines.length - 2) return undefined
  return lines
    .slice(0, dot)
    .map((line) => `${line.startsWith('.') ? line.slice(1) : line}\r\n`)
    .join('')
}

test('what is stuffed at any cut is what was stored, after unstuffing', () => {
  fc.assert(
    fc.property(storedMessages, cuts, (message, sizes) => {
      const stuffer = new DotStuffer()
      const pieces = cut(message, sizes).map((chunk) => stuffed(stuffer, chunk))
      const reply = Buffer.concat([...pieces, stuffer.finish()]).toString('latin1')
      expect(unstuff(reply)).toBe(message.toString('latin1'))
    }),
    FUZZ,
  )
})

test('no message, however broken, ends its reply early for a client that ends lines at LF', () => {
  fc.assert(
    fc.property(messages, cuts, (message, sizes) => {
      const stuffer = new DotStuffer()
      const pieces = cut(message, sizes).map((chunk) => stuffed(stuffer, chunk))
      const reply = Buffer.concat([...pieces, stuffer.finish()]).toString('latin1')
      const lines = reply.split('\n').map((line) => line.replace(/\r$/, ''))
      expect(lines.indexOf('.')).toBe(lines.length - 2)
    }),
    FUZZ,
  )
})

test('TOP is the beginning of RETR', () => {
  fc.assert(
    fc.property(storedMessages, counts, fc.integer({ min: 1, max: 40 }), (message, count, size) => {
      const retr = Buffer.concat(serializeMessage(message, undefined, 1_000_000)).toString('latin1')
      const top = Buffer.concat(serializeMessage(message, count, size)).toString('latin1')
      expect(retr.startsWith(top.slice(0, -'.\r\n'.length))).toBe(true)
    }),
    FUZZ,
  )
})

test('TOP has the header, the blank line and the lines asked for', () => {
  fc.assert(
    fc.property(storedMessages, counts, cuts, (message, count, sizes) => {
      const cutter = new TopCutter(count)
      const top = Buffer.concat(cut(message, sizes).flatMap((chunk) => cutter.push(chunk)))
      const lines = message.toString('latin1').split('\r\n').slice(0, -1)
      const blank = lines.indexOf('')
      const wanted = blank === -1 ? lines : lines.slice(0, blank + 1 + count)
      expect(top.toString('latin1')).toBe(wanted.map((line) => `${line}\r\n`).join(''))
    }),
    FUZZ,
  )
})
