/** The proxy breaks connections, not octets: what passes at all passes in order and whole. */
import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { DatabaseProxy } from './database-proxy.ts'

let echo: Server
let proxy: DatabaseProxy
let client: Socket
let received: string

beforeEach(async () => {
  echo = createServer((socket) => socket.pipe(socket).on('error', () => {}))
  echo.listen(0, '127.0.0.1')
  await once(echo, 'listening')
  const address = echo.address()
  proxy = await DatabaseProxy.open(typeof address === 'object' ? (address?.port ?? 0) : 0)
  received = ''
  client = connect({ port: proxy.port, host: '127.0.0.1', noDelay: true })
  client.on('data', (chunk) => {
    received += chunk
  })
  client.on('error', () => {})
  await once(client, 'connect')
})

afterEach(async () => {
  client.destroy()
  await proxy.close()
  echo.close()
})

async function until(text: string): Promise<void> {
  while (received.length < text.length) await once(client, 'data')
  expect(received).toBe(text)
}

test('what a slow line holds is not overtaken by what comes when it is whole again', async () => {
  client.write('1')
  await until('1')
  proxy.slow(80)
  client.write('2')
  await once(proxy.connections[0]?.client ?? client, 'data')
  proxy.heal()
  client.write('3')
  client.write('x'.repeat(500_000))
  await until(`123${'x'.repeat(500_000)}`)
})

test('what a stall has held back goes on its way', async () => {
  client.write('1')
  await until('1')
  proxy.stall()
  client.write('2')
  const late = connect({ port: proxy.port, host: '127.0.0.1' })
  await once(late, 'connect')
  late.write('late')
  expect(received).toBe('1')
  proxy.heal()
  await until('12')
  expect(String(await once(late, 'data'))).toBe('late')
  late.destroy()
})

test('cut: both sides end, new connections too as long as they are refused', async () => {
  client.write('1')
  await until('1')
  const closed = once(client, 'close')
  proxy.cut(true)
  await closed
  const refused = connect({ port: proxy.port, host: '127.0.0.1' }).on('error', () => {})
  await new Promise((resolve) => refused.once('close', resolve))
  proxy.heal()
  client = connect({ port: proxy.port, host: '127.0.0.1' })
  client.write('2')
  expect(String(await once(client, 'data'))).toBe('2')
})
