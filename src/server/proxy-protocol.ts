/**
 * The PROXY protocol, versions 1 and 2: what a load balancer says, before anything else, of the
 * client it speaks for. Read only from peers in POPGRES_PROXY_NETWORKS, who must send it; from
 * everybody else it is a bad POP3 command. A peer on a Unix socket has no address, so it is in no
 * network and sends none.
 *
 * Strict, as the specification asks: what does not match to the octet ends the connection.
 */
import { isIPv4, isIPv6, type Socket, SocketAddress } from 'node:net'
import { CR, LF } from '../protocol/wire/ascii.ts'

export interface ProxyHeader {
  /** The client's address; undefined: the balancer speaks for itself, or does not know. */
  client: string | undefined
  /** The balancer ended the client's TLS. */
  isEncrypted: boolean
  /** The host name the client asked for in TLS, lower case. */
  hostName: string | undefined
}

export type ParsedHeader =
  | { kind: 'header'; header: ProxyHeader; octets: number }
  | { kind: 'more' | 'bad' }

/** LIMIT: the longest line of version 1, its CRLF included. */
const LINE_MAX_OCTETS = 107
/** LIMIT: version 2, what may follow the fixed part. */
const BLOCK_MAX_OCTETS = 2_048

const LINE_START = Buffer.from('PROXY ', 'latin1')
const SIGNATURE = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1')
const FIXED_OCTETS = 16
const BAD: ParsedHeader = { kind: 'bad' }
const MORE: ParsedHeader = { kind: 'more' }
const NOTHING_KNOWN: ProxyHeader = { client: undefined, isEncrypted: false, hostName: undefined }

/** @param octets all that has come so far; what follows the header is not looked at */
export function parseProxyHeader(octets: Buffer): ParsedHeader {
  if (startsAlike(octets, LINE_START)) return parseLine(octets)
  if (startsAlike(octets, SIGNATURE)) return parseBinary(octets)
  return BAD
}

function startsAlike(octets: Buffer, start: Buffer): boolean {
  const length = Math.min(octets.length, start.length)
  return octets.subarray(0, length).equals(start.subarray(0, length))
}

function parseLine(octets: Buffer): ParsedHeader {
  const lf = octets.subarray(0, LINE_MAX_OCTETS).indexOf(LF)
  if (lf === -1) return octets.length < LINE_MAX_OCTETS ? MORE : BAD
  if (octets[lf - 1] !== CR) return BAD
  const line = octets.toString('latin1', 0, lf - 1)
  if (/^PROXY UNKNOWN($| )/.test(line)) return found(NOTHING_KNOWN, lf + 1)
  const [, family, source = '', target = '', ...ports] =
    /^PROXY (TCP[46]) ([^ ]+) ([^ ]+) ([^ ]+) ([^ ]+)$/.exec(line) ?? []
  const isAddress = family === 'TCP4' ? isIPv4 : isPlainIPv6
  if (!isAddress(source) || !isAddress(target) || !ports.every(isPort)) return BAD
  return found({ ...NOTHING_KNOWN, client: addressOf(source) }, lf + 1)
}

const isPlainIPv6 = (text: string): boolean => isIPv6(text) && !text.includes('%')

const isPort = (text: string): boolean => /^(0|[1-9]\d{0,4})$/.test(text) && Number(text) < 65_536

function found(header: ProxyHeader, octets: number): ParsedHeader {
  return { kind: 'header', header, octets }
}

/** In the one way of writing it that node uses; of IPv4 mapped into IPv6, the IPv4 address. */
function addressOf(text: string): string {
  const family = isIPv4(text) ? 'ipv4' : 'ipv6'
  return new SocketAddress({ address: text, family }).address.replace(/^::ffff:(?=\d+\.)/, '')
}

/** Commands and address families of version 2. */
const LOCAL = 0x20
const PROXY = 0x21
const TCP4 = 0x11
const TCP6 = 0x21

function parseBinary(octets: Buffer): ParsedHeader {
  if (octets.length < FIXED_OCTETS) return MORE
  const command = octets.readUInt8(12)
  const family = octets.readUInt8(13)
  const blockOctets = octets.readUInt16BE(14)
  const isKnownFamily = family >> 4 <= 3 && (family & 0x0f) <= 2
  if ((command !== LOCAL && command !== PROXY) || !isKnownFamily) return BAD
  if (blockOctets > BLOCK_MAX_OCTETS) return BAD
  const end = FIXED_OCTETS + blockOctets
  if (octets.length < end) return MORE
  if (command === LOCAL) return found(NOTHING_KNOWN, end)
  const header = parseBlock(family, octets.subarray(FIXED_OCTETS, end))
  return header === undefined ? BAD : found(header, end)
}

/** Octets of both addresses and both ports, by address family. */
const ADDRESS_OCTETS = [0, 12, 36, 216]

function parseBlock(family: number, block: Buffer): ProxyHeader | undefined {
  const addressOctets = ADDRESS_OCTETS[family >> 4] ?? 0
  if (block.length < addressOctets) return undefined
  const additions = parseAdditions(block.subarray(addressOctets))
  return additions && { client: clientIn(family, block), ...additions }
}

function clientIn(family: number, block: Buffer): string | undefined {
  if (family === TCP4) return [...block.subarray(0, 4)].join('.')
  if (family !== TCP6) return undefined
  const groups = block.toString('hex', 0, 16).match(/.{4}/g) ?? []
  return addressOf(groups.join(':'))
}

const AUTHORITY = 0x02
const SSL = 0x20
const CLIENT_SSL = 0x01
const HOST_NAME = /^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/

/** Type, length (2 octets), value, and again; undefined if the last one is not whole. */
function parseAdditions(octets: Buffer): Omit<ProxyHeader, 'client'> | undefined {
  let isEncrypted = false
  let hostName: string | undefined
  for (let at = 0; at < octets.length; ) {
    if (at + 3 > octets.length) return undefined
    const end = at + 3 + octets.readUInt16BE(at + 1)
    if (end > octets.length) return undefined
    const [type, value] = [octets[at], octets.subarray(at + 3, end)]
    if (type === SSL) isEncrypted = ((value[0] ?? 0) & CLIENT_SSL) !== 0
    if (type === AUTHORITY) hostName = value.toString('latin1').toLowerCase()
    at = end
  }
  const isHostName = hostName !== undefined && HOST_NAME.test(hostName)
  return { isEncrypted, hostName: isHostName ? hostName : undefined }
}

/**
 * Reads the header and puts back what follows it, for TLS or POP3 to read.
 * @returns undefined if what came is no header, or not in time; the caller destroys the socket
 */
export function readProxyHeader(
  socket: Socket,
  timeoutMs: number,
): Promise<ProxyHeader | undefined> {
  let octets = Buffer.alloc(0)
  return new Promise((resolve) => {
    const finish = (header: ProxyHeader | undefined) => {
      clearTimeout(timer)
      socket.off('readable', read).off('close', fail).off('end', fail)
      resolve(header)
    }
    const fail = () => finish(undefined)
    const read = () => {
      const chunk: Buffer | null = socket.read()
      if (chunk === null) return
      octets = Buffer.concat([octets, chunk])
      const parsed = parseProxyHeader(octets)
      if (parsed.kind === 'bad') fail()
      if (parsed.kind !== 'header') return
      const rest = octets.subarray(parsed.octets)
      if (rest.length > 0) socket.unshift(rest)
      finish(parsed.header)
    }
    const timer = setTimeout(fail, timeoutMs)
    socket.on('readable', read).on('close', fail).on('end', fail)
  })
}
