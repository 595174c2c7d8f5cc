/**
 * What a peer typed as its name, turned into an address. No regular expression here is looser than
 * the constraints of the tables `users` and `domains`: a name that cannot be an address cannot be a
 * user, needs no look-up, and is never written to the log.
 */

export interface LoginName {
  localPart: string
  /** Lower case. */
  domainName: string
  /** As it may be logged: printable ASCII, at most 318 octets. */
  address: string
}

const LOCAL_PART_MAX_OCTETS = 64
const DOMAIN_MAX_OCTETS = 253

const PRINTABLE = /^[\x21-\x7e]+$/
const ATOM = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
const DOT_ATOM = new RegExp(`^${ATOM}(?:\\.${ATOM})*$`)
const LABEL = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?'
const HOST_NAME = new RegExp(`^${LABEL}(?:\\.${LABEL})*$`)

/**
 * The last "@" splits; a bare name belongs to the default domain.
 * @param defaultDomain lower case; empty: bare names are nobody's
 * @returns undefined for what cannot be an address
 */
export function parseLoginName(name: string, defaultDomain: string): LoginName | undefined {
  if (name.length > LOCAL_PART_MAX_OCTETS + 1 + DOMAIN_MAX_OCTETS) return undefined
  // Before case is folded: some other letters have ASCII ones as their lower case.
  if (!PRINTABLE.test(name)) return undefined
  const at = name.lastIndexOf('@')
  const localPart = at < 0 ? name : name.slice(0, at)
  const domainName = at < 0 ? defaultDomain : name.slice(at + 1).toLowerCase()
  if (localPart.length > LOCAL_PART_MAX_OCTETS || domainName.length > DOMAIN_MAX_OCTETS)
    return undefined
  if (!DOT_ATOM.test(localPart) || !HOST_NAME.test(domainName)) return undefined
  return { localPart, domainName, address: `${localPart}@${domainName}` }
}
