/**
 * A TLS session as a client keeps it, without the server's certificate: OpenSSL reads that again at
 * each resumption, which costs the generator a quarter of what it does for a poll, and nobody looks
 * at it. Mail programs keep sessions as they are in memory, and read nothing again.
 */

/** OpenSSL's SSL_SESSION in DER: a sequence, whose length, with a certificate in it, is 2 octets. */
const SESSION_HEAD = Buffer.from([0x30, 0x82])
const HEAD_OCTETS = 4
const PEER_CERTIFICATE = 0xa3
const LENGTH_IS_LONG = 0x80

/** @param session of the event 'session'; Node 24 puts a host name before it */
export function withoutCertificate(session: Buffer): Buffer {
  const start = session.indexOf(SESSION_HEAD)
  if (start < 0) return session
  const fields: Buffer[] = []
  for (let at = start + HEAD_OCTETS; at < session.length; ) {
    const end = endOfElement(session, at)
    if (session[at] !== PEER_CERTIFICATE) fields.push(session.subarray(at, end))
    at = end
  }
  const length = Buffer.alloc(2)
  length.writeUInt16BE(fields.reduce((sum, field) => sum + field.length, 0))
  return Buffer.concat([session.subarray(0, start), SESSION_HEAD, length, ...fields])
}

function endOfElement(der: Buffer, at: number): number {
  const length = der.readUInt8(at + 1)
  if (length < LENGTH_IS_LONG) return at + 2 + length
  const octets = length - LENGTH_IS_LONG
  return at + 2 + octets + der.readUIntBE(at + 2, octets)
}
