/** Makes PROXY headers of version 2, right ones and wrong ones, from the specification's tables. */
import { isIPv4 } from 'node:net'

const SIGNATURE = '0d0a0d0a000d0a515549540a'

export interface HeaderParts {
  /** An IPv4 address, or an IPv6 address with all its eight groups. */
  client?: string
  additions?: readonly Buffer[]
  command?: number
  family?: number
  /** In place of addresses, ports and additions. */
  block?: Buffer
}

export function proxyBlock(parts: HeaderParts): Buffer {
  const { client = '192.0.2.1', additions = [], command = 0x21 } = parts
  const family = parts.family ?? (isIPv4(client) ? 0x11 : 0x21)
  const addresses = [octetsOf(client), octetsOf(client), Buffer.from([220, 4, 0, 110])]
  const block = parts.block ?? Buffer.concat([...addresses, ...additions])
  const head = Buffer.from(`${SIGNATURE}00000000`, 'hex')
  head.writeUInt8(command, 12)
  head.writeUInt8(family, 13)
  head.writeUInt16BE(block.length, 14)
  return Buffer.concat([head, block])
}

/** Type, length, value. */
export function tlv(type: number, value: Buffer | readonly number[]): Buffer {
  const octets = Buffer.from(value)
  return Buffer.concat([Buffer.from([type, octets.length >> 8, octets.length & 255]), octets])
}

function octetsOf(address: string): Buffer {
  if (isIPv4(address)) return Buffer.from(address.split('.').map(Number))
  return Buffer.from(address.split(':').flatMap((group) => bytesOf(Number.parseInt(group, 16))))
}

const bytesOf = (group: number): number[] => [group >> 8, group & 255]
