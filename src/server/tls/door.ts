/**
 * Where a connection becomes an encrypted one, on the POP3S port (RFC 8314 §3) and after STLS
 * (RFC 2595 §4). Handshakes are bounded in time and in number; nothing of what a peer does in one
 * becomes an uncaught error.
 */
import { createHash, randomBytes } from 'node:crypto'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { Failure } from '../../base/failure.ts'
import { type Host, HostCertificates, type HostCertificatesOptions } from './certificates.ts'
import { Handshake } from './handshake.ts'
import { deriveTicketKeys } from './tickets.ts'

export interface TlsDoorOptions extends Omit<HostCertificatesOptions, 'ticketKeys'> {
  wantsClientCertificates: boolean
  /** how long a handshake may take */
  handshakeMs?: number
  /** handshakes at once that are not finished */
  unfinishedMax?: number
  /** 48 octets shared by who should resume each other's sessions; a keyring comes before it */
  ticketKeys?: Buffer | undefined
  /** milliseconds since 1970 */
  clock?: () => number
}

export interface EncryptedSocket {
  socket: TLSSocket
  /** SNI, in lower case; undefined: none was sent, or none of ours */
  hostName: string | undefined
  /** the domain that the host name is bound to */
  hostDomain: string | undefined
  /** RFC 9266 tls-exporter, 32 octets; undefined before TLS 1.3 */
  channelBinding: Buffer | undefined
  /** SHA-256 of the client certificate's DER, if one was shown that is valid by its dates */
  certificateDigest: Buffer | undefined
  /** `TLSv1.2` or `TLSv1.3` */
  protocol: string
}

/** LIMIT: a client on a bad line needs two or three round trips, of a second each. */
const HANDSHAKE_MS = 10_000
/** LIMIT: some 50 KiB and one signature each. */
const UNFINISHED_MAX = 1_000

const CHANNEL_BINDING_LABEL = 'EXPORTER-Channel-Binding'
const CHANNEL_BINDING_OCTETS = 32

export class TlsDoor {
  readonly #certificates: HostCertificates
  readonly #wantsClientCertificates: boolean
  readonly #handshakeMs: number
  readonly #unfinishedMax: number
  readonly #unfinished = new Set<Handshake>()
  #isClosed = false

  constructor(options: TlsDoorOptions) {
    const { keyring, clock = Date.now, ticketKeys = randomBytes(48) } = options
    this.#certificates = new HostCertificates({
      ...options,
      ticketKeys: () => (keyring ? deriveTicketKeys(keyring, clock()) : ticketKeys),
    })
    this.#wantsClientCertificates = options.wantsClientCertificates
    this.#handshakeMs = options.handshakeMs ?? HANDSHAKE_MS
    this.#unfinishedMax = options.unfinishedMax ?? UNFINISHED_MAX
  }

  /** Whether there is a certificate to show; false before the first refresh. */
  get isReady(): boolean {
    return this.#certificates.standard !== undefined && !this.#isClosed
  }

  /** Handshakes that are not finished. */
  get unfinishedCount(): number {
    return this.#unfinished.size
  }

  /** What is kept of host names and certificates. */
  get counts(): { hosts: number; certificates: number } {
    return this.#certificates.counts
  }

  /**
   * Takes changed certificates and the ticket keys of the hour into use; open sessions go on. To be
   * called at the start and every few seconds. Never fails: what is wrong is logged.
   */
  refresh(): Promise<void> {
    return this.#certificates.refresh()
  }

  /**
   * Does the server's side of a handshake. The plain socket must be paused and nobody's; what is
   * still to be read from it is taken for TLS. Whose handshake fails has the connection destroyed.
   * @throws {Failure} TLS_HANDSHAKE, TLS_OVERLOADED, or the database's that could not be asked
   */
  async encrypt(plain: Socket): Promise<EncryptedSocket> {
    const handshake = new Handshake(plain)
    if (!this.isReady) handshake.end('there is no certificate to show, or the server ends')
    if (this.#unfinished.size >= this.#unfinishedMax) {
      plain.destroy()
      throw new Failure('TLS_OVERLOADED')
    }
    this.#unfinished.add(handshake)
    const timer = setTimeout(() => handshake.end('it took too long'), this.#handshakeMs)
    try {
      return await Promise.race([this.#shakeHands(handshake), handshake.broken])
    } catch (error) {
      plain.destroy()
      throw error
    } finally {
      clearTimeout(timer)
      this.#unfinished.delete(handshake)
    }
  }

  /** Ends unfinished handshakes; encrypts no more. */
  close(): void {
    this.#isClosed = true
    for (const handshake of this.#unfinished) handshake.end('the server ends')
  }

  async #shakeHands(handshake: Handshake): Promise<EncryptedSocket> {
    const name = await handshake.readServerName()
    const host: Partial<Host> = name === undefined ? {} : await this.#certificates.find(name)
    const secureContext = this.#certificates.standard
    if (secureContext === undefined)
      throw new Failure('TLS_HANDSHAKE', 'there is no certificate to show')
    const socket = await handshake.secure({
      secureContext,
      SNICallback: (_, done) => done(null, host.context),
      ALPNProtocols: ['pop3'],
      requestCert: this.#wantsClientCertificates,
      rejectUnauthorized: false,
    })
    const protocol = socket.getProtocol() ?? ''
    return {
      socket,
      hostName: host.hostName,
      hostDomain: host.domain,
      channelBinding: protocol === 'TLSv1.3' ? channelBindingOf(socket) : undefined,
      certificateDigest: this.#wantsClientCertificates ? certificateDigestOf(socket) : undefined,
      protocol,
    }
  }
}

/** RFC 9266 §2. */
function channelBindingOf(socket: TLSSocket): Buffer {
  return socket.exportKeyingMaterial(CHANNEL_BINDING_OCTETS, CHANNEL_BINDING_LABEL, Buffer.alloc(0))
}

function certificateDigestOf(socket: TLSSocket): Buffer | undefined {
  const certificate = socket.getPeerX509Certificate()
  if (certificate === undefined) return undefined
  const now = Date.now()
  const isValid = Date.parse(certificate.validFrom) <= now && now <= Date.parse(certificate.validTo)
  return isValid ? createHash('sha256').update(certificate.raw).digest() : undefined
}
