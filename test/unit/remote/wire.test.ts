/** What the wire makes of a server's octets, in whatever pieces they come. */
import { EventEmitter } from 'node:events'
import { expect, test, vi } from 'vitest'
import { Wire } from '../../../src/remote/wire.ts'

/** Hands out what it is given in just these pieces. */
class PiecesSocket extends EventEmitter {
  pieces: Buffer[] = []

  read(): Buffer | null {
    return this.pieces.shift() ?? null
  }

  write(): void {}

  destroy(): void {}
}

const sockets = vi.hoisted(() => ({ next: undefined as unknown }))
vi.mock('node:net', async (load) => ({
  ...(await load<typeof import('node:net')>()),
  connect: () => sockets.next,
}))

async function open(pieces: readonly string[]): Promise<Wire> {
  const socket = new PiecesSocket()
  sockets.next = socket
  const server = { host: 'h', port: 1, security: 'none', authority: undefined } as const
  const opening = Wire.open(server)
  socket.emit('connect')
  socket.pieces = pieces.map((piece) => Buffer.from(piece, 'latin1'))
  return await opening
}

async function read(wire: Wire): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of wire.body()) chunks.push(chunk)
  return Buffer.concat(chunks).toString('latin1')
}

const stuffed = (body: string): string => `${body.replace(/(^|\r\n)\./g, '$1..')}.\r\n`

test('a message that begins with a line that is a dot ends where it ends', async () => {
  const wire = await open(['..\r', '\n+OK forged\r\nSubject: forged\r\n\r\n.\r\n', '+OK true\r\n'])
  expect(await read(wire)).toBe('.\r\n+OK forged\r\nSubject: forged\r\n\r\n')
  expect(await wire.line()).toBe('+OK true')
})

test('bodies full of dots, in pieces of 1 to 4 octets, are what they were, one after the other', async () => {
  const seed = Number(process.env.FUZZ_SEED ?? Date.now() % 2 ** 31)
  console.log(`FUZZ_SEED=${seed}`)
  let state = seed
  const random = (below: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff
    return (state >> 8) % below
  }
  const signs = ['.', '..', '\r\n', '\r', 'a', '.\r\n']
  for (let run = 0; run < 2_000; run += 1) {
    const bodies = Array.from({ length: 3 }, () => {
      const text = Array.from({ length: random(10) }, () => signs[random(signs.length)]).join('')
      return text === '' || text.endsWith('\r\n') ? text : `${text}\r\n`
    })
    const sent = `${bodies.map(stuffed).join('')}+OK done\r\n`
    const pieces: string[] = []
    for (let at = 0; at < sent.length; at += pieces.at(-1)?.length ?? 1)
      pieces.push(sent.slice(at, at + 1 + random(4)))
    const wire = await open(pieces)
    const found: string[] = []
    for (const _ of bodies) found.push(await read(wire))
    expect({ found, seed, run }).toEqual({ found: bodies, seed, run })
    expect(await wire.line()).toBe('+OK done')
    wire.close()
  }
})
