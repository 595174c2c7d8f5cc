/** Addresses as settings write them: where to listen, and which networks are trusted. */
import { BlockList, isIP, isIPv4 } from 'node:net'
import { z } from 'zod'

export type ListenAddress = { host: string; port: number } | { path: string }

/** `host:port`, `[v6]:port` or `unix:/path`, as one writes it. */
export function formatListenAddress(address: ListenAddress): string {
  if ('path' in address) return `unix:${address.path}`
  const host = address.host.includes(':') ? `[${address.host}]` : address.host
  return `${host}:${address.port}`
}

function parseListenAddress(text: string): ListenAddress | undefined {
  if (text.startsWith('unix:/')) return { path: text.slice('unix:'.length) }
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([^:[\]\s]+)):(\d{1,5})$/.exec(text)
  const host = match?.[1] ?? match?.[2]
  const port = Number(match?.[3])
  return host === undefined || port > 65_535 ? undefined : { host, port }
}

const items = (text: string): string[] =>
  text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '')

export const listenAddresses = z.string().transform((text, context): ListenAddress[] => {
  const addresses = items(text).map(parseListenAddress)
  if (addresses.every((address) => address !== undefined)) return addresses
  context.addIssue('must be host:port or unix:/path, separated by commas')
  return z.NEVER
})

/** A set of networks, e.g. `10.0.0.0/8, ::1/128`. */
export class Networks {
  readonly #list = new BlockList()
  #isEmpty = true

  /** @returns false if `text` is no address and no CIDR */
  add(text: string): boolean {
    const [address = '', prefix] = text.split('/')
    const version = isIP(address)
    if (version === 0) return false
    const bits = prefix === undefined ? (version === 4 ? 32 : 128) : Number(prefix)
    if (prefix !== undefined && !/^\d{1,3}$/.test(prefix)) return false
    if (bits > (version === 4 ? 32 : 128)) return false
    this.#isEmpty = false
    this.#list.addSubnet(address, bits, version === 4 ? 'ipv4' : 'ipv6')
    return true
  }

  /** @param address as node gives it, an IPv4 address mapped into IPv6 included */
  contains(address: string): boolean {
    if (this.#isEmpty) return false
    const plain = unmapped(address).replace(/%.*$/, '')
    const version = isIP(plain)
    return version !== 0 && this.#list.check(plain, version === 4 ? 'ipv4' : 'ipv6')
  }
}

export const networks = z.string().transform((text, context): Networks => {
  const set = new Networks()
  for (const item of items(text)) {
    if (set.add(item)) continue
    context.addIssue('must be addresses or CIDR networks, separated by commas')
    return z.NEVER
  }
  return set
})

/** @param address as node gives it, or any other text */
export function isLoopback(address: string): boolean {
  const plain = unmapped(address)
  return plain === '::1' || (plain.startsWith('127.') && isIPv4(plain))
}

/** IPv4 as it is written where it is not mapped into IPv6. */
export function unmapped(address: string): string {
  return address.startsWith('::ffff:') ? address.replace(MAPPED, '') : address
}

const MAPPED = /^::ffff:(?=\d+\.)/
