/** The host name in a client's first octets: of real clients, of none, and of whoever sends noise. */
import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { type ConnectionOptions, connect } from 'node:tls'
import { assert, constant, oneof, property, tuple, uint8Array } from 'fast-check'
import { expect, test } from 'vitest'
import { readClientHello } from '../../../src/server/tls/client-hello.ts'

/** What node's own client sends first. */
async function helloOf(options: ConnectionOptions): Promise<Buffer> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const accepted = once(server, 'connection')
  const { port } = server.address() as AddressInfo
  const client = connect({ port, host: '127.0.0.1', ...options })
  client.on('error', () => {})
  const [socket] = await accepted
  const [hello] = await once(socket, 'data')
  socket.destroy()
  server.close()
  return hello
}

/** The same message in records of `octets` each. */
function inRecords(hello: Buffer, octets: number): Buffer {
  const message = hello.subarray(5)
  const records: Buffer[] = []
  for (let at = 0; at < message.length; at += octets) {
    const part = message.subarray(at, at + octets)
    records.push(Buffer.from([22, 3, 1, part.length >> 8, part.length & 0xff]), part)
  }
  return Buffer.concat(records)
}

const named = (serverName: string | undefined) => ({ kind: 'read', serverName })

test.each(['TLSv1.2', 'TLSv1.3'] as const)('a client of %s names its host', async (version) => {
  const servername = 'pop.customer.example'
  const hello = await helloOf({ servername, minVersion: version, maxVersion: version })
  expect(readClientHello(hello)).toEqual(named(servername))
  expect(readClientHello(Buffer.concat([hello, Buffer.from('more')]))).toEqual(named(servername))
  for (const octets of [4, 5, 77, hello.length])
    expect(readClientHello(inRecords(hello, octets))).toEqual(named(servername))
})

test('a client that names none', async () => {
  expect(readClientHello(await helloOf({ maxVersion: 'TLSv1.2' }))).toEqual(named(undefined))
})

test('however it is cut, what comes is waited for', async () => {
  const hello = await helloOf({ servername: 'pop.customer.example' })
  for (const octets of [hello, inRecords(hello, 50)])
    for (let length = 0; length < octets.length; length++)
      expect(readClientHello(octets.subarray(0, length))).toEqual({ kind: 'incomplete' })
})

test.each([
  ['POP3', Buffer.from('CAPA\r\n')],
  ['an alert', Buffer.from('15030100020230', 'hex')],
  ['another message', Buffer.from('16030100040e000000', 'hex')],
  ['records too small for the head of a message', Buffer.from('1603010001011603', 'hex')],
  ['a message larger than 16 KiB', Buffer.from('160301ffff01010000', 'hex')],
  ['a message without fields', Buffer.from('160301000401000000', 'hex')],
])('%s has no name, and is not waited for', (_, octets) => {
  expect(readClientHello(octets)).toEqual(named(undefined))
})

test('whatever its records hold, no more than 16 KiB are waited for', () => {
  const head = Buffer.from('160301000401003f00', 'hex')
  for (const record of [Buffer.from('1603010000', 'hex'), Buffer.from('160301000100', 'hex')]) {
    const octets = Buffer.concat([head, ...Array<Buffer>(4_000).fill(record)])
    expect(readClientHello(octets.subarray(0, 16_383))).toEqual({ kind: 'incomplete' })
    expect(readClientHello(octets.subarray(0, 16_384))).toEqual(named(undefined))
  }
})

test('noise never throws, with the head of a hello or without', () => {
  const head = constant(Uint8Array.from([22, 3, 1, 0, 200, 1, 0, 0, 196]))
  const noise = tuple(oneof(head, constant(new Uint8Array())), uint8Array({ maxLength: 400 }))
  assert(
    property(noise, (parts) => {
      const reading = readClientHello(Buffer.concat(parts))
      expect(['incomplete', 'read']).toContain(reading.kind)
    }),
    { numRuns: 2_000 },
  )
})

test('fields that were changed at random give a name or none', async () => {
  const hello = await helloOf({ servername: 'pop.customer.example' })
  for (let at = 5; at < hello.length; at++) {
    const changed = Buffer.from(hello)
    changed[at] = 0xff
    expect(['incomplete', 'read']).toContain(readClientHello(changed).kind)
  }
})
