/**
 * Where a POP3 server of somebody else is, and how it is spoken to. Only operators name one, by the
 * command line or a row in `old_servers`; nothing that a peer of ours says leads to a connection
 * elsewhere.
 */

export interface OldServer {
  host: string
  port: number
  /** `tls` at once, `stls` before the password, or `none`: passwords go in the clear */
  security: 'tls' | 'stls' | 'none'
  /** PEM: who signs its certificate; undefined: those whom the system's Node.js trusts */
  authority: string | undefined
}

const PORTS = { 'pop3:': 110, 'pop3s:': 995 } as const

/**
 * `pop3s://host[:port]` or `pop3://host[:port]`, nothing else in it: neither user nor password.
 * @returns undefined if it is none
 */
export function parseOldServer(
  text: string,
): (Pick<OldServer, 'host' | 'port'> & { isTls: boolean }) | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !(url.protocol in PORTS)) return undefined
  const isBare = /^(?:|\/)$/.test(url.pathname) && url.search === '' && url.hash === ''
  if (!isBare || url.username !== '' || url.password !== '' || url.hostname === '') return undefined
  const host = url.hostname.replace(/^\[|\]$/g, '')
  if (!/^[0-9A-Za-z:.-]{1,253}$/.test(host)) return undefined
  const port = url.port === '' ? PORTS[url.protocol as keyof typeof PORTS] : Number(url.port)
  return { host, port, isTls: url.protocol === 'pop3s:' }
}

export function formatOldServer({ host, port, security }: OldServer): string {
  const name = host.includes(':') ? `[${host}]` : host
  return `${security === 'tls' ? 'pop3s' : 'pop3'}://${name}:${port}`
}
