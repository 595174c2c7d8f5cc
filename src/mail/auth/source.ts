/**
 * Whom an address stands for when turns are shared out. An IPv4 address is one source; of IPv6 the
 * smallest network that is handed to a customer is a /64, so its 2^64 addresses are one.
 */

const GROUPS = 8
const NETWORK_GROUPS = 4

/**
 * @param client address of a peer as node writes it, with or without a zone; or any other text
 * @returns the same text for the same source: the first four groups of IPv6, anything else as it is
 */
export function sourceOf(client: string): string {
  if (!client.includes(':')) return client
  const [head = '', tail] = client.replace(/%.*$/, '').split('::')
  const left = groupsOf(head)
  const right = groupsOf(tail ?? '')
  const zeros = Array<string>(Math.max(0, GROUPS - left.length - right.length)).fill('0')
  return [...left, ...zeros, ...right].slice(0, NETWORK_GROUPS).join(':')
}

function groupsOf(part: string): string[] {
  return part === '' ? [] : part.split(':')
}
