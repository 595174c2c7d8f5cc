/**
 * The host name in a client's first octets (RFC 6066 §3), read before OpenSSL sees them: of who
 * resumes in TLS 1.2 Node tells no name, and the name may stand for a domain. What is not well
 * formed has no name here; OpenSSL says the rest.
 */

const RECORD_HEAD_OCTETS = 5
const RECORD_IS_HANDSHAKE = 22
const MESSAGE_HEAD_OCTETS = 4
const MESSAGE_IS_CLIENT_HELLO = 1
/** LIMIT: ten times what clients send, of the message and of the records that it comes in. */
const HELLO_MAX_OCTETS = 16_384
const VERSION_AND_RANDOM_OCTETS = 34
const EXTENSION_IS_SERVER_NAME = 0
const NAME_IS_HOST = 0

export type HelloReading = { kind: 'incomplete' } | { kind: 'read'; serverName: string | undefined }

const INCOMPLETE: HelloReading = { kind: 'incomplete' }
const NAMELESS: HelloReading = { kind: 'read', serverName: undefined }

/** @param octets all that has come so far */
export function readClientHello(octets: Buffer): HelloReading {
  const notYet = octets.length < HELLO_MAX_OCTETS ? INCOMPLETE : NAMELESS
  const parts: Buffer[] = []
  let length = 0
  let wanted = HELLO_MAX_OCTETS
  // RFC 8446 §5.1: a message may lie in several records.
  for (let at = 0; length < wanted; ) {
    if (octets.length > at && octets[at] !== RECORD_IS_HANDSHAKE) return NAMELESS
    if (octets.length < at + RECORD_HEAD_OCTETS) return notYet
    const start = at + RECORD_HEAD_OCTETS
    const end = start + octets.readUInt16BE(at + 3)
    if (octets.length < Math.min(end, start + MESSAGE_HEAD_OCTETS)) return notYet
    if (at === 0) {
      if (end < start + MESSAGE_HEAD_OCTETS || octets[start] !== MESSAGE_IS_CLIENT_HELLO)
        return NAMELESS
      wanted = MESSAGE_HEAD_OCTETS + octets.readUIntBE(start + 1, 3)
      if (wanted > HELLO_MAX_OCTETS) return NAMELESS
    }
    const part = octets.subarray(start, end)
    parts.push(part)
    length += part.length
    at = end
  }
  const hello = Buffer.concat(parts).subarray(MESSAGE_HEAD_OCTETS, wanted)
  return { kind: 'read', serverName: serverNameIn(hello) }
}

/** RFC 8446 §4.1.2; TLS 1.2 has the same form. */
function serverNameIn(hello: Buffer): string | undefined {
  try {
    let at = VERSION_AND_RANDOM_OCTETS
    at += 1 + hello.readUInt8(at) // session id
    at += 2 + hello.readUInt16BE(at) // cipher suites
    at += 1 + hello.readUInt8(at) // compression methods
    at += 2 // the length of all extensions
    while (at < hello.length) {
      const type = hello.readUInt16BE(at)
      if (type === EXTENSION_IS_SERVER_NAME) {
        if (hello.readUInt8(at + 6) !== NAME_IS_HOST) return undefined
        const start = at + 9
        return hello.toString('latin1', start, start + hello.readUInt16BE(at + 7))
      }
      at += 4 + hello.readUInt16BE(at + 2)
    }
    return undefined
  } catch {
    return undefined // it ends in the middle of a field
  }
}
