/** PROXY headers: what is taken, what is refused, and that neither depends on how octets come. */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseProxyHeader } from '../../../src/server/proxy-protocol.ts'
import { proxyBlock, tlv } from '../../support/proxy-header.ts'

const line = (text: string) => Buffer.from(text, 'latin1')

const clientOf = (octets: Buffer): string | undefined => {
  const parsed = parseProxyHeader(octets)
  return parsed.kind === 'header' ? parsed.header.client : parsed.kind
}

const V4 = 'PROXY TCP4 192.0.2.7 198.51.100.1 56324 110\r\n'
const V6 = 'PROXY TCP6 2001:DB8::0:7 2001:db8::1 1 65535\r\n'

test.each([
  [V4, '192.0.2.7'],
  [V6, '2001:db8::7'],
  ['PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n', '192.0.2.7'],
  ['PROXY UNKNOWN\r\n', undefined],
  ['PROXY UNKNOWN whatever it says\r\n', undefined],
])('%j names %s', (text, client) => {
  expect(clientOf(line(text))).toBe(client)
})

test.each([
  'USER alice\r\n',
  'proxy TCP4 192.0.2.7 192.0.2.1 1 2\r\n',
  'PROXY  TCP4 192.0.2.7 192.0.2.1 1 2\r\n',
  'PROXY TCP4 192.0.2.7 192.0.2.1 1 2 \r\n',
  'PROXY TCP4 192.0.2.7 192.0.2.1 1\r\n',
  'PROXY TCP4 192.0.2.7 192.0.2.1 1 65536\r\n',
  'PROXY TCP4 192.0.2.7 192.0.2.1 01 2\r\n',
  'PROXY TCP4 192.0.2.07 192.0.2.1 1 2\r\n',
  'PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n',
  'PROXY TCP6 192.0.2.7 192.0.2.1 1 2\r\n',
  'PROXY TCP6 fe80::1%eth0 fe80::2 1 2\r\n',
  'PROXY TCP4 192.0.2.7 192.0.2.1 1 2\n',
  'PROXY UNKNOWN a\nPROXY UNKNOWN\r\n',
  'PROXY UDP4 192.0.2.7 192.0.2.1 1 2\r\n',
  'PROXY UNKNOWNS\r\n',
  `PROXY UNKNOWN ${'x'.repeat(92)}\r\n`,
])('%j ends the connection', (text) => {
  expect(clientOf(line(text))).toBe('bad')
})

test('a line of 107 octets is taken, and not waited for beyond them', () => {
  const longest = `PROXY UNKNOWN ${'x'.repeat(91)}\r\n`
  expect(longest.length).toBe(107)
  expect(clientOf(line(longest))).toBe(undefined)
  expect(clientOf(line(`PROXY UNKNOWN ${'x'.repeat(92)}`))).toBe('more')
  expect(clientOf(line(`PROXY UNKNOWN ${'x'.repeat(93)}`))).toBe('bad')
})

test('version 2: addresses, TLS at the balancer, the host name that was asked for', () => {
  const block = proxyBlock({ client: '192.0.2.7', additions: [tlv(0x20, [1, 0, 0, 0, 0])] })
  expect(parseProxyHeader(block)).toEqual({
    kind: 'header',
    octets: block.length,
    header: { client: '192.0.2.7', isEncrypted: true, hostName: undefined },
  })
  const other = proxyBlock({
    client: '2001:db8:0:0:0:0:0:7',
    additions: [
      tlv(0x04, [0, 0, 0]),
      tlv(0x02, Buffer.from('POP.example.test')),
      tlv(0x20, [6, 0, 0, 0, 0]),
    ],
  })
  expect(parseProxyHeader(other)).toMatchObject({
    header: { client: '2001:db8::7', isEncrypted: false, hostName: 'pop.example.test' },
  })
})

test('a host name that can be none is not one', () => {
  for (const name of ['', 'a b', "x'; drop", '\0', 'ä.test', 'x'.repeat(254)]) {
    const block = proxyBlock({ client: '192.0.2.7', additions: [tlv(2, Buffer.from(name))] })
    expect(parseProxyHeader(block)).toMatchObject({ header: { hostName: undefined } })
  }
})

test('version 2: LOCAL and unknown families name nobody', () => {
  expect(clientOf(proxyBlock({ command: 0x20, family: 0, block: Buffer.alloc(0) }))).toBe(undefined)
  expect(clientOf(proxyBlock({ command: 0x20, family: 0x11, block: Buffer.alloc(3) }))).toBe(
    undefined,
  )
  expect(clientOf(proxyBlock({ family: 0x00, block: Buffer.alloc(5) }))).toBe('bad')
  expect(clientOf(proxyBlock({ family: 0x00, block: Buffer.alloc(0) }))).toBe(undefined)
  expect(clientOf(proxyBlock({ family: 0x31, block: Buffer.alloc(216) }))).toBe(undefined)
  expect(clientOf(proxyBlock({ family: 0x12, block: Buffer.alloc(12) }))).toBe(undefined)
})

test.each([
  ['version 1 in version 2', { command: 0x11 }],
  ['an unknown command', { command: 0x22 }],
  ['an unknown family', { family: 0x41, block: Buffer.alloc(12) }],
  ['an unknown transport', { family: 0x13, block: Buffer.alloc(12) }],
  ['addresses that are cut off', { family: 0x11, block: Buffer.alloc(11) }],
  ['an addition that is cut off', { client: '192.0.2.7', additions: [Buffer.from([1, 0, 9, 1])] }],
  ['an addition without a length', { client: '192.0.2.7', additions: [Buffer.from([1, 0])] }],
  ['a block above 2048 octets', { family: 0, block: Buffer.alloc(2_049) }],
])('version 2: %s ends the connection', (_, parts) => {
  expect(clientOf(proxyBlock(parts))).toBe('bad')
})

test('however the octets come, more is asked for until the header is whole, and no longer', () => {
  const headers = [line(V4), line(V6), proxyBlock({ client: '192.0.2.7' })]
  for (const header of headers) {
    const all = Buffer.concat([header, line('USER alice\r\n')])
    for (let length = 0; length <= all.length; length++) {
      const parsed = parseProxyHeader(all.subarray(0, length))
      if (length < header.length) expect(parsed.kind).toBe('more')
      else expect(parsed).toMatchObject({ kind: 'header', octets: header.length })
    }
  }
})

test('no octets make the parser throw or ask for more than its limits', () => {
  const start = fc.constantFrom(line('PROXY '), proxyBlock({}).subarray(0, 12), Buffer.alloc(0))
  fc.assert(
    fc.property(start, fc.uint8Array({ maxLength: 4_000 }), (head, tail) => {
      const octets = Buffer.concat([head, tail])
      const parsed = parseProxyHeader(octets)
      if (parsed.kind === 'more') expect(octets.length).toBeLessThan(16 + 2_048)
      if (parsed.kind === 'header') expect(parsed.octets).toBeLessThanOrEqual(octets.length)
    }),
  )
})
