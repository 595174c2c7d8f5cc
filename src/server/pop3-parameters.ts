/**
 * What is known of the peer of one POP3 connection, and what the session may therefore offer it:
 * worked out when it has arrived, and once more when STLS has made the connection another one.
 */
import type { Socket } from 'node:net'
import { isLoopback } from '../base/network.ts'
import type { Settings } from '../base/settings.ts'
import type { LoginPeer } from '../mail/auth/login-peer.ts'
import type { MaildropPolicy, Pop3Parameters, SaslMechanismName } from '../protocol/pop3/actions.ts'
import { SASL_MECHANISMS } from '../protocol/pop3/actions.ts'
import { clientOf } from './listener.ts'
import type { ProxyHeader } from './proxy-protocol.ts'
import type { EncryptedSocket } from './tls/door.ts'

export interface Pop3Peer extends LoginPeer {
  /** A load balancer speaks for it; what lies between it and us is not this machine. */
  isRelayed: boolean
  /** TLS that ends here: its version, e.g. `TLSv1.3`. */
  tls: string | undefined
  /** As the client asked for it in TLS, if the name is known here. */
  host: string | undefined
  /** RFC 9266; see Pop3Parameters. */
  channelBinding: Buffer | undefined
}

/** What the node offers; the functions are asked at each greeting and after each handshake. */
export interface Pop3Offer {
  hostname: string
  plaintextAuth: Settings['POPGRES_PLAINTEXT_AUTH']
  /** By their registered names, in any order. */
  saslMechanisms: readonly string[]
  /** POPGRES_UTF8_MESSAGES=refuse */
  isUtf8Asked: boolean
  isTlsReady: () => boolean
  /** Whether a key and some user make APOP work. */
  isApopOffered: () => boolean
  /** Whether a key and some user make SCRAM work. */
  isScramOffered: () => boolean
  /** Whether some domain has an OAuth provider. */
  hasBearerProvider: () => boolean
  /** What CAPA says before login: see Pop3Parameters. */
  policy: () => { policy: MaildropPolicy; isPolicyByUser: boolean }
}

/** Who connected to us and speaks for itself. */
export function directPeer(socket: Socket): Pop3Peer {
  return {
    client: clientOf(socket),
    isRelayed: false,
    isEncrypted: false,
    tls: undefined,
    host: undefined,
    hostDomain: undefined,
    channelBinding: undefined,
    certificateDigest: undefined,
  }
}

/**
 * Who a balancer speaks for; itself, if the header names nobody.
 * @param hostDomain the domain that the host name is bound to
 */
export function relayedPeer(
  socket: Socket,
  header: ProxyHeader,
  hostDomain: string | undefined,
): Pop3Peer {
  const direct = directPeer(socket)
  return {
    ...direct,
    client: header.client ?? direct.client,
    isRelayed: true,
    isEncrypted: header.isEncrypted,
    host: header.hostName,
    hostDomain,
  }
}

export function encryptedPeer(peer: Pop3Peer, encrypted: EncryptedSocket): Pop3Peer {
  return {
    ...peer,
    isEncrypted: true,
    tls: encrypted.protocol,
    host: encrypted.hostName ?? peer.host,
    hostDomain: encrypted.hostDomain ?? peer.hostDomain,
    channelBinding: encrypted.channelBinding,
    certificateDigest: encrypted.certificateDigest,
  }
}

/** @param apopTimestamp of the greeting: it stays the same after STLS */
export function parametersOf(
  peer: Pop3Peer,
  offer: Pop3Offer,
  apopTimestamp: string | undefined,
): Pop3Parameters {
  const isOpenAllowed = isPlaintextAllowed(peer, offer)
  const { policy, isPolicyByUser } = offer.policy()
  return {
    hostname: offer.hostname,
    apopTimestamp,
    isPlaintextAllowed: isOpenAllowed,
    isTlsOffered: !peer.isEncrypted && offer.isTlsReady(),
    saslMechanisms: SASL_MECHANISMS.filter(
      (name) => offer.saslMechanisms.includes(name) && canWork(name, peer, offer, isOpenAllowed),
    ),
    channelBinding: peer.channelBinding,
    policy,
    isPolicyByUser,
    isUtf8Asked: offer.isUtf8Asked,
    implementation: 'Popgres',
  }
}

/**
 * Whether what is sent as it is can be read by nobody, or by nobody but this machine. Of a client
 * behind a balancer only the balancer's word counts: its own loopback is not ours.
 */
function isPlaintextAllowed(peer: Pop3Peer, { plaintextAuth }: Pop3Offer): boolean {
  if (peer.isEncrypted || plaintextAuth === 'always') return true
  if (plaintextAuth === 'never' || peer.isRelayed) return false
  return peer.client === 'local' || isLoopback(peer.client)
}

/**
 * @param isPlaintextAllowed every mechanism but SCRAM and EXTERNAL sends something that whoever
 *   reads it can use
 */
function canWork(
  mechanism: SaslMechanismName,
  peer: Pop3Peer,
  offer: Pop3Offer,
  isPlaintextAllowed: boolean,
): boolean {
  switch (mechanism) {
    case 'SCRAM-SHA-256':
      return offer.isScramOffered()
    case 'SCRAM-SHA-256-PLUS':
      return offer.isScramOffered() && peer.channelBinding !== undefined
    case 'EXTERNAL':
      return peer.certificateDigest !== undefined
    case 'OAUTHBEARER':
    case 'XOAUTH2':
      return offer.hasBearerProvider() && isPlaintextAllowed
    case 'PLAIN':
    case 'LOGIN':
      return isPlaintextAllowed
  }
}
