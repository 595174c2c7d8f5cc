import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { afterEach, expect, test } from 'vitest'
import { openDelayProxy } from '../../../bench/load/delay-proxy.ts'

const ends: (() => void)[] = []
afterEach(() => {
  for (const end of ends.splice(0)) end()
})

async function open(delayMs: number, serve: (socket: Socket) => void): Promise<Socket> {
  const server: Server = createServer({ allowHalfOpen: true }, serve).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const proxy = await openDelayProxy((server.address() as AddressInfo).port, delayMs)
  const client = connect({ port: proxy.port, host: '127.0.0.1', allowHalfOpen: true })
  ends.push(() => {
    client.destroy()
    proxy.close()
    server.close()
  })
  await once(client, 'connect')
  return client
}

test('everything comes back, in order, and the end after it', async () => {
  const client = await open(1, (socket) => socket.pipe(socket))
  const sent = Buffer.alloc(20_000_000, 'abcdefghijk')
  const received: Buffer[] = []
  client.on('data', (chunk: Buffer) => received.push(chunk))
  client.end(sent)
  await once(client, 'end')
  expect(Buffer.concat(received).equals(sent)).toBe(true)
})

test('nothing is back before the delay is over', async () => {
  const client = await open(20, (socket) => socket.pipe(socket))
  const sentAt = performance.now()
  client.write('x')
  await once(client, 'data')
  expect(performance.now() - sentAt).toBeGreaterThanOrEqual(20)
})

test('a reader that does not read holds its sender back: what is on the way is bounded', async () => {
  let reader: Socket | undefined
  const client = await open(1, (socket) => {
    reader = socket.pause()
  })
  const block = Buffer.alloc(1024 * 1024)
  while (reader === undefined) {
    client.write('x')
    await new Promise(setImmediate)
  }
  for (let i = 0; i < 64; i++) client.write(block)
  // Held back for good: with 64 MB to send and nobody to read, most of it is still here.
  const idle = once(client, 'drain').then(() => 'drained')
  const turns = (async () => {
    for (let i = 0; i < 2_000; i++) await new Promise(setImmediate)
    return 'held back'
  })()
  expect(await Promise.race([idle, turns])).toBe('held back')
  expect(client.writableLength).toBeGreaterThan(32 * 1024 * 1024)
  reader.resume()
  expect(await idle).toBe('drained')
})

test('an end that breaks takes the other one with it', async () => {
  const client = await open(1, (socket) => socket.once('data', () => socket.resetAndDestroy()))
  client.on('error', () => {}).resume()
  client.write('x')
  await once(client, 'end')
  expect(client.readableEnded).toBe(true)
})
