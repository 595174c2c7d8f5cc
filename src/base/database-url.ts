/**
 * DATABASE_URL, read far enough to know its hosts. One host is pg's to understand, whatever the
 * form. Several are named as libpq has them, `postgres://user:password@a:5432,b:5433/mail`, with
 * `%2Frun%2Fpostgresql` for a socket's directory, or as `?host=a,b&port=5432,5433`: pg knows
 * neither, so they become one URL each. Nothing here throws, and no refusal shows what it refused.
 */

interface DatabaseHost {
  /** For people: `a:5432`, a socket's directory. */
  name: string
  /** Of this host alone; with the password. */
  url: string
}

export interface DatabaseHosts {
  hosts: readonly DatabaseHost[]
  /** Whether a host that cannot be written to is to be left: there is another, or it is asked. */
  mustBeWritable: boolean
  /** For people: the hosts and the database's name. */
  description: string
}

/** LIMIT: each has its share of the time for connecting. */
const HOSTS_MAX = 8
const WANTED = 'target_session_attrs'
const NOT_READ = { wrong: 'must be a postgres:// URL' }
const NOT_ENCODED = { wrong: 'must have / ? # and @ of user and password percent-encoded' }
// Scheme and user, hosts, path and query. A password may hold an @.
const PARTS = /^(postgres(?:ql)?:\/\/(?:[^/?#]*@)?)([^/?#@]*)(.*)$/is

/** @returns the hosts, in their order; or what the URL must be */
export function parseDatabaseUrl(text: string): DatabaseHosts | { wrong: string } {
  const [, front, authority = '', rest = ''] = PARTS.exec(text) ?? []
  if (front === undefined) return NOT_READ
  const { path, parameters } = parseRest(rest)
  // Cut at its /, a password looks like a port and a database: `u:12/3@host/mail`.
  if ([path, ...parameters.keys()].some((part) => part.includes('@')) || /#.*@/s.test(rest))
    return NOT_ENCODED
  const wanted = parameters.get(WANTED)
  if (wanted !== null && wanted !== 'read-write' && wanted !== 'primary')
    return { wrong: `must have ${WANTED}=read-write or none: mail is written` }
  parameters.delete(WANTED)
  const isTwice = authority.includes(',') && (parameters.has('host') || parameters.has('port'))
  if (isTwice)
    return { wrong: 'must name hosts and ports in one place, before the path or after ?' }
  const isInQuery = parameters.get('host')?.includes(',') === true
  const named = isInQuery ? placesOf(parameters) : authority.split(',')
  if (named === undefined || named.length > HOSTS_MAX)
    return { wrong: `must name as many ports as hosts, and ${HOSTS_MAX} hosts at most` }
  if (isInQuery) for (const name of ['host', 'port']) parameters.delete(name)
  const tail = parameters.size === 0 ? path : `${path}?${parameters}`
  const urlOf = (place: string): string => (named.length === 1 ? text : `${front}${place}${tail}`)
  // One that is named twice would be failed over to, and its own connections cut.
  const places = [...new Set(named)]
  const hosts = places.map((place) => ({ name: nameOf(place, parameters), url: urlOf(place) }))
  const isRead = hosts.every(({ url }) => URL.canParse(url.replace('@/', '@localhost/')))
  if (!isRead || (hosts.length > 1 && places.includes(''))) return NOT_READ
  const description = `${hosts.map(({ name }) => name).join(',')}${decodePart(path)}`
  return { hosts, mustBeWritable: hosts.length > 1 || wanted !== null, description }
}

function parseRest(rest: string): { path: string; parameters: URLSearchParams } {
  const at = rest.search(/[?#]/)
  const query = at === -1 || rest[at] === '#' ? '' : rest.slice(at + 1).replace(/#.*$/s, '')
  return { path: at === -1 ? rest : rest.slice(0, at), parameters: new URLSearchParams(query) }
}

/** As the part of a URL between user and path; undefined: the ports are not for these hosts. */
function placesOf(parameters: URLSearchParams): string[] | undefined {
  const hosts = (parameters.get('host') ?? '').split(',')
  const ports = (parameters.get('port') ?? '').split(',')
  if (ports.length !== 1 && ports.length !== hosts.length) return undefined
  return hosts.map((host, index) => {
    const port = ports.length === 1 ? ports[0] : ports[index]
    const place = host.includes(':') ? `[${host}]` : encodeURIComponent(host)
    return port === '' ? place : `${place}:${port}`
  })
}

function nameOf(place: string, parameters: URLSearchParams): string {
  const host = parameters.get('host')
  return host === null ? decodePart(place) : host
}

function decodePart(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
